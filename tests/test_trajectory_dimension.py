"""The participation-ratio dimension against NumPy's covariance, a brute-force jackknife and simulated scatter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import elman, noise

from rnn_dynamics.dynamics import DrivenSystem, trajectory, trajectory_dimension


def given_step(params, carry, inputs_t):
    """A trajectory that is given: the state is the input."""
    return inputs_t


def dimension_of(states):
    covariance = np.cov(np.asarray(states).T)
    eigenvalues = np.linalg.eigvalsh(covariance)
    return np.sum(eigenvalues) ** 2 / np.sum(eigenvalues**2)


def given(states):
    states = jnp.asarray(states)
    return DrivenSystem.from_step(given_step, jnp.zeros((), states.dtype), jnp.zeros_like(states[0])), states


@pytest.mark.slow
def test_moments_and_jackknife_of_a_network():
    system, inputs = DrivenSystem.from_cell(elman()), noise(130)
    result = trajectory_dimension(system, inputs, transient=30)
    states = np.asarray(trajectory(system, inputs))[30:]
    np.testing.assert_allclose(result.mean, states.mean(axis=0), rtol=0, atol=1e-15)
    np.testing.assert_allclose(result.covariance, np.cov(states.T), rtol=0, atol=1e-15)
    assert float(result.dimension) == pytest.approx(dimension_of(states), rel=1e-13)
    stretches = states.reshape(10, 10, 8)
    left_out = [dimension_of(np.delete(stretches, number, axis=0).reshape(90, 8)) for number in range(10)]
    assert float(result.standard_error) == pytest.approx(np.sqrt(9 * np.var(left_out)), rel=1e-10)
    assert float(result.bias) == pytest.approx(9 * (np.mean(left_out) - dimension_of(states)), rel=1e-10)


def test_states_far_from_zero_lose_nothing():
    """A mean 1e9 times the scatter: sums of squares would leave nothing of it."""
    states = 1e9 + np.random.default_rng(0).integers(-8, 9, size=(503, 3)) * np.array([1.0, 0.5, 0.25])  # exact
    result = trajectory_dimension(*given(states))
    assert float(result.dimension) == pytest.approx(dimension_of(states - 1e9), rel=1e-8)
    np.testing.assert_allclose(result.covariance, np.cov((states - 1e9).T), rtol=1e-6, atol=1e-6)


def test_closed_forms():
    corners = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    assert float(trajectory_dimension(*given(np.tile(corners, (10, 1)))).dimension) == pytest.approx(3, rel=1e-14)
    line = np.outer(np.sin(np.arange(60)), [1.0, 2, 3])
    assert float(trajectory_dimension(*given(line)).dimension) == pytest.approx(1, rel=1e-14)
    still = trajectory_dimension(*given(np.full((60, 3), 0.7)))
    assert still.dimension == 0
    assert still.standard_error == 0


def test_error_and_bias_are_those_of_repeated_runs():
    """2000 runs of 100 independent normal states: the dimension scatters by its error, and lies off by its bias."""
    scales = np.array([3.0, 2, 1, 1, 0.5])
    runs = np.random.default_rng(1).normal(size=(2000, 100, 5)) * scales
    system, _ = given(runs[0])
    results = jax.vmap(lambda states: trajectory_dimension(system, states))(jnp.asarray(runs))
    exact = np.sum(scales**2) ** 2 / np.sum(scales**4)
    scatter, error_of_scatter = np.std(results.dimension), np.std(results.dimension) / np.sqrt(4000)
    assert abs(np.sqrt(np.mean(results.standard_error**2)) - scatter) < 4 * error_of_scatter + 0.03 * scatter
    off = np.mean(results.dimension) - exact
    error_of_mean = scatter / np.sqrt(2000)
    assert off < -4 * error_of_mean  # a finite run seems to fill fewer dimensions
    assert abs(off - np.mean(results.bias)) < 4 * np.sqrt(error_of_mean**2 + np.var(results.bias) / 2000)
    assert abs(np.mean(results.dimension - results.bias) - exact) < 4 * error_of_mean


def test_two_steps_have_no_error():
    result = trajectory_dimension(*given(np.eye(2)))
    assert float(result.dimension) == pytest.approx(1)
    assert np.isnan(result.standard_error)


def exploding_step(params, carry, inputs_t):
    return carry**2


def test_an_overflow_makes_everything_nan():
    system = DrivenSystem.from_step(exploding_step, jnp.float64(0), jnp.array([10.0, 1.0]))
    result = trajectory_dimension(system, steps=20)
    assert result.first_nonfinite_step == 8
    for values in (result.dimension, result.standard_error, result.bias, result.mean, result.covariance):
        assert np.isnan(values).all()


@pytest.mark.parametrize("transient", [9, 12])
def test_bad_input_gets_one_sentence(transient):
    with pytest.raises(ValueError, match=f"transient must leave two steps to measure: got {transient} of 10 steps"):
        trajectory_dimension(DrivenSystem.from_cell(elman()), noise(10), transient=transient)
