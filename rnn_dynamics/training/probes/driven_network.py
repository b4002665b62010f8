"""The network that a model's inputs drive, for probes of its state's dynamics."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.dynamics import DrivenSystem


def check_streams(inputs: Any) -> None:
    """Refuse inputs that are no sequences.

    Args:
        inputs: what came as features [S, T, F], or as tokens [S, T].

    Raises:
        ValueError: an array of another rank, or without a sequence or a step.
    """
    shape = np.shape(inputs)
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"inputs must be features [stream, time, feature] or tokens [stream, time], got shape {shape}")


def recurrent_cell(model: nnx.Module) -> nnx.RNNCellBase:
    """Return the cell of a model.

    Args:
        model: one with an attribute `cell`, such as any `SequenceModel` or a `Recurrence`.

    Raises:
        ValueError: a model without.
    """
    cell = getattr(model, "cell", None)
    if not isinstance(cell, nnx.RNNCellBase):
        raise ValueError(f"model must have a recurrent cell as its attribute cell, {type(model).__name__} has none")
    return cell


def driven_system(model: nnx.Module, dtype: DTypeLike | None) -> DrivenSystem:
    """See a model's cell as a driven system.

    Args:
        model: with a cell, see `recurrent_cell`.
        dtype: to measure in; None for the cell's own.

    Raises:
        ValueError: a model without a cell, or a cell that does not tell its `in_features`.
    """
    return DrivenSystem.from_cell(recurrent_cell(model), dtype=dtype)


def encoded(model: nnx.Module, inputs: Any) -> Array:
    """Return what a model's cell reads.

    Args:
        model: whose `encode` maps tokens to features; one that has no `encode` reads the inputs as they are.
        inputs: [S, T, F] or tokens [S, T].

    Returns:
        Features [S, T, F].
    """
    encode = getattr(model, "encode", jnp.asarray)
    return encode(inputs)
