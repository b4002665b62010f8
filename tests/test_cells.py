"""The contract that all cells share, each cell against its paper in NumPy, and the cells of Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from cells_by_hand import BY_HAND
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import EACH_CELL, any_cell, noise, slow_but

from rnn_dynamics.cells import CELLS, ElmanCell, GRUCell, LSTMCell, find_cell
from rnn_dynamics.dynamics import DrivenSystem, jacobian
from rnn_dynamics.layers import Recurrence

FEATURES, HIDDEN, BATCH, STEPS = 2, 6, 3, 5
LENGTHS = jnp.array([5, 1, 3])
LONG = 200
RATE = 0.1
SEQUENCES = noise(BATCH * STEPS, FEATURES).reshape(BATCH, STEPS, FEATURES)


def random_carry(cell, seed=5):
    leaves, structure = jax.tree.flatten(cell.initialize_carry((BATCH, cell.in_features)))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def assert_trees_close(ours, theirs, atol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), ours, theirs)


class Reader(nnx.Module):
    """What a user may write around a cell: a loop of their own, and a layer on the last output."""

    def __init__(self, cell):
        self.cell = cell
        self.head = nnx.Linear(HIDDEN, 1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))

    def __call__(self, inputs):
        carry = self.cell.initialize_carry((BATCH, FEATURES), nnx.Rngs(0))
        for t in range(STEPS):
            carry, output = self.cell(carry, inputs[:, t])
        return self.head(output)


def trained_by_a_user(cell):
    """A reader's parameters after one step of SGD, and what the step must have made of them."""
    model = Reader(cell)
    graph, before, rest = nnx.split(nnx.clone(model), nnx.Param, ...)

    def by_the_layer(params):
        copy = nnx.merge(graph, params, rest)
        return jnp.sum(copy.head(Recurrence(copy.cell)(SEQUENCES)[1][:, -1]) ** 2)

    expected = jax.tree.map(lambda p, g: p - RATE * g, before, jax.grad(by_the_layer)(before))
    optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(SEQUENCES) ** 2))(model))
    return nnx.state(model, nnx.Param), expected


def differences(system, state, inputs_t, step=1e-5):
    def along(unit):
        return (system.step(state + step * unit, inputs_t) - system.step(state - step * unit, inputs_t)) / (2 * step)

    return jax.vmap(along, out_axes=1)(jnp.eye(system.state_size))


def mean_sine(cell, inputs):
    return jnp.mean(jnp.sin(Recurrence(cell)(inputs)[1]))


@pytest.fixture(scope="module", params=EACH_CELL)
def told(request):
    """A cell, and all that one compiled function tells of it: it is compiling that takes the time."""
    cell = any_cell(request.param)
    carry, x = random_carry(cell), SEQUENCES[:, 0]
    state = 0.3 * jnp.arange(DrivenSystem.from_cell(cell).state_size) - 0.4
    graph, values = nnx.split(cell)
    others = nnx.split(any_cell(request.param, seed=1))[1]

    @jax.jit
    def tell(values, others):
        cell, other = nnx.merge(graph, values), nnx.merge(graph, others)
        system, layer = DrivenSystem.from_cell(cell), Recurrence(cell)
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), values, others)
        new = cell.combine(carry, cell.gates(carry, x))
        trained, expected = trained_by_a_user(nnx.clone(cell))
        return {
            "step": cell(carry, x),
            "halves": cell.advance(carry, cell.project(x)),
            "parts": (new, cell.output(new)),
            "evaluated": cell.evaluated()(carry, x),
            "gates": cell.gates(carry, x),
            "other step": other(carry, x),
            "ensemble": jax.vmap(lambda values: nnx.merge(graph, values)(carry, x))(both),
            "jacobian": jacobian(system, state, x[0]),
            "differences": differences(system, state, x[0]),
            "layer": layer(SEQUENCES, initial_carry=carry),
            "padded": layer(SEQUENCES.at[1, 1:].set(jnp.nan), lengths=LENGTHS, initial_carry=carry),
            "states": [layer(SEQUENCES[:, :length], initial_carry=carry)[0] for length in LENGTHS.tolist()],
            "backwards": Recurrence(cell, reverse=True)(SEQUENCES[:, ::-1], initial_carry=carry),
            "nnx.RNN": nnx.RNN(cell, return_carry=True)(SEQUENCES, initial_carry=carry),
            "trained": trained,
            "expected": expected,
        }

    return cell, tell(values, others)


def test_every_cell_has_an_oracle():
    assert set(BY_HAND) == set(CELLS)


def test_one_step_is_the_papers_compiled_or_not(told):
    cell, results = told
    carry, x = random_carry(cell), SEQUENCES[:, 0]
    new, _ = cell(carry, x)
    expected = BY_HAND[type(cell).__name__](cell, jax.tree.map(np.asarray, carry), np.asarray(x))
    assert_trees_close(new, expected, atol=1e-14)
    assert_trees_close(results["step"][0], expected, atol=1e-14)


def test_the_parts_make_the_step(told):
    _, results = told
    for part in ("halves", "parts", "evaluated"):
        assert_trees_close(results[part], results["step"], atol=1e-15)


def test_gates_are_named_and_in_range(told):
    cell, results = told
    assert set(results["gates"]) == set(cell.gate_order) >= set(cell.candidates)
    for name, values in results["gates"].items():
        assert values.shape == (BATCH, HIDDEN)
        assert name in cell.candidates or np.all((values >= 0) & (values <= 1))


def test_jacobian_against_central_differences(told):
    _, results = told
    np.testing.assert_allclose(results["jacobian"], results["differences"], rtol=0, atol=1e-9)


def test_an_ensemble_is_its_members(told):
    _, results = told
    for number, name in enumerate(("step", "other step")):
        member = jax.tree.map(lambda leaf, number=number: leaf[number], results["ensemble"])
        assert_trees_close(member, results[name], atol=1e-15)


def test_layers_scan_it_padded_or_reversed(told):
    """And so does Flax's own; padding is NaN, which must not matter."""
    _, results = told
    carry, outputs = results["layer"]
    assert_trees_close(results["nnx.RNN"], (carry, outputs), atol=1e-14)
    assert_trees_close(results["backwards"], (carry, outputs[:, ::-1]), atol=1e-14)
    padded_carry, padded = results["padded"]
    for number, (length, state) in enumerate(zip(LENGTHS, results["states"], strict=True)):
        of_example = [jax.tree.map(lambda leaf, number=number: leaf[number], c) for c in (padded_carry, state)]
        assert_trees_close(*of_example, atol=1e-14)
        np.testing.assert_allclose(padded[number, :length], outputs[number, :length], rtol=0, atol=1e-14)
        np.testing.assert_array_equal(padded[number, length:], 0)


def test_a_users_module_trains_it(told):
    _, results = told
    assert_trees_close(results["trained"], results["expected"], atol=1e-13)


@pytest.mark.parametrize("name", slow_but(("LSTMCell",), CELLS))
def test_low_precision(name):
    """A step in bfloat16, with parameters in float32, and a gradient through 200 steps in float32."""
    exact = CELLS[name](FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    graph, values = nnx.split(exact)
    in_bfloat16 = nnx.split(CELLS[name](FEATURES, HIDDEN, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))[0]
    in_float64 = nnx.split(CELLS[name](FEATURES, HIDDEN, dtype=jnp.float64, rngs=nnx.Rngs(0)))[0]
    x, inputs = noise(BATCH, FEATURES), noise(LONG, FEATURES)[None]

    @jax.jit
    def tell(values):
        def step(graph, x):
            cell = nnx.merge(graph, values)
            return cell(cell.initialize_carry((BATCH, FEATURES)), x)[1]

        def gradient(graph, inputs):
            return jax.grad(lambda values: mean_sine(nnx.merge(graph, values), inputs))(values)

        low, high = step(in_bfloat16, x.astype(jnp.bfloat16)), step(in_float64, x)
        return low, high, gradient(graph, inputs.astype(jnp.float32)), gradient(in_float64, inputs)

    low, high, single, double = tell(values)
    np.testing.assert_allclose(low.astype(jnp.float64), high, rtol=0, atol=4 * float(jnp.finfo(jnp.bfloat16).eps))
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (single, double)]
    # Each of 200 steps may add some rounding, and what is orthogonal forgets none of it.
    tolerance = 16 * LONG * float(jnp.finfo(jnp.float32).eps)
    assert np.linalg.norm(flat[0] - flat[1]) < tolerance * np.linalg.norm(flat[1])


@given(
    name=st.sampled_from(list(CELLS)),
    sizes=st.tuples(st.integers(1, 5), st.integers(2, 9)),
    batch=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    dtypes=st.sampled_from([(None, jnp.float32), (jnp.bfloat16, jnp.float32), (None, jnp.float64)]),
)
@settings(max_examples=100)
def test_any_shape_and_dtype(name, sizes, batch, dtypes):
    """Nothing is compiled: shapes and dtypes are all that is asked for."""
    dtype, param_dtype = dtypes

    def step(key):
        cell = CELLS[name](*sizes, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(params=key))
        carry = cell.initialize_carry((*batch, sizes[0]))
        gates = cell.gates(carry, jnp.ones((*batch, sizes[0]), param_dtype))
        return (
            jax.tree.leaves(nnx.state(cell, nnx.Param)),
            carry,
            cell(carry, jnp.ones((*batch, sizes[0]), param_dtype)),
            gates,
        )

    params, carry, (new, output), gates = jax.eval_shape(step, jax.random.key(0))
    assert {leaf.dtype for leaf in params} == {jnp.dtype(param_dtype)}
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), new) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), carry
    )
    real = jnp.dtype(dtype or param_dtype)
    of_state = {leaf.dtype for leaf in jax.tree.leaves(carry)}
    assert of_state in ({real}, {jnp.result_type(real, jnp.complex64)})
    assert {array.shape for array in (output, *gates.values())} == {(*batch, sizes[1])}
    assert output.dtype == real
    assert {values.dtype for values in gates.values()} <= {real} | of_state


def test_orbax_keeps_every_cell(tmp_path):
    cells = {name: any_cell(name) for name in CELLS}
    saved = {name: nnx.to_pure_dict(nnx.state(cell)) for name, cell in cells.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "cells", saved)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "cells", jax.tree.map(jnp.zeros_like, saved))
    assert_trees_close(restored, saved, atol=0)
    fresh = any_cell("PeepholeLSTMCell", seed=7)
    state = nnx.state(fresh)
    nnx.replace_by_pure_dict(state, restored["PeepholeLSTMCell"])
    nnx.update(fresh, state)
    x = noise(BATCH, FEATURES)
    assert_trees_close(*(cell(random_carry(cell), x) for cell in (fresh, cells["PeepholeLSTMCell"])), atol=0)


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
    carry = random_carry(cell)
    inputs = noise(20 * BATCH, 2).reshape(BATCH, 20, 2).astype(dtype)
    run = nnx.jit(lambda rnn: rnn(inputs, initial_carry=carry, return_carry=True))
    ours, theirs = (run(nnx.RNN(one)) for one in (cell, flax_twin(cell)))
    assert_trees_close(ours, theirs, atol=tolerance)


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match="hidden_features must be a whole number >= 1, got 0"):
        ElmanCell(1, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="unknown activation 'tahn': did you mean tanh"):
        ElmanCell(1, 2, activation="tahn", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="unknown cell 'lstmm': did you mean lstm"):
        find_cell("lstmm")
    assert find_cell("gru") is find_cell("GRUCell") is GRUCell


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_refuses_what_does_not_fit(name):
    for sizes, sentence in [((0, 3), "in_features must be"), ((3, 0), "hidden_features must be")]:
        with pytest.raises(ValueError, match=sentence + " a whole number >= 1, got 0"):
            CELLS[name](*sizes, rngs=nnx.Rngs(0))
    cell = any_cell(name)
    with pytest.raises(ValueError, match=r"inputs must have 2 features, got shape \(3, 5\)"):
        cell.project(jnp.ones((3, 5)))
