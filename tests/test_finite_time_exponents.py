"""Finite-time exponents against their own mean, closed forms and known distributions of growth."""

import jax.numpy as jnp
import numpy as np
import pytest
from networks import elman, noise

from rnn_dynamics.dynamics import DrivenSystem, finite_time_exponents, lyapunov_spectrum


@pytest.mark.slow
def test_samples_average_to_the_exponents():
    """Exactly, for the same steps: 4 of the 204 after the transients are left out."""
    system, inputs = DrivenSystem.from_cell(elman()), noise(264)
    result = finite_time_exponents(system, inputs, window=20, transient=30, tangent_transient=30)
    spectrum = lyapunov_spectrum(system, inputs[:260], transient=30, tangent_transient=30)
    assert result.samples.shape == (10, 8)
    np.testing.assert_allclose(np.mean(result.samples, axis=0), spectrum.exponents, rtol=0, atol=1e-12)
    # Ten windows are the ten batches. The spectrum lets what a frame lacks in orthogonality be made up for by the next.
    np.testing.assert_allclose(result.samples, spectrum.batch_means, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.exponents, spectrum.exponents, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.standard_error, spectrum.standard_error, rtol=1e-10)
    np.testing.assert_allclose(result.diffusion, 20 * np.cov(result.samples.T), rtol=1e-10)
    np.testing.assert_allclose(result.variance, np.var(result.samples, axis=0, ddof=1), rtol=1e-10)


def growing_step(params, carry, inputs_t):
    """Each direction grows by a given number of nats; at rest."""
    return jnp.exp(inputs_t) * carry


@pytest.fixture(scope="module")
def growth():
    """Normal, correlated between the directions and independent in time: covariance [[0.04, 0.03], [0.03, 0.25]]."""
    factor = np.linalg.cholesky([[0.04, 0.03], [0.03, 0.25]])
    return jnp.asarray(np.random.default_rng(0).normal(size=(20_030, 2)) @ factor.T + np.array([0.1, -2.0]))


@pytest.mark.parametrize("window", [1, 50])
def test_a_diagonal_map_grows_by_what_it_is_given(growth, window):
    system = DrivenSystem.from_step(growing_step, jnp.float64(0), jnp.zeros(2))
    result = finite_time_exponents(system, growth, window=window, tangent_transient=30)
    expected = np.asarray(growth[30:]).reshape(-1, window, 2).mean(axis=1)
    np.testing.assert_allclose(result.samples, expected, rtol=0, atol=1e-12)
    # The large-deviation matrix is that of one step, whatever the window; its error that of a sample covariance.
    step = np.array([[0.04, 0.03], [0.03, 0.25]])
    error = np.sqrt((step**2 + np.outer(np.diag(step), np.diag(step))) / (len(expected) - 1))
    assert np.all(np.abs(result.diffusion - step) < 4 * error)
    # And D / T is the squared error of the exponents, up to the scatter of ten batch means.
    ratio = result.standard_error**2 / (np.diag(step) / 20_000)
    assert np.all((ratio > 0.19) & (ratio < 3.2))  # chi-squared of 9 degrees over 9, two-sided 0.1 %


def test_a_direction_that_is_lost_and_a_single_window():
    system = DrivenSystem.from_step(growing_step, jnp.float64(0), jnp.zeros(2))
    inputs = jnp.tile(jnp.array([0.5, -3.0]), (40, 1)).at[33, 1].set(-jnp.inf)
    samples = finite_time_exponents(system, inputs, window=5, tangent_transient=20).samples
    np.testing.assert_allclose(samples[:, 0], 0.5, rtol=0, atol=1e-14)
    np.testing.assert_allclose(samples[[0, 1, 3], 1], -3, rtol=0, atol=1e-14)
    assert np.isneginf(samples[2, 1])
    result = finite_time_exponents(system, jnp.ones((20, 2)), window=20, k=1)
    np.testing.assert_allclose(result.samples, 1, rtol=0, atol=1e-15)
    assert np.isnan(result.diffusion).all()
    assert np.isnan(result.standard_error).all()


def test_single_precision_sums_long_windows():
    """40,000 additions of 0.1 in float32 drift by 1e-4 of the mean unless they are compensated."""
    system = DrivenSystem.from_step(growing_step, jnp.float32(0), jnp.zeros(1, jnp.float32))
    result = finite_time_exponents(system, lambda t: jnp.full(1, 0.1, jnp.float32), steps=40_000, window=40_000)
    expected = np.log(np.exp(np.float32(0.1)).astype(np.float64))
    assert float(result.exponents[0]) == pytest.approx(expected, abs=3e-8)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 0}, "window must be a whole number >= 1, got 0"),
        ({"window": 8, "transient": 1, "tangent_transient": 2}, "window must be between 1 and the 7 steps .* got 8"),
        ({"window": 2, "k": 9}, "k must be between 1 and the state size 8, got 9"),
    ],
)
def test_bad_input_gets_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        finite_time_exponents(DrivenSystem.from_cell(elman()), noise(10), **options)
