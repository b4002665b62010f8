"""Gradients gathered over the steps of a chunk: derivatives of every mode are those of the plain scan."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from networks import any_cell, noise

from rnn_dynamics.cells import LSTMCell, PackedCell
from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.layers import Recurrence, gathered_gradients

BATCH, STEPS = 3, 5
LENGTHS = jnp.array([5, 1, 3])


class AwkwardCell(PackedCell):
    """All that a cell may do: call `recur` twice, one on what the other made, not linearly, and read weights itself."""

    gate_order = ("reset", "candidate")

    def __init__(self, in_features, hidden_features, **options):
        super().__init__(in_features, hidden_features, **options)
        self.peephole = nnx.Param(jnp.linspace(-1.0, 1.0, hidden_features, dtype=self.param_dtype))
        self.leak = self.setting("leak", 0.7, "> 0", lambda leak: leak > 0)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def recur(self, hidden, gate):
        block = self.split(self.recurrent_kernel[...])[self.gate_order.index(gate)]
        answer = hidden @ block
        return answer / jnp.sqrt(1 + jnp.sum(answer**2, axis=-1, keepdims=True))

    def gates_from_drive(self, carry, drive, given=NONE_GIVEN):
        x_r, x_n = self.split(drive)
        reset = jax.nn.sigmoid(x_r + self.recur(carry, "reset") + self.per_unit(self.peephole, x_r) * carry)
        return {"reset": reset, "candidate": jnp.tanh(x_n + self.recur(reset * carry, "candidate"))}

    def combine(self, carry, gates):
        leak = self.per_unit(self.leak, carry)
        return (1 - leak) * carry + leak * gates["candidate"]


def awkward():
    return AwkwardCell(2, 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        pytest.param(any_cell("LSTMCell", hidden=4), {}, marks=pytest.mark.slow),
        (awkward(), {}),
        (awkward(), {"reverse": True, "checkpoint_every": 2}),
    ],
    ids=["LSTM", "awkward", "awkward, reverse, checkpointed"],
)
def test_derivatives_are_those_of_the_plain_scan(cell, options, monkeypatch):
    monkeypatch.setattr(gathered_gradients, "CHUNK", 2)  # two chunks and a shorter one
    graph, trained, rest = nnx.split(cell, lambda _, leaf: jnp.issubdtype(leaf.dtype, jnp.floating), ...)
    carry = jax.tree.map(lambda leaf: leaf + 0.3, cell.initialize_carry((BATCH, 2)))
    inputs = noise(BATCH * STEPS, 2).reshape(BATCH, STEPS, 2)
    point, unravel = ravel_pytree((trained, carry, inputs))  # the awkward cell's setting too
    direction = jnp.cos(jnp.arange(point.size, dtype=point.dtype))

    def loss(point, gather):
        trained, carry, inputs = unravel(point)
        layer = Recurrence(nnx.merge(graph, trained, rest), gather_gradients=gather, **options)
        carry, outputs = layer(inputs, lengths=LENGTHS, initial_carry=carry)
        return jnp.sum(jnp.sin(outputs)) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(carry))

    @partial(jax.jit, static_argnums=1)
    def derivatives(point, gather):
        gradient = jax.grad(partial(loss, gather=gather))
        return jax.jvp(partial(loss, gather=gather), (point,), (direction,)), jax.jvp(gradient, (point,), (direction,))

    plain, gathered = derivatives(point, False), derivatives(point, True)
    # Sums of some hundred terms of order one in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12), gathered, plain)
    padded = int(2 * jnp.sum(STEPS - LENGTHS))
    assert jnp.count_nonzero(plain[1][0]) == point.size - padded, "a derivative of zero would tell nothing"


def gathers(cell, steps, **options):
    """Whether the layer takes the way that gathers, read from what it would compile."""
    graph, state = nnx.split(Recurrence(cell, **options))
    traced = jax.make_jaxpr(lambda state, inputs: nnx.merge(graph, state)(inputs))(state, jnp.zeros((BATCH, steps, 2)))
    return "custom_jvp_call" in str(traced)


def test_gathers_unasked_where_it_pays():
    on_cpu, cell = jax.default_backend() == "cpu", any_cell("LSTMCell")
    assert gathers(cell, gathered_gradients.CHUNK + 1) == on_cpu
    assert not gathers(cell, gathered_gradients.CHUNK)
    assert gathers(cell, 2, gather_gradients=True)
    assert not gathers(cell, 99, gather_gradients=False)
    assert not gathers(cell, 99, project_ahead=True)
    assert not gathers(nnx.OptimizedLSTMCell(2, 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0)), 99)


def test_half_precision_and_ensembles():
    def gradients(key):
        cell = LSTMCell(2, 4, dtype=jnp.bfloat16, rngs=nnx.Rngs(key))
        graph, params, rest = nnx.split(Recurrence(cell, gather_gradients=True), nnx.Param, ...)

        def loss(params):
            carry, outputs = nnx.merge(graph, params, rest)(jnp.ones((BATCH, STEPS, 2)))
            assert {leaf.dtype for leaf in jax.tree.leaves((carry, outputs))} == {jnp.dtype(jnp.bfloat16)}
            return jnp.sum(outputs, dtype=jnp.float32)

        return jax.grad(loss)(params)

    for leaf in jax.tree.leaves(jax.eval_shape(jax.vmap(gradients), jax.random.split(jax.random.key(0), 2))):
        assert (leaf.dtype, leaf.shape[0]) == (jnp.float32, 2)


@pytest.mark.parametrize(
    ("cell", "options", "sentence"),
    [
        (any_cell("LSTMCell"), {"project_ahead": True}, "gather_gradients must not be True with project_ahead=True"),
        (nnx.GRUCell(2, 4, rngs=nnx.Rngs(0)), {}, "for a cell without `recur`, got GRUCell"),
    ],
)
def test_contradictions_get_one_sentence(cell, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Recurrence(cell, gather_gradients=True, **options)
