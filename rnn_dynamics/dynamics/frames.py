"""Orthonormal frames of tangent vectors."""

import jax.numpy as jnp
from jax import Array


def orthonormalise(tangents: Array) -> tuple[Array, Array]:
    """Factor a frame by a Householder QR, with rounding told apart from size.

    A diagonal entry of R below K u times the norm of its column, u the unit roundoff, carries no digit: the column lies
    in the span of those before it, as behind a rank-deficient Jacobian (relu units at rest). It is set to 0, so that
    its logarithm says -inf and not the -36 nats of float64's rounding.

    Args:
        tangents: [N, K].

    Returns:
        Orthonormal frame Q [N, K] and upper triangular R [K, K] with a diagonal >= 0, which makes the pair unique.
    """
    frame, triangle = jnp.linalg.qr(tangents)
    signs = jnp.where(jnp.diagonal(triangle) < 0, -1, 1).astype(triangle.dtype)
    frame, triangle = frame * signs[None, :], triangle * signs[:, None]
    diagonal = jnp.diagonal(triangle)
    lengths = jnp.linalg.norm(triangle, axis=0)  # those of the columns of `tangents`
    rounding = diagonal <= triangle.shape[0] * jnp.finfo(triangle.dtype).eps * lengths
    return frame, jnp.where(jnp.diag(rounding), 0.0, triangle)
