"""Temporal order by length: what networks start from, what is recorded, and the figure's claims."""

import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import temporal_order_length as experiment
from paper_figures.summaries import read, select
from rnn_dynamics.tasks import make_task


def test_smart_tanh_starts_from_sparse_weights_of_radius_095():
    point = experiment.grid(replace(experiment.PRESETS["laptop"], hidden=50))[0]
    assert point.initialiser == "smart_tanh"
    model = experiment._model(point, make_task("temporal_order", length=10), seed=1)
    recurrent = np.asarray(model.cell.recurrent_kernel[...], np.float64)
    np.testing.assert_array_equal(np.count_nonzero(recurrent, axis=0), 15)
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(recurrent)).max(), 0.95, rtol=0, atol=1e-5)
    for weights in (model.cell.kernel[...], model.head.kernel[...]):
        assert weights.dtype == jnp.float32
        # The standard error of a standard deviation over n Gaussian numbers is 1/sqrt(2n) of it.
        np.testing.assert_allclose(weights.std(), 0.01, rtol=4 / np.sqrt(2 * weights.size), atol=0)


def test_blocks_of_a_series_are_reduced_and_stay_empty_where_a_network_had_stopped():
    nan = np.nan
    series = np.array([[1.0, 5.0], [3.0, nan], [2.0, nan], [4.0, nan], [7.0, nan]])
    largest = experiment._blockwise(np.nanmax, series, blocks=4, size=2)
    np.testing.assert_array_equal(largest, [[3, 5], [4, nan], [7, nan], [nan, nan]])
    mean = experiment._blockwise(np.nanmean, series, blocks=4, size=2)
    np.testing.assert_array_equal(mean, [[2, 5], [3, nan], [7, nan], [nan, nan]])


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"initialisers": ("smart",)}, "unknown initialiser 'smart': did you mean smart_tanh"),
        ({"methods": ("clip",)}, "unknown method 'clip'"),
        ({"lengths": (9,)}, "length must be a whole number >= 10, got 9"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0"),
        ({"plain_learning_rates": (0.0,)}, "learning_rate must be a finite number > 0, got 0.0"),
        ({"clip_threshold": 0.0}, "clip_threshold must be a finite number > 0, got 0.0"),
        ({"omega_weight": -1.0}, "omega_weight must be a finite number > 0, got -1.0"),
        ({"hidden": 0}, "hidden must be a whole number >= 1, got 0"),
        ({"updates": 0}, "updates must be a whole number >= 1, got 0"),
        ({"seeds": 0}, "seeds must be a whole number >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_its_own_name(bad, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        experiment.grid(replace(experiment.PRESETS["smoke"], **bad))


def successes(summary, **series):
    """Count networks that succeed, and all networks, beyond the length that is learned by every method."""
    curve = select(select(summary, quantity="success_rate"), **series)
    longer = curve[curve["x"] > 10]
    return round((longer["mean"] * longer["count"]).sum()), longer["count"].sum()


def test_claim_clipping_carries_further_and_omega_further_still():
    """By 4 standard errors of the difference of two shares, both initialisers together."""
    summary = read("temporal_order_length")
    plain = [successes(summary, method="plain", learning_rate=rate) for rate in (0.01, 0.1)]
    clipped, omega = (successes(summary, method=method) for method in ("clipped", "clipped_omega"))
    for (fewer, of_them), (more, of_others) in ((max(plain), clipped), (clipped, omega)):
        low, high = fewer / of_them, more / of_others
        error = np.sqrt(low * (1 - low) / of_them + high * (1 - high) / of_others)
        assert high - low > 4 * error


def test_claim_all_methods_learn_short_sequences():
    shortest = select(read("temporal_order_length"), quantity="success_rate", x=10)
    assert len(shortest) == 8
    assert (shortest["mean"] == 1).all()


def test_claim_gaussian_weights_learn_long_sequences_with_omega_alone():
    """Of 20 networks more than 10 with Omega, none without: if the rates were equal, a chance below 2^-10."""
    longer = select(read("temporal_order_length"), quantity="success_rate", initialiser="basic_tanh").query("x >= 30")
    by_method = (longer["mean"] * longer["count"]).groupby(longer["method"]).sum()
    assert by_method["plain"] == by_method["clipped"] == 0
    assert by_method["clipped_omega"] > 10
