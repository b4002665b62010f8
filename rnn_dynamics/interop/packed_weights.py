"""What weights of all origins have in common: they are checked, and a cell is made that has them."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.cells import GRUCell, PackedCell


class PackedWeights(NamedTuple):
    """Parameters of a `PackedCell` of G gates, in the order of its `gate_order`.

    Attributes:
        kernel: [F, G*H].
        recurrent_kernel: [H, G*H].
        bias: [G*H].
        recurrent_bias: [H], of a cell that has one, the GRU.
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array
    recurrent_bias: Array | None = None


def checked(name: str, value: Any, shape: tuple[int | None, ...]) -> Array:
    """Return an array of weights.

    Args:
        name: for the message.
        value: what came: a NumPy array, or what NumPy can make one of.
        shape: that it must have; None where any size will do.

    Returns:
        The array; in float32 where it has float64 and jax is not set to 64 bits.

    Raises:
        ValueError: another shape, or no floating point numbers.
    """
    array = jnp.asarray(value)
    fits = array.ndim == len(shape) and all(size in (None, own) for size, own in zip(shape, array.shape, strict=True))
    if not fits or not jnp.issubdtype(array.dtype, jnp.floating):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{name} must be floating point numbers of shape [{wanted}], got {array.dtype} of shape {list(array.shape)}"
        )
    return array


def gru_biases(input_bias: Array, recurrent_bias: Array) -> tuple[Array, Array]:
    """Join the two biases of a GRU, r z n side by side [3*H] each, but for that of n, which the reset gate parts.

    Args:
        input_bias: added to the map of the inputs.
        recurrent_bias: added to the map of the state.

    Returns:
        `bias` [3*H] and `recurrent_bias` [H] of a `GRUCell`.
    """
    reset_and_update, candidate = jnp.split(recurrent_bias, [2 * (recurrent_bias.size // 3)])
    return input_bias.at[: reset_and_update.size].add(reset_and_update), candidate


def cell_with(cell: type[PackedCell], weights: PackedWeights, **options: Any) -> PackedCell:
    """Make a cell that has these weights, and computes in their dtype.

    Args:
        cell: the class.
        weights: all of its parameters.
        **options: for its constructor.

    Returns:
        The cell.
    """
    made = cell(
        weights.kernel.shape[0],
        weights.recurrent_kernel.shape[0],
        kernel_init=lambda *_: weights.kernel,
        recurrent_kernel_init=lambda *_: weights.recurrent_kernel,
        param_dtype=weights.kernel.dtype,
        rngs=nnx.Rngs(0),
        **options,
    )
    made.bias[...] = weights.bias
    if isinstance(made, GRUCell) and weights.recurrent_bias is not None:
        made.recurrent_bias[...] = weights.recurrent_bias
    return made
