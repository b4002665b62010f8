"""Trajectories found all at once: equal to those found step by step, with an honest error, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import any_cell, elman, linear_system, noise, slow_but

from rnn_dynamics.dynamics import DrivenSystem, parallel_trajectory, trajectory

STEPS = 32
CELLS = {
    "elman": elman(hidden=6, features=2, gain=0.9),
    "gru": any_cell("GRUCell", hidden=4),
    "lstm": any_cell("LSTMCell", hidden=3),
}
DTYPES = [pytest.param(jnp.float32, marks=pytest.mark.slow), jnp.float64]


def system_of(name, dtype=jnp.float64):
    return DrivenSystem.from_cell(CELLS[name], dtype=dtype)


def chaotic():
    """Of an exponent of 0.12 +- 0.01 nats per step in a long run with these inputs (`lyapunov_spectrum`)."""
    return DrivenSystem.from_cell(elman(hidden=16, gain=3.0))


def rotation(gain, dtype=jnp.float64):
    """A linear network, not at rest, that turns and shrinks its state."""
    matrix = gain * jax.random.orthogonal(jax.random.key(3), 4, dtype=dtype)
    return DrivenSystem.from_step(linear_system(matrix).step_function, matrix, jnp.ones(4, dtype))


@pytest.mark.parametrize("name", slow_but(["elman"], CELLS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_states_are_those_of_the_sequential_run(name, dtype):
    """Up to rounding times the condition of the run, which the error estimate says."""
    system, inputs = system_of(name, dtype), noise(STEPS, 2)
    result = parallel_trajectory(system, inputs)
    unit = float(jnp.finfo(dtype).eps)
    assert result.states.dtype == dtype
    assert result.accepted
    assert result.first_nonfinite_step == -1
    assert float(result.residual) <= 8 * unit  # of units below 1 in modulus
    assert unit / 4 <= float(result.error_estimate) <= 50 * unit
    np.testing.assert_allclose(result.states, trajectory(system, inputs), rtol=0, atol=4 * float(result.error_estimate))


def test_exponent_of_a_linear_network_is_that_of_its_eigenvalues():
    """W = g orthogonal has ||W^T|| = g^T, and Newton's method needs one step and one to see that."""
    system = rotation(0.99)
    result = parallel_trajectory(system, steps=STEPS)
    assert float(result.largest_exponent) == pytest.approx(np.log(0.99), rel=0, abs=1e-14)
    assert result.iterations <= 2
    np.testing.assert_allclose(result.states, trajectory(system, steps=STEPS), rtol=0, atol=1e-14)


def test_exponent_is_that_of_the_whole_product():
    """Over the second half of the steps; the reference is made in numpy, step by step."""
    system, inputs = system_of("elman"), noise(STEPS, 2)
    states = jnp.concatenate([system.initial_state[None], trajectory(system, inputs)[:-1]])
    factors = np.asarray(jax.vmap(lambda s, x: jax.jacfwd(lambda s: system.step(s, x))(s))(states, inputs))
    norms = [np.linalg.norm(np.linalg.multi_dot(factors[:steps][::-1]), 2) for steps in (STEPS // 2, STEPS)]
    result = parallel_trajectory(system, inputs)
    np.testing.assert_allclose(result.largest_exponent, np.log(norms[1] / norms[0]) / (STEPS // 2), rtol=1e-12, atol=0)


def test_error_estimate_is_the_error_before_the_last_digits_are_there():
    """Accepted too early, on purpose: to first order in the error, the estimate is the error itself."""
    system, inputs = system_of("elman"), noise(STEPS, 2)
    exact, tested = trajectory(system, inputs), 0
    for tolerance in (0.5, 0.1, 0.01, 1e-4):
        result = parallel_trajectory(system, inputs, tolerance=tolerance)
        error = float(jnp.max(jnp.abs(result.states - exact)))
        if 1e-11 < error < 1e-1:
            np.testing.assert_allclose(result.error_estimate, error, rtol=10 * error + 1e-4, atol=0)
            tested += 1
    assert tested


@pytest.mark.parametrize("steps", [STEPS, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_chaos_is_refused(steps):
    """In a short run by the exponent, for Newton's method does converge there; in a long one by either."""
    inputs = noise(steps)
    with pytest.raises(ValueError, match=r"the states cannot be computed in parallel: .*; use trajectory"):
        parallel_trajectory(chaotic(), inputs)
    result = jax.jit(parallel_trajectory)(chaotic(), inputs)
    assert not result.accepted
    assert np.all(np.isnan(result.states))
    if steps == STEPS:
        assert float(result.error_estimate) < 1e-8
        assert float(result.largest_exponent) > 0.1


@pytest.mark.slow
def test_no_network_of_any_gain_gets_a_wrong_number():
    """Over the edge of chaos, in both precisions: every member is right, or all of it is NaN."""
    inputs = noise(200)
    for dtype, atol in ((jnp.float64, 1.5e-8), (jnp.float32, 3.5e-4)):
        systems = [DrivenSystem.from_cell(elman(gain=gain), dtype=dtype) for gain in (0.5, 1.0, 1.5, 2.0, 3.0, 6.0)]
        ensemble = jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)
        results = jax.vmap(parallel_trajectory, (0, None))(ensemble, inputs)
        expected = jax.vmap(trajectory, (0, None))(ensemble, inputs)
        accepted = np.asarray(results.accepted)
        assert np.all(np.isfinite(results.states).all(axis=(1, 2)) == accepted)
        assert np.isnan(results.states[~accepted]).all()
        assert accepted[0]
        assert not accepted[-1]
        np.testing.assert_allclose(results.states[accepted], expected[accepted], rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_marginal_network_is_refused_and_its_neighbour_is_not(dtype):
    """An orthogonal one neither grows nor shrinks: 0 and not what rounding leaves of it."""
    with pytest.raises(ValueError, match="largest exponent along the states is 0 nats per step, and not below 0"):
        parallel_trajectory(rotation(1.0, dtype), steps=STEPS)
    with pytest.raises(ValueError, match=r"largest exponent along the states is 0\.01 nats"):
        parallel_trajectory(rotation(jnp.exp(0.01).astype(dtype), dtype), steps=STEPS)
    assert parallel_trajectory(rotation(0.999, dtype), steps=STEPS).accepted


def test_too_few_iterations_and_too_small_a_tolerance_are_refused():
    system, inputs = system_of("elman"), noise(STEPS, 2)
    with pytest.raises(ValueError, match=r"after 1 iterations the estimated error is .*, above the tolerance"):
        parallel_trajectory(system, inputs, max_iterations=1)
    with pytest.raises(ValueError, match="above the tolerance of 1e-30 times the largest state"):
        parallel_trajectory(system, inputs, tolerance=1e-30, max_iterations=8)


def logistic_step(rate, carry, inputs_t):
    return rate * carry * (1 - carry)


@pytest.mark.slow
def test_a_guess_from_which_the_recurrence_overflows():
    """The logistic map has a stable cycle of two, and a slope of 2.9 where it starts: 2.9^800 is inf."""
    system = DrivenSystem.from_step(logistic_step, jnp.float64(3.2), jnp.array([0.05]))
    result = parallel_trajectory(system, steps=800, max_iterations=850)  # each puts at least one state right
    assert int(result.first_nonfinite_step) == -1
    np.testing.assert_allclose(result.states, trajectory(system, steps=800), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tolerance": 0.0}, "tolerance must be a number > 0, relative to the largest state, got 0.0"),
        ({"tolerance": float("nan")}, "tolerance must be a number > 0, relative to the largest state, got nan"),
        ({"max_iterations": 0}, "max_iterations must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input_gets_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        parallel_trajectory(system_of("gru"), noise(5, 2), **options)
