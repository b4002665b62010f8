"""Layers as one dynamical system: the joint state's trajectory, and its block lower triangular Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, noise, slow_but

from rnn_dynamics.cells import ElmanCell, StackedCells
from rnn_dynamics.cells.constrained import EvaluatedKernel
from rnn_dynamics.dynamics import DrivenSystem, jacobian, lyapunov_spectrum, trajectory
from rnn_dynamics.layers import Bidirectional, Recurrence, Stacked

INPUTS = noise(12, 2)
STEP = 7


def cells_of_three_kinds():
    """Of different widths and carries, one of them Flax's."""
    middle = nnx.GRUCell(3, 4, param_dtype=jnp.float64, rngs=nnx.Rngs(1))
    return [any_cell("ElmanCell", hidden=3), middle, any_cell("LSTMCell", hidden=2, features=4)]


@pytest.fixture(scope="module")
def system():
    return DrivenSystem.from_cell(StackedCells(cells_of_three_kinds()))


@pytest.mark.slow
def test_one_system_has_the_states_of_the_layers(system):
    """In one scan of each after the other, from the bottom up."""
    carries, outputs = Stacked([Recurrence(cell) for cell in cells_of_three_kinds()])(INPUTS[None])
    states = trajectory(system, INPUTS)
    assert states.shape == (12, 3 + 4 + 2 * 2)
    np.testing.assert_allclose(states[-1], jnp.concatenate([*carries[:2], *carries[2]], axis=-1)[0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(states[:, -2:], outputs[0], rtol=0, atol=1e-14)


def test_blocks_of_the_jacobian(system):
    """On the diagonal each cell's own; below it what comes by way of the inputs; above it exactly nothing."""
    before, after = trajectory(system, INPUTS)[STEP - 1 : STEP + 1]
    first, second, third = (DrivenSystem.from_cell(cell) for cell in cells_of_three_kinds())

    @jax.jit
    def blocks(before, after, x):
        by_inputs = [
            jax.jacfwd(lambda x: second.step(before[3:7], x))(after[:3]),
            jax.jacfwd(lambda x: third.step(before[7:], x))(after[3:7]),
        ]
        own = jacobian(first, before[:3], x), jacobian(second, before[3:7], after[:3])
        return by_inputs, [*own, jacobian(third, before[7:], after[3:7])], jacobian(system, before, x)

    (by_first, by_second), (own_first, own_second, own_third), found = blocks(before, after, INPUTS[STEP])
    expected = np.block(
        [
            [own_first, np.zeros((3, 8))],
            [by_first @ own_first, own_second, np.zeros((4, 4))],
            [by_second @ by_first @ own_first, by_second @ own_second, own_third],
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    assert np.all(found[:3, 3:] == 0)
    assert np.all(found[3:7, 7:] == 0)


@pytest.mark.slow
def test_weights_that_are_functions_of_parameters_are_made_once_ahead():
    """Here exp of a matrix: the stack's own step, and the same after `evaluated`, as `from_cell` takes it."""
    cell = StackedCells([any_cell("ExpRNNCell", hidden=3), any_cell("GRUCell", hidden=2, features=3)])
    assert isinstance(cell.evaluated().cells[0].recurrent_kernel, EvaluatedKernel)
    expected = nnx.RNN(cell)(INPUTS[None])[0]
    np.testing.assert_allclose(trajectory(DrivenSystem.from_cell(cell), INPUTS)[:, 3:], expected, rtol=0, atol=1e-14)


@pytest.mark.slow
def test_exponents_are_those_of_each_layer_driven_by_the_one_below():
    """Linear layers with eigenvalues apart: 0.9 and 0.3 below, 0.6 above. The rest of the frames decays as 0.9/0.6."""
    below, above = (
        ElmanCell(2, hidden, activation="identity", param_dtype=jnp.float64, rngs=nnx.Rngs(0)) for hidden in (2, 1)
    )
    below.recurrent_kernel[...] = jnp.array([[0.9, 0.7], [0.0, 0.3]])
    above.recurrent_kernel[...] = jnp.array([[0.6]])
    system = DrivenSystem.from_cell(StackedCells([below, above]))
    exponents = lyapunov_spectrum(system, noise(120, 2), tangent_transient=100).exponents
    np.testing.assert_allclose(exponents, np.log([0.9, 0.6, 0.3]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("residual", slow_but([True], [False, True]))
def test_stacked_layers_as_a_cell(residual):
    """It shares their parameters, runs in `nnx.RNN` and in `Recurrence`, and drops nothing."""
    cells = [any_cell("GRUCell", hidden=3), any_cell("GRUCell", hidden=3, features=3, seed=1)]
    layers = Stacked([Recurrence(cell) for cell in cells], residual=residual, dropout=0.5, rngs=nnx.Rngs(0))
    cell = layers.as_cell()
    assert cell.cells[1].kernel is cells[1].kernel
    expected = layers(INPUTS[None], deterministic=True)[1]
    for recurrence in (Recurrence(cell), nnx.RNN(cell, return_carry=True)):
        np.testing.assert_allclose(recurrence(INPUTS[None])[1], expected, rtol=0, atol=1e-15)


def test_initial_carries():
    cell = StackedCells(cells_of_three_kinds())
    carry = cell.initialize_carry((5, 2), nnx.Rngs(0), jax.nn.initializers.ones)
    assert [leaf.shape for leaf in jax.tree.leaves(carry)] == [(5, 3), (5, 4), (5, 2), (5, 2)]
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(carry))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(cell.initialize_carry((2,), nnx.Rngs(0))))


def test_one_dtype_for_all_cells():
    cells = [any_cell("GRUCell", hidden=3, dtype=jnp.float32), any_cell("ElmanCell", 2, 3, dtype=jnp.float32)]
    system = DrivenSystem.from_cell(StackedCells(cells), dtype=jnp.float64)
    assert jax.eval_shape(system.step, system.initial_state, INPUTS[0]).dtype == jnp.float64


def test_bad_input_gets_one_sentence():
    narrow, wide = any_cell("GRUCell", hidden=3), any_cell("GRUCell", hidden=4, features=3)
    with pytest.raises(ValueError, match="cells must hold at least one cell, got none"):
        StackedCells([])
    with pytest.raises(ValueError, match="cells must say their in_features, got a Cellless without"):
        StackedCells([type("Cellless", (nnx.RNNCellBase,), {})()])
    residual = StackedCells([narrow, wide], residual=True)
    with pytest.raises(ValueError, match="residual cells must keep the width, cell 1 makes 4 features of 3"):
        residual(residual.initialize_carry((2,)), INPUTS[0])
    back = Recurrence(wide, reverse=True)
    for layer, came in ((back, "one with reverse=True"), (Bidirectional(Recurrence(wide), back), "a Bidirectional")):
        with pytest.raises(
            ValueError, match=f"every layer must be a Recurrence forward in time, got {came} as layer 1"
        ):
            Stacked([Recurrence(narrow), layer]).as_cell()
