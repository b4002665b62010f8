"""The cliff in the loss of one unit: closed forms of its wall, paths against a loop by hand, the figure's claims."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest

from analysis.seeds import single, wilson_interval
from experiments import loss_cliff
from experiments.loss_cliff import METHODS, multiplier, one_unit_loss, wall
from paper_figures.summaries import read, select

RATE = 0.1


def sigma(x):
    return 1 / (1 + np.exp(-x))


def by_hand(weight, bias, horizon):
    """Return the loss and its slopes by w and b, carried forward with the state."""
    x, by_weight, by_bias = 0.5, 0.0, 0.0
    for _ in range(horizon):
        s = sigma(x)
        by_weight, by_bias = s + weight * s * (1 - s) * by_weight, 1 + weight * s * (1 - s) * by_bias
        x = weight * s + bias
    s = sigma(x)
    outer = 2 * (s - 0.7) * s * (1 - s)
    return (s - 0.7) ** 2, np.array([outer * by_weight, outer * by_bias])


@pytest.fixture(scope="module")
def dataset():
    point = loss_cliff.Point(horizon=20, learning_rate=RATE, clip_threshold=1.0, updates=30, seeds=3)
    return loss_cliff.run(point)


def test_at_the_wall_the_state_stands_still_and_small_distances_grow_by_the_multiplier():
    weight, horizon = 5.0, 20
    factor = multiplier(weight)
    assert factor > 1
    gradient = jax.grad(one_unit_loss(horizon))({"w": jnp.asarray(weight), "b": wall(weight)})
    s = sigma(0.5)
    geometric = (factor**horizon - 1) / (factor - 1)
    np.testing.assert_allclose(gradient["b"], 2 * (s - 0.7) * s * (1 - s) * geometric, rtol=1e-11, atol=0)
    np.testing.assert_allclose(gradient["w"], s * gradient["b"], rtol=1e-11, atol=0)


def test_surface_and_largest_gradient_against_a_loop_by_hand(dataset):
    for column, row in ((0, 0), (20, 22), (40, 30)):
        weight, bias = float(dataset["w"][column]), float(dataset["bias"][column, row])
        np.testing.assert_allclose(
            dataset["loss_surface"][column, row], by_hand(weight, bias, 20)[0], rtol=1e-10, atol=0
        )
    factor = multiplier(5.0)
    biases = float(wall(5.0)) + loss_cliff.ACROSS_WALL * (factor - 1) / (factor**20 - 1)
    norms = [np.linalg.norm(by_hand(5.0, bias, 20)[1]) for bias in biases]
    np.testing.assert_allclose(dataset["gradient_norm"], norms, rtol=1e-9, atol=0)


def test_curvature_is_the_larger_eigenvalue_of_the_hessian(dataset):
    factor, number = multiplier(5.0), 150
    bias = float(wall(5.0)) + loss_cliff.ACROSS_WALL[number] * (factor - 1) / (factor**20 - 1)
    step = 1e-6
    columns = [
        (by_hand(5.0 + dw, bias + db, 20)[1] - by_hand(5.0 - dw, bias - db, 20)[1]) / (2 * step)
        for dw, db in ((step, 0.0), (0.0, step))
    ]
    expected = np.abs(np.linalg.eigvals(np.array(columns))).max()
    np.testing.assert_allclose(dataset["curvature"][number], expected, rtol=1e-5, atol=0)


def test_paths_against_a_loop_by_hand(dataset):
    for method, threshold in zip(METHODS, (np.inf, 1.0), strict=True):
        one = dataset.isel(seed=2).sel({"method": method})
        place = one["path"].values[:, 0]
        for update in range(30):
            loss, gradient = by_hand(*place, 20)
            np.testing.assert_allclose(one["loss"][update], loss, rtol=1e-7, atol=0)
            np.testing.assert_allclose(one["path"][:, update], place, rtol=1e-7, atol=0)
            place = place - RATE * gradient * min(1, threshold / np.linalg.norm(gradient))


def test_wilson_interval_against_scipy():
    """One standard deviation of the normal distribution covers 68.27 %."""
    for successes, trials in ((0, 5), (3, 10), (10, 10), (1, 1)):
        theirs = binomtest(successes, trials).proportion_ci(0.6826894921370859, method="wilson")
        np.testing.assert_allclose(wilson_interval(successes, trials), (theirs.low, theirs.high), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"horizons": (0,)}, "horizons must be a whole number >= 1, got 0"),
        ({"learning_rates": (-0.1,)}, "learning_rates must be a finite number > 0, got -0.1"),
        ({"updates": 0}, "updates must be a whole number >= 1, got 0"),
        ({"seeds": 0}, "seeds must be a whole number >= 1, got 0"),
        ({"clip_threshold": 0.0}, "clip_threshold must be a finite number > 0, got 0.0"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_by_its_own_name(bad, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        loss_cliff.grid(replace(loss_cliff.PRESETS["smoke"], **bad))


def test_claim_clipped_paths_reach_the_bottom_and_others_are_thrown_off():
    """By 4 standard errors of the difference of two shares."""
    summary = read("loss_cliff")
    for horizon in (20, 30, 40, 50):
        for rate in (0.1, 0.3):
            which = {"horizon": horizon, "learning_rate": rate}
            plain, plain_error = single(summary, "share_at_bottom", **which, method="plain")
            clipped, clipped_error = single(summary, "share_at_bottom", **which, method="clipped")
            assert clipped == 1
            assert clipped - plain > 4 * np.hypot(plain_error, clipped_error)
            longest, error = single(summary, "log10_longest_step", **which, method="plain")
            assert longest - 4 * error > np.log10(3 * rate)  # what clipping allows is the rate itself
            bounded, _ = single(summary, "log10_longest_step", **which, method="clipped")
            assert bounded <= np.log10(rate) + 1e-6


def test_claim_the_wall_grows_by_the_multiplier_and_its_square():
    """The orbit leaves the fixed point's neighbourhood for the last steps alone: the slope has converged to 2 %."""
    summary = read("loss_cliff")
    slope = select(summary, quantity="log10_multiplier")["mean"].iloc[0]
    np.testing.assert_allclose(slope, np.log10(5 * sigma(0.5) * sigma(-0.5)), rtol=1e-5, atol=0)
    for power, quantity in ((1, "log10_wall_gradient"), (2, "log10_wall_curvature")):
        curve = select(summary, quantity=quantity).set_index("x")["mean"]
        np.testing.assert_allclose((curve[50] - curve[40]) / 10, power * slope, rtol=0.02, atol=0)


def test_claim_curvature_at_the_wall_is_the_square_of_the_gradient():
    """Up to a factor that does not depend on the horizon (5.1 to 5.4)."""
    summary = read("loss_cliff")
    gradient, curvature = (
        select(summary, quantity=quantity).set_index("x")["mean"]
        for quantity in ("log10_wall_gradient", "log10_wall_curvature")
    )
    factor = 10 ** (curvature - 2 * gradient)
    assert factor.between(5.0, 5.5).all()
