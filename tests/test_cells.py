"""Every cell against an independent transcription of its paper and against Flax; and the contract all cells share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells_by_hand import BY_HAND
from flax import nnx
from networks import any_cell, dense_jacobians, elman, lstm, noise

from rnn_dynamics.cells import CELLS, ElmanCell, GRUCell, LSTMCell, find_cell
from rnn_dynamics.cells.activations import ACTIVATIONS, find_activation
from rnn_dynamics.cells.initializers import RECURRENT_INITIALIZERS, gaussian, identity, orthogonal
from rnn_dynamics.dynamics import DrivenSystem, jacobian


def random_carry(cell, batch=3, seed=5):
    carry = cell.initialize_carry((batch, cell.in_features))
    leaves, structure = jax.tree.flatten(carry)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def test_every_cell_has_an_oracle():
    assert set(BY_HAND) == set(CELLS)


@pytest.mark.parametrize("name", CELLS)
def test_one_step_is_the_papers(name):
    cell = any_cell(name)
    carry, inputs = random_carry(cell), noise(3, 2)
    ours, _ = cell(carry, inputs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14),
        ours,
        BY_HAND[name](cell, jax.tree.map(np.asarray, carry), np.asarray(inputs)),
    )


@pytest.mark.parametrize("name", CELLS)
def test_the_two_halves_make_the_step(name):
    cell = any_cell(name)
    carry, inputs = random_carry(cell), noise(3, 2)
    jax.tree.map(np.testing.assert_array_equal, cell(carry, inputs), cell.advance(carry, cell.project(inputs)))


@pytest.mark.parametrize("name", CELLS)
def test_gates_are_named_and_in_range(name):
    cell = any_cell(name)
    gates = cell.gates(random_carry(cell), noise(3, 2))
    assert tuple(gates) == cell.gate_order
    for gate, values in gates.items():
        assert values.shape == (3, 6)
        assert gate in cell.candidates or np.all((values >= 0) & (values <= 1))


@pytest.mark.parametrize("name", CELLS)
def test_carry_and_dtypes_are_stable(name):
    for dtype, param_dtype in [(None, jnp.float32), (jnp.bfloat16, jnp.float32), (None, jnp.float64)]:
        cell = CELLS[name](2, 6, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0))
        carry = cell.initialize_carry((3, 2))
        new, output = cell(carry, noise(3, 2))
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, carry)
        expected = jnp.dtype(dtype or param_dtype)
        assert output.dtype == expected
        for leaf in jax.tree.leaves((carry, new)):
            assert leaf.dtype == (jnp.result_type(expected, jnp.complex64) if jnp.iscomplexobj(leaf) else expected)
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(cell, nnx.Param))} == {jnp.dtype(param_dtype)}


@pytest.mark.parametrize("name", CELLS)
def test_jacobian_against_central_differences(name):
    system, inputs = DrivenSystem.from_cell(any_cell(name)), noise(1, 2)
    state, step = 0.3 * jnp.arange(system.state_size) - 0.5, 1e-5
    differences = [
        (system.step(state + step * unit, inputs[0]) - system.step(state - step * unit, inputs[0])) / (2 * step)
        for unit in jnp.eye(system.state_size)
    ]
    np.testing.assert_allclose(jacobian(system, state, inputs[0]), np.stack(differences, axis=1), atol=1e-9)


def flax_twin(cell):
    """Flax's own cell with the weights of ours."""
    options = {"param_dtype": cell.param_dtype, "dtype": cell.dtype, "rngs": nnx.Rngs(0)}
    sizes = (cell.in_features, cell.hidden_features)
    if isinstance(cell, LSTMCell):
        twin = nnx.OptimizedLSTMCell(*sizes, **options)
        twin.dense_h.bias[...] = cell.bias[...]
    else:
        twin = (nnx.GRUCell if isinstance(cell, GRUCell) else nnx.SimpleCell)(*sizes, **options)
        twin.dense_i.bias[...] = cell.bias[...]
    twin.dense_i.kernel[...] = cell.kernel[...]
    twin.dense_h.kernel[...] = cell.recurrent_kernel[...]
    return twin


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.float64, 1e-12)])
@pytest.mark.parametrize("name", ["ElmanCell", "LSTMCell", "GRUCell"])
def test_equal_to_flax_with_the_same_weights(name, dtype, tolerance):
    cell = CELLS[name](2, 16, param_dtype=dtype, rngs=nnx.Rngs(1))  # a fresh GRU's b_hn is 0: Flax's has none
    twin, carry = flax_twin(cell), random_carry(cell)
    inputs = noise(20 * 3, 2).reshape(20, 3, 2).astype(dtype)
    theirs = carry
    for x in inputs:
        carry, ours_out = cell(carry, x)
        theirs, theirs_out = twin(theirs, x)
    np.testing.assert_allclose(ours_out, theirs_out, atol=tolerance)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), carry, theirs)


@pytest.mark.parametrize("name", CELLS)
def test_runs_in_nnx_rnn(name):
    cell = any_cell(name)
    inputs = noise(8, 2).reshape(2, 4, 2)
    outputs = nnx.RNN(cell)(inputs)
    carry = cell.initialize_carry((2, 2))
    for t in range(4):
        carry, output = cell(carry, inputs[:, t])
    np.testing.assert_allclose(outputs[:, -1], output, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_slopes_of_activations(activation):
    x = jnp.append(jnp.linspace(-8, 8, 40_001), jnp.array([-40, -1e-9, 1e-9, 40]))  # limits, and both sides of 0
    slopes = jax.vmap(jax.grad(activation))(x)
    assert float(jnp.max(jnp.abs(slopes))) == pytest.approx(activation.max_slope, abs=1e-6)
    assert float(jax.grad(activation)(0.0)) == pytest.approx(activation.slope_at_zero, abs=1e-12)


def test_elman_uses_its_activation():
    for name, activation in ACTIVATIONS.items():
        cell = ElmanCell(2, 6, activation=name, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        carry, x = random_carry(cell), noise(3, 2)
        preactivation = cell.project(x) + carry @ cell.recurrent_kernel[...]
        np.testing.assert_allclose(cell(carry, x)[1], activation(preactivation), atol=1e-14)


def test_elman_jacobian_is_diag_slope_times_weights():
    cell = elman(hidden=5)
    inputs = noise(1)
    (jacobian,) = dense_jacobians(DrivenSystem.from_cell(cell), inputs)
    slopes = 1 - np.tanh(cell.project(inputs[0])) ** 2
    np.testing.assert_allclose(jacobian, np.diag(slopes) @ np.asarray(cell.recurrent_kernel[...]).T, atol=1e-14)


def test_forget_and_update_bias_are_added_where_they_belong():
    assert np.split(np.asarray(lstm(forget_bias=2.0).bias[...]), 4)[1].tolist() == [2.0] * 8
    assert np.sum(lstm(forget_bias=2.0).bias[...]) == 16
    per_unit = np.arange(8.0)
    np.testing.assert_array_equal(
        np.split(np.asarray(lstm(forget_bias=jnp.asarray(per_unit)).bias[...]), 4)[1], per_unit
    )
    gru = GRUCell(1, 4, update_bias=-1.0, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(gru.bias[...], [0] * 4 + [-1] * 4 + [0] * 4)


@pytest.mark.parametrize("gates", [1, 3, 4])
def test_initialisers_treat_every_gate_alike(gates):
    size, key = 40, jax.random.key(0)
    for name, initializer in RECURRENT_INITIALIZERS.items():
        drawn = np.split(np.asarray(initializer(1.5)(key, (size, gates * size), jnp.float64)), gates, axis=1)
        assert gates == 1 or name == "identity" or not np.allclose(drawn[0], drawn[1])
        for block in drawn:
            if name == "orthogonal":
                np.testing.assert_allclose(block @ block.T, 1.5**2 * np.eye(size), atol=1e-12)
            elif name == "identity":
                np.testing.assert_array_equal(block, 1.5 * np.eye(size))
            else:  # variance gain^2/H; the relative error of 1600 squares is sqrt(2/1600) = 3.5 %
                assert np.var(block) * size == pytest.approx(1.5**2, rel=0.15)


def test_gains_are_numbers_that_vmap_carries():
    key = jax.random.key(0)
    for initializer in (gaussian, orthogonal, identity):
        swept = jax.vmap(lambda gain, init=initializer: init(gain)(key, (4, 8), jnp.float64))(jnp.array([1.0, 2.0]))
        np.testing.assert_allclose(swept[1], 2 * swept[0], atol=1e-14)


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match="hidden_features must be a whole number >= 1, got 0"):
        ElmanCell(1, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="unknown activation 'tahn': did you mean tanh"):
        ElmanCell(1, 2, activation="tahn", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="unknown cell 'lstmm': did you mean lstm"):
        find_cell("lstmm")
    with pytest.raises(ValueError, match=r"inputs must have 2 features, got shape \(3, 5\)"):
        LSTMCell(2, 4, rngs=nnx.Rngs(0)).project(jnp.ones((3, 5)))
    with pytest.raises(ValueError, match="unknown activation"):
        find_activation("softmax")
    assert find_cell("gru") is find_cell("GRUCell") is GRUCell
