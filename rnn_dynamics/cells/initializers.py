"""Initialisers of recurrent kernels, in the words of the field: functions of a key, with a gain that `vmap` can carry.

A recurrent kernel has shape [H, n*H], its n gates side by side. Each initialiser draws the n blocks [H, H]
separately, so that "orthogonal" or "gain g" means the same for a gated cell as for an Elman network. All are plain
JAX: they run on every device, and under `jit` and `vmap` over gains and keys alike.

Two recipes are an Elman network with relu and one of these: the IRNN with `identity`, the np-RNN with
`positive_definite`. Laws for the biases of gates are in `cells.gate_biases`.
"""

import math
from collections.abc import Callable
from typing import Any

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


def he(gain: float | Array = 1.0) -> Initializer:
    """Independent entries N(0, 2 gain^2 / H): relu passes the variance on at gain 1 (He, Zhang, Ren and Sun 2015).

    Args:
        gain: factor on the standard deviation.

    Returns:
        An initialiser of kernels [H, n*H]; of input kernels [F, n*H] with F in the place of H.
    """
    return gaussian(math.sqrt(2) * gain)


def ginibre(gain: float | Array = 1.0) -> Initializer:
    """Blocks of independent Gaussian entries, each rescaled so that its spectral radius is exactly the gain.

    `gaussian` has that radius for H -> infinity alone: at H = 100 it is 5 % larger on average and spreads by 4 %. Here
    gain 1 is critical at every H (Ginibre 1965 for the ensemble).

    Args:
        gain: spectral radius of every block.

    Returns:
        An initialiser of kernels [H, n*H].
    """
    return _blockwise(lambda key, shape, dtype: _with_unit_radius(jax.random.normal(key, shape, dtype)), gain)


def sparse(gain: float | Array = 1.0, nonzeros: int = 15) -> Initializer:
    """Every unit hears few others, with Gaussian weights (Sutskever, Martens, Dahl and Hinton 2013; Jaeger 2001).

    Args:
        gain: spectral radius of every block; the paper takes 1.1 for tanh.
        nonzeros: weights into every unit, from units chosen without replacement; all H where there are fewer.

    Returns:
        An initialiser of kernels [H, n*H]; a unit's incoming weights are a column of its block.

    Raises:
        ValueError: nonzeros < 1.
    """
    if nonzeros < 1:
        raise ValueError(f"nonzeros must be >= 1, got {nonzeros}")

    def draw(key: Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> Array:
        for_weights, for_places = jax.random.split(key)
        places = jnp.argsort(jax.random.uniform(for_places, shape), axis=0)  # every column a random permutation
        return _with_unit_radius(jnp.where(places < nonzeros, jax.random.normal(for_weights, shape, dtype), 0))

    return _blockwise(draw, gain)


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
    return _blockwise(lambda key, shape, dtype: jnp.eye(_width(shape), dtype=dtype), gain)


def positive_definite(gain: float | Array = 1.0) -> Initializer:
    r"""Normalised positive definite blocks, np-RNN (Talathi and Vartak 2016).

    .. math:: W = \frac{A + I}{\lambda_{\max}(A + I)}, \qquad A = \frac{1}{H} R^\top R, \quad R_{ij} \sim N(0, 1)

    The eigenvalues spread over (about 1/5, 1] at large H: one direction is kept and the others fade.

    Args:
        gain: the largest eigenvalue of every block; 1 in the paper.

    Returns:
        An initialiser of kernels [H, n*H].
    """

    def draw(key: Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike) -> Array:
        width = _width(shape)
        drawn = jax.random.normal(key, shape, dtype)
        shifted = jnp.matmul(drawn.T, drawn, precision="highest") / width + jnp.eye(width, dtype=dtype)
        return shifted / jnp.linalg.eigvalsh(shifted)[-1]

    return _blockwise(draw, gain)


def glorot(gain: float | Array = 1.0) -> Initializer:
    """Uniform entries of variance 2 / (fan in + fan out) in each block, times gain (Glorot and Bengio 2010).

    Args:
        gain: factor on the standard deviation.

    Returns:
        An initialiser of kernels [H, n*H].
    """
    return _blockwise(jax.nn.initializers.glorot_uniform(), gain)


RECURRENT_INITIALIZERS: dict[str, Callable[[float | Array], Initializer]] = {
    initializer.__name__: initializer
    for initializer in (gaussian, he, ginibre, sparse, orthogonal, identity, positive_definite, glorot)
}
"""The initialisers of recurrent kernels that experiments choose by name; each takes a gain."""


def spectral_radius(matrix: Array) -> Array:
    r"""Return max|eig| of a matrix [H, H], to rounding, by matmuls alone: Gelfand's formula with repeated squaring.

    .. math:: \rho = \lim_{k \to \infty} \|W^{2^k}\|^{2^{-k}}

    JAX has the eigenvalues of a matrix that is not symmetric on few devices; on CPUs this is as exact and at H = 1000
    twenty times as fast. The logarithm's error falls like 2^-k, however close together eigenvalues lie, so as many
    squarings as the dtype has bits are enough.
    """

    def square(_: Any, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        log_radius, share, power = so_far
        norm = jnp.linalg.norm(power)
        unit = power / jnp.where(norm > 0, norm, 1)  # a nilpotent matrix has the radius 0
        return log_radius + share * jnp.log(norm), share / 2, jnp.matmul(unit, unit, precision="highest")

    start = (jnp.zeros((), matrix.dtype), jnp.ones((), matrix.dtype), matrix)
    return jnp.exp(jax.lax.fori_loop(0, jnp.finfo(matrix.dtype).bits, square, start)[0])


def _with_unit_radius(matrix: Array) -> Array:
    _width(matrix.shape)
    return matrix / spectral_radius(matrix)


def _width(shape: tuple[int, ...]) -> int:
    """Return H of a block that must be [H, H]; any other is a kernel whose gates do not lie side by side.

    Raises:
        ValueError: a block that is not square.
    """
    if shape[0] != shape[1]:
        raise ValueError(f"shape must be [H, n*H] for this initialiser, of square blocks side by side, got {shape}")
    return shape[0]


def _blockwise(draw: Callable[..., Array], gain: float | Array) -> Initializer:
    """Draw each block in at least single precision, which is the least that matrix decompositions know."""

    def init(key: Array, shape: tuple[int, int], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
        rows, columns = shape
        blocks = columns // rows if columns % rows == 0 else 1
        block_shape = (rows, columns // blocks)
        precise = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32
        drawn = [draw(block_key, block_shape, precise) for block_key in jax.random.split(key, blocks)]
        return (jnp.asarray(gain, precise) * jnp.concatenate(drawn, axis=-1)).astype(dtype)

    return init
