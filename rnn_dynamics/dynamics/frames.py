"""Frames of tangent vectors, orthonormalised, with rounding told apart from size.

A frame holds its K vectors as rows, [K, N]: each lies in one piece of memory, as LAPACK takes columns, so that neither
the linearised step nor the QR has to transpose anything.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


def factor(tangents: Array) -> tuple[Array, Array]:
    """Factor tangents by a Householder QR.

    Args:
        tangents: [K, N], tangent vectors as rows.

    Returns:
        Orthonormal frame [K, N] and upper triangular R [K, K]: tangents.T = frame.T @ R.
    """
    columns, triangle = jnp.linalg.qr(tangents.T)
    return columns.T, triangle


def lost_in_rounding(triangle: Array) -> Array:
    """Tell which diagonal entries of R carry no digit: those below K u times the length of their column.

    The columns of R are as long as the tangents that were factored. One with such an entry lies in the span of those
    before it, up to rounding (u is the unit roundoff): the Jacobian is singular, as with relu units at rest, or worse
    conditioned than the arithmetic can tell. Without this, float64's rounding would pass for a growth of -36 nats.

    Args:
        triangle: R [K, K].

    Returns:
        [K], true where the entry is rounding.
    """
    lengths = jnp.linalg.norm(triangle, axis=0)
    return jnp.abs(jnp.diagonal(triangle)) <= len(triangle) * jnp.finfo(triangle.dtype).eps * lengths


def growth_of_lost(dtype: DTypeLike) -> float:
    """Return the log growth of a direction that one step lost in rounding: -inf in float64, NaN in float32.

    Float64 resolves about 30 nats in one step, and what falls below is nothing. Float32 resolves about 13, and a
    saturated but regular Jacobian can fall below that: there it is not known.
    """
    return -float("inf") if jnp.finfo(dtype).bits >= 64 else float("nan")


def orthonormalise(tangents: Array) -> tuple[Array, Array]:
    """Factor tangents, with diagonal entries that are rounding set to 0.

    Args:
        tangents: [K, N], tangent vectors as rows.

    Returns:
        Orthonormal frame [K, N] and upper triangular R [K, K] with a diagonal >= 0, which makes the pair unique.
    """
    frame, triangle = factor(tangents)
    signs = jnp.where(jnp.diagonal(triangle) < 0, -1, 1).astype(triangle.dtype)
    lost = lost_in_rounding(triangle)
    return frame * signs[:, None], jnp.where(jnp.diag(lost), 0.0, triangle * signs[:, None])
