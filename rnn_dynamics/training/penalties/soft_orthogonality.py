"""Recurrent weights shall be nearly orthogonal, so that linear units keep the gradient's length."""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.training.recurrent_blocks import recurrent_kernels, square_blocks
from rnn_dynamics.types import Batch


@dataclass(frozen=True)
class SoftOrthogonality:
    r"""Penalise recurrent weights for not being orthogonal (Vorontsov et al., ICML 2017, the soft constraint).

    .. math:: \sum_W \| W^\top W - 1 \|_F^2

    The sum is over the square matrices [H, H] of all gates of all cells of the model: the blocks side by side in each
    parameter `recurrent_kernel`, [H, G*H]. Of a cell that makes its weights from free parameters, such as an expRNN,
    the weights count. Other recurrent weights (peepholes, `content_kernel`) are left alone.
    """

    def __call__(self, model: Any, batch: Batch) -> Array:
        """Return the sum over the model's recurrent kernels.

        Args:
            model: any that holds cells with a `recurrent_kernel`.
            batch: not read.

        Returns:
            [], >= 0.

        Raises:
            ValueError: a model without a recurrent kernel, or one that is not made of square blocks.
        """
        return reduce(jnp.add, (_distance(square_blocks(kernel)) for kernel in recurrent_kernels(model).values()))


def _distance(blocks: Array) -> Array:
    identity = jnp.eye(blocks.shape[-1], dtype=blocks.dtype)
    gram = jnp.matmul(blocks.swapaxes(-1, -2), blocks, precision="highest")
    return jnp.sum((gram - jnp.broadcast_to(identity, gram.shape)) ** 2)
