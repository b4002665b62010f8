"""The scan over a cell: stepwise = scanned = padded = reversed = checkpointed, for our cells and Flax's; and its
taps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import any_cell, noise

from rnn_dynamics.cells import CELLS, ElmanCell
from rnn_dynamics.cells.initializers import orthogonal
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.taps import tap

BATCH, STEPS = 3, 7
LENGTHS = jnp.array([7, 1, 4])


def cells():
    yield from (any_cell(name) for name in CELLS)
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
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), a, b)


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


@ALL_CELLS
def test_gradients_are_those_without_padding_or_checkpoints(cell):
    graph, params, rest = nnx.split(cell, nnx.Param, ...)
    inputs = sequences()

    def loss(params, **options):
        carry, outputs = Recurrence(nnx.merge(graph, params, rest), **options)(inputs, lengths=LENGTHS)
        return jnp.sum(jnp.sin(outputs)) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(carry))

    def one_by_one(params):
        cell, total = nnx.merge(graph, params, rest), 0.0
        for number, length in enumerate([7, 1, 4]):
            carry, outputs = stepwise(cell, inputs[number, :length])
            total += jnp.sum(jnp.sin(outputs)) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(carry))
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


@pytest.mark.parametrize("options", [{}, {"project_ahead": True}], ids=str)
def test_nan_in_padding_does_not_reach_gradients(options):
    graph, params = nnx.split(any_cell("GRUCell"))
    inputs = sequences()
    poisoned = jnp.where(jnp.arange(STEPS)[None, :, None] < LENGTHS[:, None, None], inputs, jnp.nan)

    def loss(params, inputs):
        return jnp.sum(Recurrence(nnx.merge(graph, params), **options)(inputs, lengths=LENGTHS)[1] ** 2)

    assert_trees_close(jax.grad(loss)(params, poisoned), jax.grad(loss)(params, inputs))


@ALL_CELLS
@pytest.mark.parametrize("options", [{}, {"checkpoint_every": 3}, {"reverse": True}], ids=str)
def test_taps_are_the_loss_gradient_by_each_state(cell, options):
    """Against the definition: nudge the state after step t by hand, and differentiate by the nudge."""
    inputs, recurrence = sequences(), Recurrence(cell, **options)

    def pull(outputs, carry):
        weights = 1 + jnp.arange(STEPS, dtype=jnp.float64)[None, :, None]
        return jnp.sum(weights * outputs**2) + sum(jnp.sum(jnp.cos(leaf)) for leaf in jax.tree.leaves(carry))

    def loss(taps):
        carry, outputs = recurrence(inputs, taps=taps)
        return pull(outputs, carry)

    def nudged(nudges):
        carry = cell.initialize_carry((BATCH, 2), nnx.Rngs(0))
        outputs = [jnp.zeros(0)] * STEPS
        for t in reversed(range(STEPS)) if options.get("reverse") else range(STEPS):
            carry, _ = cell(carry, inputs[:, t])
            carry = jax.tree.map(lambda leaf, nudge: leaf + nudge, carry, nudges[t])
            outputs[t] = jax.tree.leaves(carry)[-1]  # h: the carry's last array, in every cell tested here
        return pull(jnp.stack(outputs, axis=1), carry)

    zeros = jax.tree.map(jnp.zeros_like, [cell.initialize_carry((BATCH, 2), nnx.Rngs(0))] * STEPS)
    by_hand = [
        jnp.sqrt(sum(jnp.sum(leaf**2, axis=1) for leaf in jax.tree.leaves(gradient)))
        for gradient in jax.grad(nudged)(zeros)
    ]
    np.testing.assert_allclose(jax.grad(loss)(jnp.zeros((STEPS, BATCH))), jnp.stack(by_hand), rtol=1e-11)


def test_taps_change_neither_loss_nor_gradients():
    cell, inputs = any_cell("LSTMCell"), sequences()
    graph, params = nnx.split(cell)

    def loss(params, taps):
        return jnp.sum(Recurrence(nnx.merge(graph, params))(inputs, taps=taps)[1] ** 2)

    with_taps = jax.value_and_grad(loss)(params, jnp.zeros((STEPS, BATCH)))
    assert_trees_close(with_taps, jax.value_and_grad(loss)(params, None))


def test_taps_beyond_a_sequence_are_zero():
    recurrence = Recurrence(any_cell("GRUCell"))
    norms = jax.grad(lambda taps: jnp.sum(recurrence(sequences(), lengths=LENGTHS, taps=taps)[1] ** 2))(
        jnp.zeros((STEPS, BATCH))
    )
    np.testing.assert_array_equal(norms > 0, jnp.arange(STEPS)[:, None] < LENGTHS[None, :])


def test_a_tap_does_not_underflow():
    small = jnp.full((1, 2), 1e-30, jnp.float32)
    _, pull = jax.vjp(lambda probe: tap(jnp.ones((1, 2), jnp.float32), probe), jnp.zeros(1, jnp.float32))
    assert float(pull(small)[0][0]) == pytest.approx(np.sqrt(2) * 1e-30, rel=1e-6)


def test_taps_refuse_a_cell_whose_output_they_cannot_see():
    class Readout(nnx.GRUCell):
        def __call__(self, carry, inputs):
            carry, output = super().__call__(carry, inputs)
            return carry, 2 * output

    recurrence = Recurrence(Readout(2, 6, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="taps need a cell whose output is one of the arrays of its carry"):
        recurrence(sequences().astype(jnp.float32), taps=jnp.zeros((STEPS, BATCH)))


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
        np.testing.assert_allclose(carry[number], state, atol=1e-13)
        np.testing.assert_allclose(outputs[number, length - 1], output, atol=1e-13)


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
        (jnp.ones((3, 7, 2)), {"taps": jnp.zeros((3, 7))}, r"taps must have shape \[time, batch\] = \(7, 3\)"),
    ],
)
def test_bad_input_gets_one_sentence(inputs, options, sentence, request):
    # jaxtyping, on in tests, would refuse some of these first; users run without it.
    call = getattr(Recurrence.__call__, "__wrapped__", Recurrence.__call__)
    with pytest.raises(ValueError, match=sentence):
        call(Recurrence(any_cell("GRUCell")), inputs, **options)


def test_bad_checkpointing():
    with pytest.raises(ValueError, match="checkpoint_every must be >= 1 or None, got 0"):
        Recurrence(any_cell("GRUCell"), checkpoint_every=0)


def test_pascanus_omega_is_zero_for_an_orthogonal_linear_network():
    """Omega = sum_t (||dL/dh_t|| / ||dL/dh_{t+1}|| - 1)^2 (Pascanu, Mikolov and Bengio 2013, eq. 9), from the taps."""
    cell = ElmanCell(
        2, 6, activation="identity", recurrent_kernel_init=orthogonal(), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    graph, params = nnx.split(cell)

    def omega(gain):
        scaled = nnx.merge(graph, params)
        scaled.recurrent_kernel[...] = gain * scaled.recurrent_kernel[...]
        norms = jax.grad(lambda taps: jnp.sum(Recurrence(scaled)(sequences(), taps=taps)[0] ** 3))(
            jnp.zeros((STEPS, BATCH))
        )
        return jnp.sum((norms[:-1] / norms[1:] - 1) ** 2)

    assert float(omega(1.0)) < 1e-26
    assert float(omega(0.9)) == pytest.approx((STEPS - 1) * BATCH * 0.1**2, rel=1e-10)
