"""Stacks and both directions: equal to their parts and to each sequence alone; dropout; what taps hear in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, noise

from rnn_dynamics.dynamics import loss_adjoints
from rnn_dynamics.layers import Bidirectional, Recurrence, Stacked

BATCH, STEPS, FEATURES, HIDDEN = 3, 3, 2, 3
LENGTHS = jnp.array([3, 1, 2])
INPUTS = noise(BATCH * STEPS, FEATURES, scale=1.0).reshape(BATCH, STEPS, FEATURES)


def both_directions(**options):
    forward, backward = (any_cell(name, hidden=HIDDEN) for name in ("LSTMCell", "GRUCell"))
    return Bidirectional(Recurrence(forward, **options), Recurrence(backward, reverse=True, **options))


def stack(**options):
    """An LSTM forward and a GRU backward, on them a GRU of their width, which is residual."""
    above = Recurrence(any_cell("GRUCell", hidden=2 * HIDDEN, features=2 * HIDDEN, gain=0.9), **options)
    return Stacked([both_directions(**options), above], residual=True)


def one_by_one(layer, inputs):
    """One sequence [T, F] through a layer, a step at a time."""
    if isinstance(layer, Stacked):
        below, above = layer.layers
        _, read = one_by_one(below, inputs)
        carry, outputs = one_by_one(above, read)
        return carry, read + outputs
    if isinstance(layer, Bidirectional):
        forward, ahead = one_by_one(layer.forward, inputs)
        backward, back = one_by_one(layer.backward, inputs)
        return (forward, backward), jnp.concatenate([ahead, back], axis=1)
    carry, outputs = layer.cell.initialize_carry((inputs.shape[1],)), []
    for x in inputs[::-1] if layer.reverse else inputs:
        carry, output = layer.cell(carry, x)
        outputs.append(output)
    return carry, jnp.stack(outputs[::-1] if layer.reverse else outputs)


def test_padded_sequences_in_both_directions_and_on_top_are_those_alone():
    poisoned = jnp.where(jnp.arange(STEPS)[None, :, None] < LENGTHS[:, None, None], INPUTS, jnp.nan)
    layer = stack()

    @jax.jit  # all at once: what takes the time is to compile
    def padded_and_alone(poisoned, inputs):
        alone = {number: one_by_one(layer, inputs[number, :length]) for number, length in ((1, 1), (2, 2))}
        return layer(poisoned, lengths=LENGTHS), alone

    ((_, carry), outputs), alone = padded_and_alone(poisoned, INPUTS)
    assert outputs.shape == (BATCH, STEPS, 2 * HIDDEN)
    for number, (final, expected) in alone.items():
        length = LENGTHS[number]
        np.testing.assert_allclose(outputs[number, :length], expected, rtol=1e-13, atol=1e-13)
        np.testing.assert_array_equal(outputs[number, length:], 0)
        np.testing.assert_allclose(carry[number], final, rtol=1e-13, atol=1e-13)


def test_carries_go_in_as_they_come_out():
    """The way there in two halves, and the way back, each half from what the other left."""
    layer = Stacked([both_directions()])

    @jax.jit
    def whole_and_halves(inputs):
        whole = layer(inputs)
        ((middle, _),), ahead = layer(inputs[:, :2])
        _, late = layer(inputs[:, 2:], initial_carry=[(middle, jnp.zeros((BATCH, HIDDEN)))])
        later, _ = layer.layers[0].backward(inputs[:, 2:])
        _, early = layer(inputs[:, :2], initial_carry=[(middle, later)])
        return whole, ahead, late, early

    (((forward, backward),), outputs), ahead, late, early = whole_and_halves(INPUTS)
    there = jnp.concatenate([ahead, late], axis=1)[:, :, :HIDDEN]
    back = jnp.concatenate([early, late], axis=1)[:, :, HIDDEN:]
    np.testing.assert_allclose(jnp.concatenate([there, back], axis=2), outputs, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(forward[1], outputs[:, -1, :HIDDEN])
    np.testing.assert_array_equal(backward, outputs[:, 0, HIDDEN:])


@pytest.mark.parametrize("name", ["LSTMCell", "LRUCell"])
@pytest.mark.slow
def test_a_learned_carry_is_a_given_one_for_all_sequences(name):
    layer = Recurrence(any_cell(name, hidden=HIDDEN), learn_initial_carry=True)
    for number, parameter in enumerate(layer.learned_carry):
        parameter[...] += 0.1 * (number + 1)
    graph, learned, rest = nnx.split(layer, nnx.PathContains("learned_carry"), ...)
    parts = [jnp.repeat(leaf[..., None, :], BATCH, axis=-2) for leaf in jax.tree.leaves(learned)]
    given = jax.lax.complex(*parts[0]) if name == "LRUCell" else tuple(parts)

    def loss(learned, given):
        _, outputs = nnx.merge(graph, learned, rest)(INPUTS, lengths=LENGTHS, initial_carry=given)
        return jnp.sum(jnp.sin(outputs))

    @jax.jit
    def both(learned, given):
        return jax.value_and_grad(loss)(learned, None), jax.value_and_grad(loss, argnums=1)(learned, given)

    (value, by_learned), (same, by_given) = both(learned, given)
    assert value == same
    if name == "LRUCell":  # JAX's gradient by a complex number is that by its real part less i times that by the other
        by_given = jnp.stack([by_given.real, -by_given.imag])
    for a, b in zip(jax.tree.leaves(by_learned), jax.tree.leaves(by_given), strict=True):
        assert np.any(a != 0)
        np.testing.assert_allclose(a, jnp.sum(b, axis=-2), rtol=1e-13, atol=1e-14)


class Echo(nnx.Module):
    """A layer that puts out what it reads."""

    def __call__(self, inputs, *, lengths=None, initial_carry=None):
        return initial_carry, inputs


def test_dropout_has_one_mask_for_each_sequence_and_layer():
    rate, ones = 0.25, jnp.ones((400, STEPS, 5))
    layer = Stacked([Echo(), Echo()], dropout=rate, rngs=nnx.Rngs(dropout=0))
    _, outputs = layer(ones)
    np.testing.assert_array_equal(outputs, outputs[:, :1] * ones)  # the same at all steps
    assert set(np.unique(outputs)) == {0, 1 / (1 - rate) ** 2}
    # Two masks of independent entries: each of 2000 numbers is kept with a probability of 0.75^2.
    kept = np.mean(outputs[:, 0] != 0)
    assert kept == pytest.approx(0.75**2, abs=4 * np.sqrt(0.75**2 * (1 - 0.75**2) / 2000))
    assert np.any(outputs != layer(ones)[1])  # another call, other masks
    first, again = (layer(ones, rngs=nnx.Rngs(dropout=7))[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(layer(ones, deterministic=True)[1], ones)
    layer.eval()
    np.testing.assert_array_equal(layer(ones)[1], ones)


def loss_of_all(model, batch):
    inputs, lengths = batch
    carries, outputs = model(inputs, lengths=lengths)
    ends = jnp.concatenate(jax.tree.leaves(carries), axis=1)
    return jnp.sum(jnp.sin(3 * outputs), axis=(1, 2)) + jnp.sum(ends**2, axis=1)


def layers_of(model):
    """Path -> layer, as taps find them, from the bottom up."""
    below, above = model.layers
    return {"layers.0.forward": below.forward, "layers.0.backward": below.backward, "layers.1": above}


def losses_by_copies(model, copies, nudges):
    """The losses, each layer's step t taking its own copy of the weights, and its carry nudged after each step."""
    cells = {path: nnx.split(layer.cell, nnx.Param, ...) for path, layer in layers_of(model).items()}

    def run(path, inputs):
        graph, _, rest = cells[path]
        reverse = layers_of(model)[path].reverse
        carry, outputs = jax.tree.map(lambda leaf: leaf[0], nudges[path]), [None] * STEPS
        carry = jax.tree.map(jnp.zeros_like, carry)
        for t in range(STEPS)[:: -1 if reverse else 1]:
            cell = nnx.merge(graph, jax.tree.map(lambda leaf, t=t: leaf[t], copies[path]), rest)
            new, _ = cell(carry, inputs[:, t])
            new = jax.tree.map(lambda leaf, nudge, t=t: leaf + nudge[t], new, nudges[path])
            keep = (t < LENGTHS)[:, None]
            carry = jax.tree.map(lambda new, old, keep=keep: jnp.where(keep, new, old), new, carry)
            outputs[t] = jnp.where(keep, jax.tree.leaves(new)[-1], 0)
        return carry, jnp.stack(outputs, axis=1)

    def by_hand(inputs, lengths):
        forward, ahead = run("layers.0.forward", inputs)
        backward, back = run("layers.0.backward", inputs)
        read = jnp.concatenate([ahead, back], axis=2)
        above, outputs = run("layers.1", read)
        return ((forward, backward), above), read + outputs

    return loss_of_all(by_hand, (INPUTS, LENGTHS))


def norms(tree, axes_kept):
    squares = [np.sum(np.square(leaf), axis=tuple(range(axes_kept, leaf.ndim))) for leaf in jax.tree.leaves(tree)]
    return np.sqrt(sum(squares))


@pytest.mark.slow
def test_taps_in_a_stack_and_in_both_directions():
    """Every layer's adjoints by state and step, against copies of the weights and nudges of the states."""
    model = stack(checkpoint_every=2)
    measured = loss_adjoints(model, loss_of_all, (INPUTS, LENGTHS))
    assert set(measured.layers) == set(layers_of(model))
    copies, nudges = {}, {}
    for path, layer in layers_of(model).items():
        copies[path] = jax.tree.map(lambda leaf: jnp.stack([leaf] * STEPS), nnx.state(layer.cell, nnx.Param))
        carry = layer.cell.initialize_carry((STEPS, BATCH, layer.cell.in_features))
        nudges[path] = jax.tree.map(jnp.zeros_like, carry)
    by_hand = jax.jit(jax.grad(lambda *at: jnp.sum(losses_by_copies(model, *at)), argnums=(0, 1)))
    by_copies, by_nudges = by_hand(copies, nudges)
    for path, layer in measured.layers.items():
        np.testing.assert_allclose(layer.state_norm, norms(by_nudges[path], 2), rtol=1e-11)
        for name, copy in nnx.to_flat_state(by_copies[path]):
            expected = norms(copy[...], 1) / BATCH
            np.testing.assert_allclose(layer.weight_norm[".".join(name)], expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Stacked([]), "layers must hold at least one layer, got none"),
        (lambda: Stacked([Echo()], dropout=1.0, rngs=nnx.Rngs(0)), "dropout must lie in 0 ... 1, 1 excluded, got 1.0"),
        (lambda: Stacked([Echo()], dropout=0.5), "rngs must be given where dropout > 0, got dropout 0.5 without"),
        (lambda: Stacked([Echo()])(INPUTS, initial_carry=[None] * 2), "hold one for each of 1 layers, got 2"),
        (
            lambda: Stacked([Echo(), both_directions()], residual=True)(INPUTS),
            "residual layers must keep the width, layer 1 makes 6 features of 2",
        ),
        (
            lambda: Bidirectional(*[Recurrence(any_cell("GRUCell"))] * 2),
            "forward must have reverse=False and backward reverse=True, got False and False",
        ),
        (
            lambda: Recurrence(Wordless(), learn_initial_carry=True),
            "learn_initial_carry needs a cell with in_features, Wordless has none",
        ),
    ],
)
def test_bad_input_gets_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


class Wordless(nnx.RNNCellBase):
    """A cell that says nothing of its inputs."""
