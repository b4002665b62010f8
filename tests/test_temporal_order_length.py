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
