"""Initialisers of recurrent kernels, in the words of the field: functions of a key, with a gain that `vmap` can carry.

A recurrent kernel has shape [H, n*H], its n gates side by side. Each initialiser draws the n blocks [H, H]
separately, so that "orthogonal" or "gain g" means the same for a gated cell as for an Elman network.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.types import Initializer


def gaussian(gain: float | Array = 1.0) -> Initializer:
    """Independent entries N(0, gain^2 / H): spectral radius -> gain (Sompolinsky, Crisanti and Sommers 1988).

    Args:
        gain: g, recurrent weight standard deviation x sqrt(H).

    Returns:
        An initialiser of kernels [H, n*H]; of input kernels [F, n*H] with F in the place of H.
    """

    def init(key: Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
        return jnp.asarray(gain, dtype) * jax.random.normal(key, shape, dtype) / jnp.sqrt(jnp.asarray(shape[0], dtype))

    return init


def orthogonal(gain: float | Array = 1.0) -> Initializer:
    """Haar-distributed orthogonal blocks times gain (Saxe, McClelland and Ganguli 2014).

    Args:
        gain: every singular value of every block.

    Returns:
        An initialiser of kernels [H, n*H].
    """
    return _blockwise(jax.nn.initializers.orthogonal(), gain)


def identity(gain: float | Array = 1.0) -> Initializer:
    """Identity blocks times gain, IRNN (Le, Jaitly and Hinton 2015).

    Args:
        gain: the diagonal entry.

    Returns:
        An initialiser of kernels [H, n*H].
    """
    return _blockwise(lambda key, shape, dtype: jnp.eye(shape[0], dtype=dtype), gain)


def glorot(gain: float | Array = 1.0) -> Initializer:
    """Uniform entries of variance 2 / (fan in + fan out) in each block, times gain (Glorot and Bengio 2010).

    Args:
        gain: factor on the standard deviation.

    Returns:
        An initialiser of kernels [H, n*H]; input kernels [F, n*H] are one block of fan out n*H.
    """
    return _blockwise(jax.nn.initializers.glorot_uniform(), gain)


RECURRENT_INITIALIZERS: dict[str, Callable[[float | Array], Initializer]] = {
    initializer.__name__: initializer for initializer in (gaussian, orthogonal, identity, glorot)
}
"""The initialisers of recurrent kernels that experiments choose by name; each takes a gain."""


def _blockwise(draw: Callable[..., Array], gain: float | Array) -> Initializer:
    def init(key: Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
        rows, columns = shape
        blocks = columns // rows if columns % rows == 0 else 1
        block_shape = (rows, columns // blocks)
        drawn = [draw(block_key, block_shape, dtype) for block_key in jax.random.split(key, blocks)]
        return jnp.asarray(gain, dtype) * jnp.concatenate(drawn, axis=-1)

    return init
