"""The scan over a cell: stepwise = scanned = padded = reversed = checkpointed, for our cells and Flax's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import any_cell, noise

from rnn_dynamics.layers import Recurrence

BATCH, STEPS = 3, 7
LENGTHS = jnp.array([7, 1, 4])


def cells():
    # All cells are scanned, padded and reversed in tests/test_cells.py; these differ in kind: two arrays, arrays of
    # two shapes, weights that are made, a complex array and none that is read by weights, a reset before the weights.
    kinds = ("ElmanCell", "LSTMCell", "ClockworkCell", "ExpRNNCell", "LRUCell", "ChoGRUCell")
    yield from (any_cell(name) for name in kinds)
    yield nnx.OptimizedLSTMCell(2, 6, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    yield nnx.GRUCell(2, 6, param_dtype=jnp.float64, rngs=nnx.Rngs(0))


ALL_CELLS = pytest.mark.parametrize(
    "cell", list(cells()), ids=lambda cell: f"{type(cell).__module__}.{type(cell).__name__}"
)


def sequences(seed=1, steps=STEPS):
    return noise(BATCH * steps, 2, seed=seed).reshape(BATCH, steps, 2)


def stepwise(cell, inputs, carry=None):
    """One sequence [T, F], a step at a time."""
    carry = cell.initialize_carry((2,), nnx.Rngs(0)) if carry is None else carry
    outputs = []
    for x in inputs:
        carry, output = cell(carry, x)
        outputs.append(output)
    return carry, jnp.stack(outputs)


def assert_trees_close(a, b, atol=1e-13):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


def sum_of_squares(carry):
    return sum(jnp.sum(jnp.real(leaf) ** 2 + jnp.imag(leaf) ** 2) for leaf in jax.tree.leaves(carry))


def example(carry, number):
    return jax.tree.map(lambda leaf: leaf[number], carry)


@ALL_CELLS
@pytest.mark.parametrize("options", [{}, {"project_ahead": True}, {"checkpoint_every": 3}], ids=str)
def test_scanned_equals_stepwise(cell, options):
    inputs = sequences()
    carry, outputs = Recurrence(cell, **options)(inputs)
    for number in range(BATCH):
        assert_trees_close((example(carry, number), outputs[number]), stepwise(cell, inputs[number]))


@ALL_CELLS
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_changes_nothing(cell, reverse):
    inputs = sequences()
    garbage = inputs.at[1, 1:].set(jnp.nan).at[2, 4:].set(1e9)  # whatever is there must not matter, not even NaN
    carry, outputs = Recurrence(cell, reverse=reverse)(garbage, lengths=LENGTHS)
    for number, length in enumerate(LENGTHS):
        alone = inputs[number, :length][:: -1 if reverse else 1]
        final, expected = stepwise(cell, alone)
        assert_trees_close(example(carry, number), final)
        assert_trees_close(outputs[number, :length], expected[:: -1 if reverse else 1])
        assert np.all(outputs[number, length:] == 0)


@pytest.mark.parametrize(
    "cell",
    [
        cell
        if "LSTM" in type(cell).__name__
        else pytest.param(cell, marks=pytest.mark.slow)  # it takes long to compile
        for cell in cells()
    ],
    ids=lambda cell: f"{type(cell).__module__}.{type(cell).__name__}",
)
@pytest.mark.slow
def test_gradients_are_those_without_padding_or_checkpoints(cell):
    graph, params, rest = nnx.split(cell, nnx.Param, ...)
    inputs = sequences()

    def loss(params, **options):
        carry, outputs = Recurrence(nnx.merge(graph, params, rest), **options)(inputs, lengths=LENGTHS)
        return jnp.sum(jnp.sin(outputs)) + sum_of_squares(carry)

    def one_by_one(params):
        cell, total = nnx.merge(graph, params, rest), 0.0
        for number, length in enumerate([7, 1, 4]):
            carry, outputs = stepwise(cell, inputs[number, :length])
            total += jnp.sum(jnp.sin(outputs)) + sum_of_squares(carry)
        return total

    variants = [
        {"checkpoint_every": 3},
        {"checkpoint_every": 2, "project_ahead": True},
        {"project_ahead": True},
        {"reverse": True},
        {"reverse": True, "checkpoint_every": 3},
    ]

    @jax.jit  # all at once: what takes the time is to compile
    def gradients(params):
        scanned = [jax.grad(partial(loss, **options))(params) for options in ({}, *variants)]
        return jax.grad(one_by_one)(params), *scanned

    by_hand, plain, *forward, backward, backward_in_chunks = gradients(params)
    assert_trees_close(plain, by_hand, atol=1e-12)
    for other in forward:
        assert_trees_close(other, plain, atol=1e-12)
    assert_trees_close(backward_in_chunks, backward, atol=1e-12)


def test_lengths_may_be_constants_of_a_compiled_function():
    recurrence = Recurrence(any_cell("ElmanCell"))
    assert_trees_close(
        jax.jit(lambda x: recurrence(x, lengths=LENGTHS))(sequences()), recurrence(sequences(), lengths=LENGTHS)
    )


@pytest.mark.parametrize("options", [{}, {"project_ahead": True}], ids=str)
@pytest.mark.slow
def test_nan_in_padding_does_not_reach_gradients(options):
    graph, params = nnx.split(any_cell("GRUCell"))
    inputs = sequences()
    poisoned = jnp.where(jnp.arange(STEPS)[None, :, None] < LENGTHS[:, None, None], inputs, jnp.nan)

    def loss(params, inputs):
        return jnp.sum(Recurrence(nnx.merge(graph, params), **options)(inputs, lengths=LENGTHS)[1] ** 2)

    assert_trees_close(jax.grad(loss)(params, poisoned), jax.grad(loss)(params, inputs))


SMALL_CELL = any_cell("ElmanCell", hidden=3)
small_step = jax.jit(SMALL_CELL.__call__)


@settings(max_examples=12)
@given(batch=st.integers(1, 4), steps=st.integers(1, 9), chunk=st.integers(1, 10), data=st.data())
def test_any_shape(batch, steps, chunk, data):
    lengths = np.array(data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch)))
    inputs = np.random.default_rng(0).normal(size=(batch, steps, 2))
    # Compiled as a whole, as each operation alone would be compiled for each shape.
    carry, outputs = jax.jit(Recurrence(SMALL_CELL, checkpoint_every=chunk).__call__)(inputs, lengths=lengths)
    assert outputs.shape == (batch, steps, 3)
    for number, length in enumerate(lengths):
        state = SMALL_CELL.initialize_carry((2,))
        for x in inputs[number, :length]:
            state, output = small_step(state, x)
        np.testing.assert_allclose(carry[number], state, rtol=0, atol=1e-13)
        np.testing.assert_allclose(outputs[number, length - 1], output, rtol=0, atol=1e-13)


def test_given_initial_carry():
    cell, inputs = any_cell("LSTMCell"), sequences()
    carry = jax.tree.map(lambda leaf: leaf + 0.3, cell.initialize_carry((BATCH, 2)))
    first, _ = Recurrence(cell)(inputs[:, :4], initial_carry=carry)
    second, _ = Recurrence(cell)(inputs[:, 4:], initial_carry=first)
    assert_trees_close(second, Recurrence(cell)(inputs, initial_carry=carry)[0])


@pytest.mark.parametrize(
    ("inputs", "options", "sentence"),
    [
        (jnp.ones((3, 2)), {}, r"inputs must have shape \[batch, time, feature\], got \(3, 2\)"),
        (jnp.ones((3, 7, 5)), {}, "inputs must have 2 features, got shape"),
        (jnp.ones((3, 0, 2)), {}, "at least one time step"),
        (jnp.ones((3, 7, 2)), {"lengths": jnp.array([7, 8, 1])}, r"lengths must lie in 1 \.\.\. 7, got 1 \.\.\. 8"),
        (jnp.ones((3, 7, 2)), {"lengths": jnp.array([7, 0, 1])}, r"lengths must lie in 1 \.\.\. 7, got 0 \.\.\. 7"),
        (jnp.ones((3, 7, 2)), {"lengths": jnp.array([7])}, r"lengths must have shape \[batch\]"),
    ],
)
def test_bad_input_gets_one_sentence(inputs, options, sentence, request):
    # jaxtyping, on in tests, would refuse some of these first; users run without it.
    call = getattr(Recurrence.__call__, "__wrapped__", Recurrence.__call__)
    with pytest.raises(ValueError, match=sentence):
        call(Recurrence(any_cell("GRUCell")), inputs, **options)


def test_bad_checkpointing():
    with pytest.raises(ValueError, match='checkpoint_every, if not "sqrt" or None, must be a whole number >= 1, got 0'):
        Recurrence(any_cell("GRUCell"), checkpoint_every=0)


def test_values_that_are_equal_to_the_last_bit():
    """Padding only selects, and a batch's rows do not meet.

    Chunks make the same operations, but the compiler may fuse those of a shorter scan, or of a step alone, in another
    way, and gradients of weights are sums over the steps that it may take in another order: equal to rounding.
    """
    cell = any_cell("ElmanCell", hidden=3)
    graph, params = nnx.split(cell)

    def loss(params, inputs, lengths, **options):
        carry, outputs = Recurrence(nnx.merge(graph, params), **options)(inputs, lengths=lengths)
        return jnp.sum(jnp.sin(outputs)), (carry, outputs)

    def run(inputs, lengths=None, **options):
        # Each compiled apart: in one function the compiler would make but one of what is the same.
        compiled = jax.jit(jax.value_and_grad(partial(loss, **options), has_aux=True))
        (_, values), gradient = compiled(params, inputs, lengths)
        return values, gradient

    inputs = sequences()
    (carry, outputs), gradient = run(inputs)
    (padded_carry, padded), _ = run(inputs, LENGTHS)
    for number, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(padded[number, :length], outputs[number, :length])
        np.testing.assert_array_equal(padded_carry[number], outputs[number, length - 1])
    in_full = run(inputs, jnp.full(BATCH, STEPS))
    jax.tree.map(np.testing.assert_array_equal, in_full[0], (carry, outputs))
    in_chunks, root = run(inputs, checkpoint_every=3), run(inputs, checkpoint_every="sqrt")  # of 7 steps, rounded up
    jax.tree.map(np.testing.assert_array_equal, in_chunks, root)
    for other in (in_full, in_chunks):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-14, atol=1e-14), other, ((carry, outputs), gradient))

    step = jax.jit(cell.__call__)
    state = cell.initialize_carry((BATCH, 2))
    for t in range(STEPS):
        state, _ = step(state, inputs[:, t])
        np.testing.assert_allclose(state, outputs[:, t], rtol=0, atol=1e-15)
