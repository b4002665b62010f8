"""The clockwork network: whose turn it is, who hears whom, and the exponents of its modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells_by_hand import BY_HAND
from flax import nnx
from networks import any_cell, elman, noise

from rnn_dynamics.cells.clockwork import ClockworkCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum


def clockwork(hidden, periods, **options):
    options = {"recurrent_kernel_init": gaussian(2.0), "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)} | options
    return ClockworkCell(1, hidden, periods=periods, **options)


def test_with_one_module_that_always_moves_it_is_elman():
    cell, plain, inputs = clockwork(8, (1,)), elman(), noise(3)
    carry, h = cell.initialize_carry((1,)), jnp.zeros(8)
    for x in inputs:
        carry, output = cell(carry, x)
        h, _ = plain(h, x)
        np.testing.assert_array_equal(output, h)
    assert carry[0] == 0  # a cycle of one step


def test_a_whole_cycle_by_hand():
    """Modules of 3, 2 and 2 units, over the 6 steps of (1, 2, 3) and one more; two examples at different times."""
    cell, step = clockwork(7, (1, 2, 3)), jax.jit(ClockworkCell.__call__)
    carry = (jnp.array([[0.0], [4.0]]), 0.5 * noise(2, 7))
    moved = []
    for x in noise(14).reshape(7, 2, 1):
        by_hand = BY_HAND["ClockworkCell"](cell, jax.tree.map(np.asarray, carry), np.asarray(x))
        before, (carry, output) = carry, step(cell, carry, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-15), carry, by_hand)
        np.testing.assert_array_equal(output, carry[1])
        moved.append((carry[1] != before[1])[0, jnp.array([0, 3, 5])])
    np.testing.assert_array_equal(
        np.transpose(moved), [[1, 1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1], [1, 0, 0, 1, 0, 0, 1]]
    )


def test_exponents_of_a_linear_clockwork_are_those_of_its_modules_by_their_periods():
    """ln|eig(W_mm)| / T_m, whatever the slow modules tell the fast ones; and the clock's -inf."""
    cell = clockwork(6, (1, 2, 4), activation="identity", recurrent_kernel_init=gaussian(1.0))
    eigenvalues, kernel = [0.9, 0.2, 0.5, 0.1, 1.5, 0.1], np.array(cell.recurrent_kernel[...])
    for first in (0, 2, 4):
        block = slice(first, first + 2)
        kernel[block, block] = [[eigenvalues[first], 0.7], [0, eigenvalues[first + 1]]]
    cell.recurrent_kernel[...] = jnp.asarray(kernel)
    spectrum = lyapunov_spectrum(DrivenSystem.from_cell(cell), steps=200, tangent_transient=160)
    expected = np.log(eigenvalues) / [1, 1, 2, 2, 4, 4]
    np.testing.assert_allclose(spectrum.exponents[:-1], np.sort(expected)[::-1], rtol=0, atol=1e-12)
    assert float(spectrum.exponents[-1]) == -np.inf


def test_what_no_unit_hears_has_no_gradient():
    graph, params = nnx.split(any_cell("ClockworkCell"))
    carry, inputs = (jnp.zeros(1), jnp.ones(6)), noise(1, 2)[0]
    slopes = jax.grad(lambda params: jnp.sum(nnx.merge(graph, params)(carry, inputs)[1] ** 2))(params)
    silent = np.zeros((6, 6), bool)
    silent[:3, 3:] = True  # from the fast module to the slow one
    np.testing.assert_array_equal(np.asarray(slopes["recurrent_kernel"][...]) == 0, silent)


@pytest.mark.parametrize(
    ("periods", "options", "sentence"),
    [
        ((), {}, r"periods must be whole numbers >= 1 in increasing order, got \(\)"),
        ((2, 1), {}, r"in increasing order, got \(2, 1\)"),
        ((1, 1), {}, r"in increasing order, got \(1, 1\)"),
        ((0, 1), {}, r"whole numbers >= 1 in increasing order, got \(0, 1\)"),
        ((1, 2, 4, 8, 16), {}, "periods must be no more than hidden_features = 4, got 5"),
        ((1, 257), {"dtype": jnp.bfloat16}, "a least common multiple <= 256, where bfloat16 stops to count, got 257"),
    ],
)
def test_bad_periods_get_one_sentence(periods, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        clockwork(4, periods, **options)
