"""Frames of tangent vectors, orthonormalised, with rounding told apart from size.

A frame holds its K vectors as rows, [K, N]: each lies in one piece of memory, as LAPACK takes columns, so that neither
the linearised step nor the QR has to transpose anything.
"""

import jax.numpy as jnp
from jax import Array


def factor(tangents: Array) -> tuple[Array, Array]:
    """Factor tangents by a Householder QR.

    Args:
        tangents: [K, N], tangent vectors as rows.

    Returns:
        Orthonormal frame [K, N] and upper triangular R [K, K]: tangents.T = frame.T @ R.
    """
    columns, triangle = jnp.linalg.qr(tangents.T)
    return columns.T, triangle


def lost_in_rounding(tangents: Array, diagonal: Array) -> Array:
    """Tell which diagonal entries of R carry no digit: those below K u times the length of their tangent.

    Such a tangent lies in the span of those before it, up to rounding (u is the unit roundoff): the Jacobian is
    singular, as with relu units at rest, or too many steps were made since the last orthonormalisation. Without this,
    float64's rounding would pass for a growth of -36 nats.

    Args:
        tangents: [K, N], as they were factored.
        diagonal: |R_ii|, [K].

    Returns:
        [K], true where the entry is rounding.
    """
    lengths = jnp.linalg.norm(tangents, axis=1)
    return diagonal <= len(diagonal) * jnp.finfo(tangents.dtype).eps * lengths


def orthonormalise(tangents: Array) -> tuple[Array, Array]:
    """Factor tangents, with diagonal entries that are rounding set to 0.

    Args:
        tangents: [K, N], tangent vectors as rows.

    Returns:
        Orthonormal frame [K, N] and upper triangular R [K, K] with a diagonal >= 0, which makes the pair unique.
    """
    frame, triangle = factor(tangents)
    signs = jnp.where(jnp.diagonal(triangle) < 0, -1, 1).astype(triangle.dtype)
    frame, triangle = frame * signs[:, None], triangle * signs[:, None]
    rounding = lost_in_rounding(tangents, jnp.diagonal(triangle))
    return frame, jnp.where(jnp.diag(rounding), 0.0, triangle)
