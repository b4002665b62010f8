"""Looks at a network's gradients that do not disturb its training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from rnn_dynamics.types import Batch, Task


def loss_gradient_norms(model: nnx.Module, task: Task, batch: Batch) -> Float[Array, "T B"]:
    r"""Measure :math:`\|\partial \ell_b / \partial h_t\|` for every step and example, from one backward pass.

    The carry is the whole state: for an LSTM h and c together. Each example's own loss is differentiated, not the batch
    mean. Steps beyond an example's length give 0.

    Args:
        model: (inputs, lengths, taps=...) -> outputs.
        task: gives the loss.
        batch: inputs [B, T, ...], targets, lengths.

    Returns:
        Norms [T, B], in units of loss per unit of state; in double precision where JAX's is on.
    """
    return _gradient_by_taps(model, task.loss, batch)


@nnx.jit(static_argnames="loss")
def _gradient_by_taps(model: Any, loss: Callable[[Array, Array], Array], batch: Batch) -> Array:
    def total_loss(taps: Array) -> Array:
        return jnp.sum(loss(model(batch.inputs, batch.lengths, taps=taps), batch.targets))

    examples, steps = jnp.shape(batch.inputs)[:2]
    return jax.grad(total_loss)(jnp.zeros((steps, examples)))
