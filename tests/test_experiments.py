"""Every experiment from its smoke preset to its figure; and the claims of the figures, on the committed summaries."""

import json
import re
from dataclasses import replace
from importlib import import_module

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from flax import nnx
from networks import slow_but

import analysis.__main__ as analysis_command
import paper_figures.__main__ as figures_command
from analysis.seeds import mean_and_error, share_row, single
from analysis.trainability import longest_lags
from experiments import runner
from experiments.__main__ import find_questions
from paper_figures.summaries import FOLDER, read, select
from rnn_dynamics.results import load_run, read_provenance
from rnn_dynamics.training import ClipReport, ProbeHistory, TrainingBroke, TrainingRecord

EXPERIMENTS = list(find_questions("experiments"))
COLUMNS = {"quantity", "units", "x", "mean", "error", "count"}


@pytest.mark.parametrize("name", slow_but([], EXPERIMENTS))
def test_from_smoke_preset_to_figure(name, tmp_path, capsys):
    module = import_module(f"experiments.{name}")
    assert set(module.PRESETS) == {"smoke", "laptop", "paper"}
    paths = runner.run(name, module.PRESETS["smoke"], results=tmp_path)
    assert len(paths) == len(module.grid(module.PRESETS["smoke"]))

    datasets = load_run(tmp_path / name / "runs" / "smoke.json")
    for dataset in datasets:
        assert np.all(dataset.get("first_nonfinite_step", -1) == -1)
        assert read_provenance(dataset).experiment == name

    summaries = tmp_path / "summaries"
    command = [name, "--run", "smoke", "--results", str(tmp_path), "--summaries", str(summaries)]
    assert analysis_command.main(command) == 0
    summary = read(name, summaries)
    assert set(summary.columns) >= COLUMNS
    assert summary["mean"].notna().any()
    made = json.loads((summaries / f"{name}.json").read_text())
    assert len(made["run"]["points"]) == len(paths)
    assert made["made_by"][0]["packages"]["jax"]

    assert figures_command.main([name, "--summaries", str(summaries), "--output", str(tmp_path / "figures")]) == 0
    picture = matplotlib.image.imread(tmp_path / "figures" / f"{name}.png")
    assert picture.std() > 0.05
    assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert "figure:" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_committed_summary_is_of_the_laptop_preset_and_its_figure_redraws(name, tmp_path):
    made = json.loads((FOLDER / f"{name}.json").read_text())
    preset = import_module(f"experiments.{name}").PRESETS["laptop"]
    assert made["run"]["config"] == json.loads(json.dumps(vars(preset)))
    first, _ = figures_command.save(name, FOLDER, tmp_path / "first")
    second, _ = figures_command.save(name, FOLDER, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_claim_training_brings_exponents_to_zero():
    summary = read("before_and_after_training")
    for network in summary["network"].unique():
        before, before_error = single(summary, "largest_exponent", network=network, stage="before")
        after, after_error = single(summary, "largest_exponent", network=network, stage="after")
        assert before < after < 0
        assert after - before > 3 * np.hypot(before_error, after_error)
        first = {
            stage: select(summary, network=network, stage=stage, quantity="log10_loss_gradient")["mean"]
            .dropna()
            .iloc[0]
            for stage in ("before", "after")
        }
        assert first["after"] - first["before"] > 1.5  # decades
        accuracy, error = single(summary, "accuracy", network=network, stage="after")
        chance, _ = single(summary, "chance_level", network=network, stage="training")
        assert accuracy - 5 * error > 5 * chance


def test_every_committed_spectrum_passes_its_determinant_check():
    summary = read("before_and_after_training")
    assert select(summary, quantity="log_det_residual")["mean"].max() < 1e-9


def test_claim_growth_rates_converge_to_the_exponent():
    summary = read("jacobian_growth")
    rates = select(summary, quantity="growth_rate")
    exponents = select(summary, quantity="largest_exponent")
    keys = ["inputs", "network", "gain"]
    for horizon, tolerance in ((1000, 0.05), (10_000, 5e-3)):
        joined = select(rates, x=horizon).merge(exponents, on=keys, suffixes=("", "_exponent"))
        assert len(joined) == len(exponents) > 0
        overflows = joined["mean_exponent"].isna()
        assert set(joined[overflows]["network"]) == {"elman-relu"}
        assert joined[overflows]["gain"].min() > np.sqrt(2)  # where relu networks diverge (He et al. 2015)
        # The logarithm of the overlap of two generic directions, of order 1 to 10, is spread over the horizon.
        assert (joined["mean"] - joined["mean_exponent"])[~overflows].abs().max() < tolerance


def test_claim_the_gain_of_tanh_networks_raises_the_exponent():
    summary = select(read("jacobian_growth"), quantity="largest_exponent", network="elman-tanh")
    for inputs in summary["inputs"].unique():
        by_gain = select(summary, inputs=inputs).sort_values("gain")["mean"].to_numpy()
        assert np.all(np.diff(by_gain) > 0)


def test_claim_gated_cells_at_small_gain_are_nearest_to_neutral():
    summary = select(read("jacobian_growth"), quantity="largest_exponent", gain=0.5)
    for inputs in summary["inputs"].unique():
        by_network = select(summary, inputs=inputs).set_index("network")["mean"]
        assert by_network["lstm"] > by_network["gru"] > by_network[["elman-tanh", "elman-relu"]].max()


def test_claim_gates_learn_to_add_and_plain_tanh_networks_do_not():
    summary = select(read("long_memory_tasks"), task="adding")
    chance, _ = single(summary, "chance_level", network="gru")
    for network in ("lstm", "gru"):
        metric, error = single(summary, "final_metric", network=network)
        assert metric + 4 * error < 0.01
        assert single(summary, "solved", network=network)[0] == 1
    for network in ("elman-tanh", "elman-tanh-orthogonal"):
        assert single(summary, "final_metric", network=network)[0] > 0.95 * chance
    between, error = single(summary, "final_metric", network="elman-relu-identity")
    gated = max(single(summary, "final_metric", network=network)[0] for network in ("lstm", "gru"))
    assert gated < between - 4 * error < between + 4 * error < 0.5 * chance


def test_claim_orthogonal_weights_copy_before_gates_do():
    summary = select(read("long_memory_tasks"), task="copying_memory")
    chance, _ = single(summary, "chance_level", network="gru")
    np.testing.assert_allclose(chance, 10 * np.log(8) / 70, rtol=1e-5, atol=0)
    assert single(summary, "solved", network="exprnn")[0] == 1
    for network in ("elman-tanh", "elman-tanh-orthogonal"):
        assert single(summary, "final_metric", network=network)[0] > 0.95 * chance
    for network in ("lstm", "gru"):
        metric, error = single(summary, "final_metric", network=network)
        assert chance / 10 < metric - 4 * error
        assert metric + 4 * error < chance


def test_claim_the_longest_lag_learnt_grows_with_the_reach_and_falls_in_chaos():
    summary = read("trainability")
    for network in ("elman-tanh", "gru"):
        power, error = single(summary, "fit_power", network=network)
        assert power > 4 * error > 0
    of_elman = select(summary, network="elman-tanh")
    by_gain = {
        gain: {name: single(of_elman, name, control=gain) for name in ("largest_exponent", "reach", "mean_longest_lag")}
        for gain in (0.6, 1.5, 3.0)
    }
    (faded, _), (neutral, error), (chaotic, _) = (by_gain[gain]["largest_exponent"] for gain in by_gain)
    assert faded < -4 * error < neutral < 4 * error < chaotic
    lags = np.array([by_gain[gain]["mean_longest_lag"] for gain in by_gain])
    for mean, error in lags[[0, 2]]:
        assert mean + 4 * error < lags[1, 0] / 2


def test_claim_the_longest_lag_learnt_is_some_times_the_reach_in_both_kinds_of_network():
    summary = read("trainability")
    numbers = summary[summary["x"].isna()].set_index(["network", "control", "quantity"])["mean"].unstack()
    inside = numbers[(numbers["largest_exponent"] < 0) & (numbers["solved_longest"] == 0)]
    assert len(inside.loc["elman-tanh"]) >= 4
    assert len(inside.loc["gru"]) >= 4
    assert (inside["mean_longest_lag"] / inside["reach"]).between(6.5, 10.5).all()


def test_longest_lags_are_those_of_seeds_and_of_half_of_them():
    solved = {10: np.array([True, True, True]), 40: np.array([True, True, False]), 20: np.array([True, False, False])}
    longest, mean, at_longest = longest_lags({}, solved)
    assert longest["mean"] == 40
    logs = np.log([40, 40, 10])
    expected = np.exp(logs.mean()) * np.array([1, logs.std(ddof=1) / np.sqrt(3)])
    np.testing.assert_allclose([mean["mean"], mean["error"]], expected, rtol=1e-12, atol=0)
    np.testing.assert_allclose(at_longest["mean"], 2 / 3, rtol=1e-12, atol=0)

    longest, mean, at_longest = longest_lags({}, {10: np.array([True, False, False])})
    assert np.isnan(longest["mean"])
    assert np.isnan(mean["mean"])
    assert mean["finite"] == 1


def test_nothing_is_told_of_a_network_after_it_broke():
    module = import_module("experiments.long_memory_tasks")
    never, evaluated = np.array(-1), np.array([10, 20, 30])
    record = TrainingRecord(
        {}, evaluated, np.arange(6.0).reshape(3, 2), np.array([-1, 19]), never, None, ProbeHistory((), nnx.Module())
    )
    expected = [[0, 1], [2, np.nan], [4, np.nan], [np.nan, np.nan]]
    np.testing.assert_array_equal(module.metric_of(record, evaluations=4), expected)


def test_mean_and_error():
    values = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    mean, error = mean_and_error(values)
    np.testing.assert_allclose(mean, [3, 2])
    np.testing.assert_allclose(error, [2 / np.sqrt(3), 0])
    np.testing.assert_allclose(mean_and_error(values[:1], np.array([[0.1, 0.2]]))[1], [0.1, 0.2])
    assert np.isnan(mean_and_error(values[:1])[1]).all()
    mean, error = mean_and_error(np.array([np.inf, 1.0]))
    assert mean == np.inf
    assert np.isnan(error)


def test_shares_have_wilsons_interval():
    for happened in ([True, False, True, True], [False] * 5, [True]):
        share, count = np.mean(happened), len(happened)
        row = share_row({}, "solved", np.array(happened))
        # Where the distance of p from the share is its standard error under p: (p - share)^2 = p (1 - p) / n.
        low, high = np.sort(np.roots([1 + 1 / count, -2 * share - 1 / count, share**2]))
        np.testing.assert_allclose([row["mean"], row["error"]], [share, (high - low) / 2], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("main", "arguments", "sentence"),
    [
        (analysis_command.main, ["jacobian_groth"], "unknown summary 'jacobian_groth': did you mean jacobian_growth?"),
        (analysis_command.main, ["jacobian_growth", "--results", "nowhere"], "there is no finished run"),
        (figures_command.main, ["jacobian_groth"], "unknown figure 'jacobian_groth': did you mean jacobian_growth?"),
        (figures_command.main, ["jacobian_growth", "--summaries", "nowhere"], "there is no summary"),
        (analysis_command.main, ["jacobian_growth", "--results", __file__], "--results must be a folder, got the file"),
        (analysis_command.main, ["jacobian_growth", "--summaries", __file__], "--summaries must be a folder, got the"),
        (figures_command.main, ["jacobian_growth", "--summaries", __file__], "--summaries must be a folder, got the"),
        (figures_command.main, ["jacobian_growth", "--output", __file__ + "/below"], f"got the file {__file__}"),
    ],
)
def test_commands_say_what_is_missing(main, arguments, sentence, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("network;quantity\nlstm;reach\n", "it has no column quantity, units, x, mean, error"),
        ("", "No columns to parse"),
    ],
)
def test_a_summary_that_is_none_is_named(content, why, tmp_path, capsys):
    (tmp_path / "jacobian_growth.csv").write_text(content)
    assert figures_command.main(["jacobian_growth", "--summaries", str(tmp_path), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'jacobian_growth.csv'} is no summary ({why}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "bad", "sentence"),
    [
        ("jacobian_growth", {"hidden": 0}, "hidden must be a whole number >= 1, got 0"),
        ("jacobian_growth", {"horizon": 0}, "horizon must be a whole number >= 1, got 0"),
        ("jacobian_growth", {"exponents": 9}, "exponents must be between 1 and hidden = 8, got 9"),
        ("jacobian_growth", {"gains": (1.0, 0.0)}, "gains must be positive numbers, got 1.0, 0.0"),
        (
            "jacobian_growth",
            {"cells": ("gru", "lru")},
            "cells must have recurrent weights, whose gain is varied; lru has none",
        ),
        ("jacobian_growth", {"inputs": ("noize",)}, "unknown input 'noize': did you mean noise"),
        ("jacobian_growth", {"cells": ("lstmm",)}, "unknown cell 'lstmm': did you mean lstm"),
        ("jacobian_growth", {"activations": ("tanhh",)}, "unknown activation 'tanhh': did you mean tanh"),
        ("before_and_after_training", {"networks": ("lstm-tanh",)}, "cell 'lstm' has activations of its own"),
        ("before_and_after_training", {"hidden": 0}, "hidden must be a whole number >= 1, got 0"),
        ("before_and_after_training", {"training_steps": 0}, "training_steps must be a whole number >= 1, got 0"),
        ("before_and_after_training", {"batch_size": -1}, "batch_size must be a whole number >= 1, got -1"),
        ("before_and_after_training", {"measured_steps": 255}, "measured_steps must be a whole number >= 256, got 255"),
        ("before_and_after_training", {"learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0"),
        ("before_and_after_training", {"clip_threshold": -1.0}, "threshold must be a number > 0, got -1.0"),
        ("long_memory_tasks", {"adding": ("lstmm",)}, "unknown network 'lstmm': did you mean lstm"),
        ("long_memory_tasks", {"copying": ("grue",)}, "unknown network 'grue': did you mean gru"),
        ("long_memory_tasks", {"seeds": 0}, "seeds must be a whole number >= 1, got 0"),
        ("long_memory_tasks", {"evaluate_every": 0}, "evaluate_every must be a whole number >= 1, got 0"),
        ("long_memory_tasks", {"adding_hidden": 0}, "adding_hidden must be a whole number >= 1, got 0"),
        ("long_memory_tasks", {"copying_steps": 9}, "copying_steps must be a whole number >= 10, got 9"),
        ("long_memory_tasks", {"adding_length": 1}, "length must be a whole number >= 2, got 1"),
        ("long_memory_tasks", {"copying_delay": 0}, "delay must be a whole number >= 1, got 0"),
        ("long_memory_tasks", {"clip_threshold": 0.0}, "threshold must be a number > 0, got 0.0"),
        ("trainability", {"gains": (1.0, -1.0)}, "gains must be a finite number > 0, got -1.0"),
        ("trainability", {"update_biases": (np.inf,)}, "update_biases must be finite numbers, got inf"),
        ("trainability", {"lags": (0,)}, "lag must be a whole number >= 1, got 0"),
        ("trainability", {"noise": -0.1}, "noise must be >= 0 and finite, got -0.1"),
        ("trainability", {"hidden": 0}, "hidden must be a whole number >= 1, got 0"),
        ("trainability", {"training_steps": 49}, "training_steps must be a whole number >= 50, got 49"),
        ("trainability", {"measured_steps": 255}, "measured_steps must be a whole number >= 256, got 255"),
        ("trainability", {"learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_its_own_name(name, bad, sentence):
    module = import_module(f"experiments.{name}")
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        module.grid(replace(module.PRESETS["smoke"], **bad))


def test_a_training_that_breaks_leaves_its_record_and_no_number_after_it(monkeypatch):
    module = import_module("experiments.before_and_after_training")
    point = replace(module.grid(module.PRESETS["smoke"])[0], training_steps=4)
    series = {"loss": np.array([2.0, np.nan]), "gradient_norm": np.array([1.0, np.nan])}
    nothing, never = np.array([]), np.array(-1)
    until_then = TrainingRecord(
        series,
        nothing.astype(int),
        nothing,
        np.array(1),
        never,
        ClipReport(1, 0.0, 1.0, 0.0),
        ProbeHistory((), nnx.Module()),
    )

    def breaks(*_, **__):
        raise TrainingBroke(until_then)

    measured = xr.Dataset({"exponent": ("index", [0.1, -0.2]), "first_nonfinite_step": -1}, {"index": [0, 1]})
    monkeypatch.setattr(module, "_measure", lambda *_: measured)
    monkeypatch.setattr(module, "train", breaks)
    result = module.run(point)
    np.testing.assert_array_equal(result["training_loss"], [2.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(result["gradient_norm"], [1.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(result["exponent"], [[0.1, -0.2], [np.nan, np.nan]])
    assert np.isnan(result["first_nonfinite_step"].sel(stage="after"))
    assert int(result["broken_update"]) == 1


def test_single_refuses_to_guess():
    summary = pd.DataFrame({"quantity": ["a", "a"], "network": ["x", "y"], "mean": [1.0, 2.0], "error": [0.1, 0.2]})
    assert single(summary, "a", network="y") == (2.0, 0.2)
    with pytest.raises(ValueError, match="must be one row of the summary, found 2"):
        single(summary, "a")


def test_infinite_exponents_survive_the_summary(tmp_path):
    from analysis.seeds import rows

    points = [xr.DataArray([-1.0, -np.inf], dims="i", coords={"i": [0, 1]})] * 2
    table = pd.DataFrame(rows({"network": "x"}, "exponent", "nats per step", points, x="i"))
    table.to_csv(tmp_path / "x.csv", index=False)
    assert pd.read_csv(tmp_path / "x.csv")["mean"].tolist() == [-1.0, -np.inf]
