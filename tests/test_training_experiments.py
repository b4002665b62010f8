"""The experiments on clipping and flossing: claims of their figures on the committed summaries, and bad settings."""

import re
from dataclasses import replace
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from largest_so_far import TASK, classifier, cross_entropy

from analysis.seeds import single
from paper_figures.summaries import read, select
from rnn_dynamics.training import backpropagate
from rnn_dynamics.training.clipping import global_norm

FIXED = ("global_norm", "value", "parameter_norm", "unit_ratio", "normalising")
"""Ways of clipping the whole gradient whose limit does not follow the gradients that it is to hold."""


@pytest.mark.parametrize("network", ["elman-tanh", "lstm"])
def test_claim_any_fixed_limit_helps_where_no_clipping_fails(network):
    summary = select(read("clipping_methods"), network=network)
    unclipped, unclipped_error = single(summary, "success", method="none", threshold=1.0)
    assert unclipped == 0
    for method in FIXED:
        success = select(summary, quantity="success", method=method)
        best = success.loc[success["mean"].idxmax()]
        assert best["mean"] - unclipped > 3 * np.hypot(best["error"], unclipped_error), method


def test_claim_a_limit_that_follows_the_gradients_and_one_on_the_states_alone_do_not_save_the_lstm():
    summary = select(read("clipping_methods"), network="lstm", quantity="success")
    for method in ("percentile", "each_step"):
        assert select(summary, method=method)["mean"].max() == 0


def test_claim_a_lower_rate_does_nearly_as_well():
    """7 of 8 at the best rate; so the summary shows no advantage of clipping over it of three standard errors."""
    summary = select(read("clipping_methods"), quantity="success")
    for network in ("elman-tanh", "lstm"):
        assert select(summary, network=network, method="none")["mean"].max() == 7 / 8
        assert select(summary, network=network, method="global_norm")["mean"].max() == 1


def test_claim_all_unclipped_lstms_break_and_no_elman_network_does():
    summary = select(read("clipping_methods"), quantity="broken", method="none", threshold=1.0).set_index("network")
    assert summary["mean"].to_dict() == {"elman-tanh": 0, "lstm": 1}


def test_a_limit_below_every_norm_is_normalising():
    """Where every update is clipped by the global norm, the two make the same networks."""
    summary = read("clipping_methods")
    clipped = select(summary, method="global_norm", threshold=0.03)
    normalised = select(summary, method="normalising", threshold=0.03)
    assert set(select(clipped, quantity="clip_share")["mean"]) == {1}
    for column in ("mean", "error"):
        values, others = (part[column].to_numpy() for part in (clipped, normalised))
        np.testing.assert_allclose(values, others, rtol=1e-5, atol=1e-6)


def test_only_what_turns_is_turned():
    angles = select(read("clipping_methods"), quantity="clip_angle").set_index("method")["mean"]
    for keeps in ("none", "global_norm", "percentile", "normalising"):
        assert np.all(angles[keeps] == 0)
    for turns in ("value", "parameter_norm", "unit_ratio", "each_step"):
        assert np.all((angles[turns] > 1) & (angles[turns] < 90))


def test_claim_flossing_extends_the_delay_that_is_learnt():
    summary = read("flossing")
    for condition in ("before", "before and during"):
        success, error = single(summary, "success", condition=condition, delay=12)
        none, none_error = single(summary, "success", condition="none", delay=12)
        assert none == 0
        assert success - none > 3 * np.hypot(error, none_error)
        for delay in (12, 16, 24):
            chance, _ = single(summary, "chance_level", condition="none", delay=delay)
            accuracy, error = single(summary, "accuracy", condition=condition, delay=delay)
            unflossed, unflossed_error = single(summary, "accuracy", condition="none", delay=delay)
            assert accuracy - chance > 4 * error
            assert abs(unflossed - chance) < 4 * unflossed_error


def test_claim_flossing_brings_all_its_exponents_nearer_to_0():
    spectra = select(read("flossing"), quantity="exponent", condition="before", delay=12)
    stages = (select(spectra, stage=stage).sort_values("x").iloc[:24] for stage in ("drawn", "flossed"))
    (drawn, drawn_error), (flossed, error) = (stage[["mean", "error"]].to_numpy().T for stage in stages)
    assert np.all(flossed < 0)
    assert np.all(flossed - drawn > 4 * np.hypot(error, drawn_error))
    assert select(read("flossing"), quantity="log_det_residual")["mean"].max() < 1e-9


@pytest.mark.slow  # one backward pass step by step to compile
@pytest.mark.parametrize(("threshold", "clips"), [(np.inf, False), (1e-4, True)])
def test_clipping_each_step_is_told_beside_the_raw_gradient(threshold, clips):
    rule = import_module("experiments.clipping_methods").recipe_of("each_step")(threshold, 1.0).gradient_rule
    batch = next(TASK.batches("train", 8, seed=0))
    raw = backpropagate(losses, classifier(), batch).gradient
    made = rule(losses, classifier(), batch)
    ratio = global_norm(made.gradient) / global_norm(raw)
    cosine = sum(jnp.vdot(a, b) for a, b in pairs(made.gradient, raw)) / global_norm(made.gradient) / global_norm(raw)
    np.testing.assert_allclose(made.report["clip_factor"], ratio, rtol=1e-6, atol=0)
    np.testing.assert_allclose(np.cos(made.report["clip_angle"]), cosine, rtol=0, atol=1e-6)
    assert (made.report["clipped"] > 0) == clips
    assert (ratio < 0.9) == clips


def losses(model, batch):
    return cross_entropy(model(batch.inputs, batch.lengths), batch.targets)


def pairs(a, b):
    return zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)


@pytest.mark.parametrize(
    ("name", "bad", "sentence"),
    [
        ("clipping_methods", {"networks": ("lstmm",)}, "unknown network 'lstmm': did you mean lstm?"),
        ("clipping_methods", {"none": (0.0,)}, "none must be a finite number > 0, got 0.0"),
        ("clipping_methods", {"global_norm": (-1.0,)}, "threshold must be a number > 0, got -1.0"),
        ("clipping_methods", {"each_step": (0.0,)}, "threshold must be a number > 0, got 0.0"),
        ("clipping_methods", {"percentile": (101.0,)}, "threshold must be a percentile in 0 ... 100, got 101.0"),
        ("clipping_methods", {"gain": 0.0}, "gain must be a finite number > 0, got 0.0"),
        ("clipping_methods", {"lag": 0}, "lag must be a whole number >= 1, got 0"),
        ("clipping_methods", {"length": 1}, "length must be a whole number >= 2, got 1"),
        ("clipping_methods", {"seeds": 0}, "seeds must be a whole number >= 1, got 0"),
        ("clipping_methods", {"training_steps": 24}, "training_steps must be a whole number >= 25, got 24"),
        ("clipping_methods", {"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ("flossing", {"conditions": ("befor",)}, "unknown condition 'befor': did you mean before?"),
        ("flossing", {"delays": (0,)}, "delay must be a whole number >= 1, got 0"),
        ("flossing", {"seeds": 0}, "seeds must be a whole number >= 1, got 0"),
        ("flossing", {"exponents": 5}, "exponents must be between 1 and hidden = 4, got 5"),
        ("flossing", {"gain": -1.0}, "gain must be a finite number > 0, got -1.0"),
        ("flossing", {"training_steps": 700}, "training_steps must be a multiple of 500, got 700"),
        ("flossing", {"flossing_before": 0}, "flossing_before must be a whole number >= 1, got 0"),
        ("flossing", {"learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0"),
        ("flossing", {"flossing_rate": 0.0}, "flossing_rate must be a finite number > 0, got 0.0"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_its_own_name(name, bad, sentence):
    module = import_module(f"experiments.{name}")
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        module.grid(replace(module.PRESETS["smoke"], **bad))
