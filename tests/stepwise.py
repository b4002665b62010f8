"""Two recurrent layers and a readout, and the same network a step at a time, with every step's own copy of all."""

import jax
import jax.numpy as jnp
from flax import nnx
from networks import any_cell, noise

from rnn_dynamics.layers import Recurrence

BATCH, STEPS, FEATURES, HIDDEN = 3, 4, 2, 4
LENGTHS = jnp.array([4, 1, 3])


class TwoLayers(nnx.Module):
    """A GRU on a Flax LSTM, neither called `recurrence`; outputs at every step [B, T, 1]."""

    def __init__(self, dtype=jnp.float64, **options):
        self.below = Recurrence(
            nnx.OptimizedLSTMCell(FEATURES, HIDDEN, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(1)), **options
        )
        self.above = Recurrence(any_cell("GRUCell", hidden=HIDDEN, features=HIDDEN, dtype=dtype), **options)
        self.head = nnx.Linear(HIDDEN, 1, param_dtype=dtype, rngs=nnx.Rngs(2))

    def __call__(self, inputs, lengths=None):
        _, hidden = self.below(inputs, lengths=lengths)
        _, hidden = self.above(hidden, lengths=lengths)
        return self.head(hidden)


def sequences(dtype=jnp.float64):
    return noise(BATCH * STEPS, FEATURES, scale=1.0).reshape(BATCH, STEPS, FEATURES).astype(dtype)


def loss_at_every_step(model, batch):
    """Of each example [B]; what is beyond its length counts nothing."""
    inputs, lengths = batch
    outputs = model(inputs, lengths)
    within = jnp.arange(STEPS)[None, :] < lengths[:, None]
    return jnp.sum(jnp.where(within, jnp.sin(3 * outputs[:, :, 0]), 0), axis=1)


def weights_of(model):
    """Layer -> the parameters of its cell."""
    return {name: nnx.state(getattr(model, name).cell, nnx.Param) for name in ("below", "above")}


def copies_of(model):
    """Layer -> the parameters of its cell, once for each step [T, ...]."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * STEPS), weights_of(model))


def nudges_of(model):
    """Layer -> zeros to be added to its carry after each step, leaves [T, B, H]."""
    zeros = jnp.zeros((STEPS, BATCH, HIDDEN))
    return {"below": (zeros, zeros), "above": zeros}


def outputs_stepwise(model, inputs, lengths, copies, nudges, cuts):
    """Run both layers together; at step t gradients pass into the carries of step t-1 where cuts[t] is 1."""
    carries = {name: jax.tree.map(lambda leaf: leaf[0], nudge) for name, nudge in nudges_of(model).items()}
    outputs = []
    for t in range(STEPS):
        hidden = inputs[:, t]
        for name in ("below", "above"):
            graph, _, rest = nnx.split(getattr(model, name).cell, nnx.Param, ...)
            cell = nnx.merge(graph, jax.tree.map(lambda leaf, t=t: leaf[t], copies[name]), rest)
            before = jax.tree.map(
                lambda leaf, t=t: cuts[t] * leaf + (1 - cuts[t]) * jax.lax.stop_gradient(leaf), carries[name]
            )
            after, _ = cell(before, hidden)
            after = jax.tree.map(lambda leaf, nudge, t=t: leaf + nudge[t], after, nudges[name])
            keep = (t < lengths)[:, None]
            carries[name] = jax.tree.map(lambda new, old, keep=keep: jnp.where(keep, new, old), after, carries[name])
            hidden = jax.tree.leaves(after)[-1]  # h: the carry's last array, in both cells
        outputs.append(model.head(hidden))
    return jnp.stack(outputs, axis=1)
