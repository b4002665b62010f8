"""Where a model keeps its recurrent weights, and the square matrices that they are made of."""

from typing import Any

from flax import nnx
from jax import Array
from jaxtyping import Float

from rnn_dynamics.types import Evaluable

NAME = "recurrent_kernel"
"""What the cells of `rnn_dynamics.cells` call their recurrent weights."""


def square_blocks(kernel: Float[Array, "H GH"]) -> Float[Array, "G H H"]:
    """Take what is packed apart: the recurrent kernels of G gates, side by side in [H, G*H].

    Args:
        kernel: [H, G*H].

    Returns:
        One square matrix for each gate, [G, H, H].

    Raises:
        ValueError: a width that is no multiple of H, or vectors instead of matrices, as of an IndRNN.
    """
    if kernel.ndim != 2 or kernel.shape[0] < 2 or kernel.shape[1] % kernel.shape[0]:
        raise ValueError(f"{NAME} must be square blocks side by side, [H, G*H] with H > 1, got shape {kernel.shape}")
    size = kernel.shape[0]
    return kernel.reshape(size, -1, size).swapaxes(0, 1)


def side_by_side(blocks: Float[Array, "G H H"]) -> Float[Array, "H GH"]:
    """Pack square matrices [G, H, H] into [H, G*H], the inverse of `square_blocks`."""
    return blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1)


def recurrent_kernels(model: nnx.Module) -> dict[str, Array]:
    """Find the recurrent kernels of all cells of a model.

    Of a cell whose weights are functions of its parameters, such as an expRNN, the weights are meant.

    Args:
        model: any module.

    Returns:
        Path of each cell in the model joined by dots ("" for the model itself) -> [H, G*H].

    Raises:
        ValueError: if there is none.
    """
    found = {}
    for path, module in nnx.iter_modules(model):
        if isinstance(getattr(module, NAME, None), nnx.Variable):
            cell: Any = module.evaluated() if isinstance(module, Evaluable) else module
            found[".".join(map(str, path))] = getattr(cell, NAME)[...]
    if not found:
        raise ValueError(f"model must hold a cell with a parameter {NAME}, got a {type(model).__name__} without any")
    return found
