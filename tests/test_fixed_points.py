"""Fixed points against closed forms: linear maps, one unit, Hopfield's patterns, an LSTM without weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import elman, linear_system, noise, zeros
from scipy.linalg import hadamard
from scipy.optimize import brentq

from rnn_dynamics.cells import LSTMCell
from rnn_dynamics.dynamics import DrivenSystem, fixed_points, jacobian, trajectory


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def affine_step(matrix, carry, inputs_t):
    return matrix @ carry + inputs_t


def test_the_fixed_point_of_a_linear_map():
    matrix, shift = normal(6, 6) / np.sqrt(6), normal(6, seed=1)
    system = DrivenSystem.from_step(affine_step, jnp.asarray(matrix), jnp.zeros(6))
    found = fixed_points(system, 10 * normal(20, 6, seed=2), shift)
    np.testing.assert_allclose(found.fixed.states, np.linalg.solve(np.eye(6) - matrix, shift)[None], rtol=1e-13)
    assert found.fixed.hits.tolist() == [20]
    assert found.fixed.speeds[0] < 1e-28
    moduli = np.sort(np.abs(np.linalg.eigvals(matrix)))[::-1]
    np.testing.assert_allclose(np.abs(found.fixed.eigenvalues[0]), moduli, rtol=1e-12)
    np.testing.assert_allclose(found.fixed.time_constants[0], -1 / np.log(moduli), rtol=1e-11)
    assert found.fixed.unstable_directions[0] == np.sum(moduli > 1)
    assert found.slow.states.shape == (0, 6)
    assert found.slow.eigenvalues.shape == (0, 6)
    assert found.unplaced == 0


def tanh_step(weights, carry, inputs_t):
    drive = jnp.zeros(()) if inputs_t is None else inputs_t
    return jnp.tanh(weights @ carry + drive)


def test_one_unit_with_gain_has_three_fixed_points():
    system = DrivenSystem.from_step(tanh_step, jnp.array([[1.7]]), jnp.zeros(1))
    found = fixed_points(system, np.linspace(-2, 2, 41)[:, None]).fixed
    outer = brentq(lambda x: np.tanh(1.7 * x) - x, 0.1, 1, xtol=1e-15)
    order = np.argsort(found.states[:, 0])
    np.testing.assert_allclose(found.states[order, 0], [-outer, 0, outer], rtol=0, atol=1e-14)
    assert found.stable[order].tolist() == [True, False, True]
    assert found.unstable_directions[order].tolist() == [0, 1, 0]
    slope = 1.7 * (1 - outer**2)
    np.testing.assert_allclose(found.eigenvalues[order, 0], [slope, 1.7, slope], rtol=1e-13)
    np.testing.assert_allclose(found.time_constants[order, 0], -1 / np.log([slope, 1.7, slope]), rtol=1e-12)
    assert found.hits.sum() == 41
    assert np.all(np.sqrt(2 * found.speeds) < 1e-14)


def test_a_ghost_of_two_fixed_points_is_slow_and_not_fixed():
    """tanh(gain x + b) - x has, just past the saddle-node where two roots met, a minimum of the speed instead."""
    gain = 1.7
    touch = np.sqrt(1 - 1 / gain)  # where the curve has slope 1
    critical = np.arctanh(-touch) + gain * touch
    found = fixed_points(
        DrivenSystem.from_step(tanh_step, jnp.array([[gain]]), jnp.zeros(1)),
        np.linspace(-0.9, -0.2, 15)[:, None],
        jnp.array([critical + 1e-4]),
    )
    assert len(found.slow.states) == 1
    # There F(x) - x is about 1e-4 F' / gain, and its minimum lies where the slope of F is 1.
    x = np.arctanh(np.sqrt(1 - 1 / gain))
    expected = (-x - critical - 1e-4) / gain
    np.testing.assert_allclose(found.slow.states[0], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.sqrt(2 * found.slow.speeds[0]), 1e-4 / gain, rtol=1e-3)
    assert found.slow.eigenvalues[0, 0] == pytest.approx(1, abs=1e-6)
    assert np.all(found.fixed.states > 0.5)  # the one that is left
    strict = fixed_points(
        DrivenSystem.from_step(tanh_step, jnp.array([[gain]]), jnp.zeros(1)),
        np.linspace(-0.9, -0.2, 15)[:, None],
        jnp.array([critical + 1e-4]),
        slow_tolerance=1e-12,
    )
    assert len(strict.slow.states) == 0
    assert strict.unplaced == found.slow.hits.sum()


def test_hopfields_patterns_are_attractors():
    """Orthogonal patterns, W = b/N sum of their outer products: m times a pattern with m = tanh(b m) is fixed, and the
    Jacobian there is (1 - m^2) W."""
    size, strength = 16, 2.0
    patterns = hadamard(size)[1:4]
    weights = strength / size * patterns.T @ patterns
    system = DrivenSystem.from_step(tanh_step, jnp.asarray(weights), jnp.zeros(size))
    start = np.concatenate([patterns, -patterns]) + 0.2 * normal(6, size)
    found = fixed_points(system, np.concatenate([start, 0.01 * normal(4, size, seed=3)])).fixed
    m = brentq(lambda x: np.tanh(strength * x) - x, 0.1, 1, xtol=1e-15)
    expected = np.concatenate([m * patterns, -m * patterns, np.zeros((1, size))])
    distances = np.linalg.norm(expected[:, None] - found.states[None], axis=2)
    assert len(found.states) == 7
    assert np.all(np.min(distances, axis=1) < 1e-13)
    origin = np.argmin(distances[-1])
    assert found.stable.tolist() == [number != origin for number in range(7)]
    assert found.unstable_directions[origin] == 3
    for number in range(7):
        slope = strength * (1 if number == origin else 1 - m**2)
        np.testing.assert_allclose(found.eigenvalues[number], [slope] * 3 + [0] * 13, rtol=0, atol=1e-13)
    assert found.hits[origin] == 4


@pytest.fixture(scope="module")
def chaotic():
    system = DrivenSystem.from_cell(elman(hidden=16, gain=2.5))
    return system, fixed_points(system, trajectory(system, noise(400))[::10], jnp.array([0.3]), distance=1e-6)


def test_points_of_a_random_network_are_fixed_to_rounding(chaotic):
    system, found = chaotic
    assert len(found.fixed.states) > 0
    assert found.fixed.hits.sum() + found.slow.hits.sum() + found.unplaced == 40
    for number, state in enumerate(found.fixed.states):
        moved = np.asarray(system.step(jnp.asarray(state), jnp.array([0.3])))
        assert np.max(np.abs(moved - state)) < 1e-14
        expected = np.linalg.eigvals(jacobian(system, jnp.asarray(state), jnp.array([0.3])))
        np.testing.assert_allclose(
            np.sort_complex(found.fixed.eigenvalues[number]), np.sort_complex(expected), rtol=1e-9
        )
    assert np.all(np.diff(np.abs(found.fixed.eigenvalues), axis=1) <= 1e-12)
    assert np.all(found.slow.speeds > found.fixed.speeds.max())


def test_an_lstm_without_weights_rests_at_zero():
    """c' = c / 2, h' = tanh(c') / 2: eigenvalues 1/2 and 0, H times each."""
    cell = LSTMCell(
        1,
        3,
        forget_bias=0.0,
        kernel_init=zeros,
        recurrent_kernel_init=zeros,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    found = fixed_points(DrivenSystem.from_cell(cell), normal(5, 6), jnp.array([2.0])).fixed
    np.testing.assert_allclose(found.states, np.zeros((1, 6)), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.eigenvalues, [[0.5] * 3 + [0] * 3], rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.time_constants, [[1 / np.log(2)] * 3 + [0] * 3], rtol=0, atol=1e-13)


def test_single_precision_and_a_line_of_fixed_points():
    """s' = diag(1, 1/2) s: all of the first axis is fixed, with an eigenvalue of 1 and no time constant."""
    system = linear_system(np.diag(np.array([1.0, 0.5], np.float32)))
    found = fixed_points(system, normal(6, 2)).fixed
    assert found.states.dtype == np.float32
    assert len(found.states) == 6
    np.testing.assert_allclose(np.sort(found.states[:, 0]), np.sort(normal(6, 2)[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(found.states[:, 1], 0, rtol=0, atol=1e-6)
    assert np.all(np.isposinf(found.time_constants[:, 0]))
    assert not found.stable.any()


@pytest.mark.parametrize(
    ("candidates", "inputs_t", "options", "sentence"),
    [
        (np.zeros((0, 8)), None, {}, r"candidates must have shape \[M, 8\] with at least one state, got \(0, 8\)"),
        (np.zeros((4, 7)), None, {}, r"candidates must have shape \[M, 8\] with at least one state, got \(4, 7\)"),
        (np.full((1, 8), np.nan), None, {}, "candidates must be finite, got an inf or NaN"),
        (np.zeros((4, 8)), np.zeros(2), {}, r"inputs_t must have shape \[1\], got \(2,\)"),
        (np.zeros((4, 8)), None, {"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        (np.zeros((4, 8)), None, {"slow_tolerance": -1.0}, "slow_tolerance must be positive, got -1.0"),
        (np.zeros((4, 8)), None, {"distance": np.nan}, "distance must be positive, got nan"),
        (np.zeros((4, 8)), None, {"max_iterations": 0}, "max_iterations must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input_gets_one_sentence(candidates, inputs_t, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fixed_points(DrivenSystem.from_cell(elman()), candidates, inputs_t, **options)


def test_a_stacked_system_is_refused():
    systems = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), DrivenSystem.from_cell(elman()))
    with pytest.raises(ValueError, match="system must be one network"):
        fixed_points(systems, np.zeros((4, 8)))
