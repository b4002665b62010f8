"""Frames of tangent vectors, orthonormalised, with rounding told apart from size.

A frame holds its K vectors as rows, [K, N]: each lies in one piece of memory, as LAPACK takes columns, so that neither
the linearised step nor the QR has to transpose anything.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

LOSS_OF_ORTHOGONALITY = 1e-2
"""|Q^T Q - 1| that a fast QR may leave. It harms nothing: Z = Q R holds to rounding all the same, so whatever Q lacks
is in the next R, and the errors do not add up."""

PANELS = 4
NARROWEST_PANEL, WIDEST_PANEL = 16, 32
"""Vectors that are orthogonalised together: a quarter of them, within these bounds. Fewer resolve more of the spread,
more are faster."""


class Reframed(NamedTuple):
    """Tangents, factored.

    Attributes:
        frame: [..., K, N], orthonormal rows up to `LOSS_OF_ORTHOGONALITY`.
        log_growth: [..., K], ln R_ii, nats; -inf for a direction lost in rounding.
        spread: [...], nats: the largest ln(length of a tangent / R_ii), the logarithm of a condition number. What the
            arithmetic resolves is ln(1/u): 36 nats in float64, 16 in float32.
    """

    frame: Array
    log_growth: Array
    spread: Array


@jax.custom_jvp
def reframe(tangents: Array, expected_spread: Array) -> Reframed:
    """Factor tangents as R^T Q, by the cheapest way that is safe.

    The fast way is a modified Gram-Schmidt of panels, each factored by Cholesky, once or twice (Stathopoulos and Wu,
    SIAM J. Sci. Comput. 23, 2002): nearly all matmuls, and two to three times faster than LAPACK's Householder QR. Its
    loss of orthogonality grows with the spread: like its exponential, and where panels are factored once like the
    square of that. It is measured; Householder is for what the fast way cannot factor, and is what derivatives are
    taken of.

    Args:
        tangents: [K, N], tangent vectors as rows.
        expected_spread: the spread of the tangents before these. It only decides what is tried first.

    Returns:
        Frame, log growth and spread; R has a diagonal >= 0.
    """
    return _cheapest(tangents, expected_spread)


@reframe.defjvp
def _differentiate(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Reframed, Reframed]:
    return jax.jvp(_by_scaled_householder, primals[:1], tangents[:1])


@jax.custom_batching.custom_vmap
def _cheapest(tangents: Array, expected_spread: Array) -> Reframed:
    log_lengths = _log_lengths(tangents)
    ordinary = jnp.all(jnp.isfinite(log_lengths))

    def slowly() -> Reframed:
        return jax.lax.cond(
            ordinary, lambda: _by_householder(tangents, log_lengths), lambda: _by_scaled_householder(tangents)
        )

    def fast(passes: int) -> Reframed:
        frame, log_growth, loss = _by_panels(tangents, passes)
        spread = jnp.max(log_lengths - log_growth, axis=-1)
        # Two passes make a proper frame even of a direction that was lost; its spread tells.
        good = (loss <= LOSS_OF_ORTHOGONALITY) & (spread <= resolved_spread(tangents.dtype))
        return jax.lax.cond(jnp.all(good), lambda: Reframed(frame, log_growth, spread), slowly)

    one_will_do, two_will_do = (jnp.all(expected_spread <= limit) & ordinary for limit in _limits(tangents.dtype))
    way = jnp.where(one_will_do, 0, jnp.where(two_will_do, 1, 2))
    return jax.lax.switch(way, [partial(fast, 1), partial(fast, 2), slowly])


@_cheapest.def_vmap
def _cheapest_of_many(
    size: int, batched: list[bool], tangents: Array, expected_spread: Array
) -> tuple[Reframed, Reframed]:
    """Decide once for the whole ensemble: under a plain vmap, a branch per member means computing all for all."""
    arrays = [
        array if mapped else jnp.broadcast_to(array, (size, *array.shape))
        for array, mapped in zip((tangents, expected_spread), batched, strict=True)
    ]
    return _cheapest(*arrays), Reframed(*(True,) * 3)  # pyright: ignore[reportArgumentType]


def fast_spread(dtype: DTypeLike) -> float:
    """Return the spread, in nats, up to which the fast way is worth trying: 24 in float64, 8 in float32."""
    return _limits(dtype)[1]


def _limits(dtype: DTypeLike) -> tuple[float, float]:
    """Return the spreads up to which the fast way is worth trying with one pass, and with two: 13 and 24 in float64."""
    resolution = -float(np.log(jnp.finfo(dtype).eps))
    return 0.36 * resolution, min(0.67 * resolution, resolved_spread(dtype))


def resolved_spread(dtype: DTypeLike) -> float:
    """Return the spread, in nats, that leaves 30 % of the digits to every direction: 25 in float64, 8 in float32.

    It is also far from where rounding passes for size: 8 nats, which are K u with K of some thousands.
    """
    resolution = -float(np.log(jnp.finfo(dtype).eps))
    return min(0.7 * resolution, resolution - 8)


def _by_panels(tangents: Array, passes: int) -> tuple[Array, Array, Array]:
    """Orthogonalise panel by panel, and take each out of all that follow: frame, log growth, loss of orthogonality."""
    vectors = tangents.shape[-2]
    width = min(max(-(-vectors // PANELS), NARROWEST_PANEL), WIDEST_PANEL)
    panels, log_growths = [], []
    rest, spread = tangents, jnp.zeros(())
    while rest.shape[-2]:
        panel, rest = rest[..., :width, :], rest[..., width:, :]
        log_growth = jnp.zeros((), tangents.dtype)
        for _ in range(passes):
            panel, more, spread = _by_cholesky(panel)
            log_growth = log_growth + more
        if rest.shape[-2]:
            rest = rest - _matmul(_matmul(rest, jnp.matrix_transpose(panel)), panel)
        panels.append(panel)
        log_growths.append(log_growth)
    frame, log_growth = jnp.concatenate(panels, axis=-2), jnp.concatenate(log_growths, axis=-1)
    if vectors <= width and passes == 1:
        # Bounds of the loss by the spread are met up to a factor of 30 on chaotic networks, so one of 100 is left.
        return frame, log_growth, 100 * vectors * jnp.finfo(tangents.dtype).eps * jnp.exp(2 * spread)
    return frame, log_growth, _loss_of_orthogonality(frame)


def _by_cholesky(panel: Array) -> tuple[Array, Array, Array]:
    """Factor a panel by the Cholesky factor of its Gram matrix: frame, log growth and spread."""
    gram = _matmul(panel, jnp.matrix_transpose(panel))
    lower = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
    log_growth = jnp.log(_diagonal(lower))
    spread = jnp.max(0.5 * jnp.log(_diagonal(gram)) - log_growth, axis=-1)
    return jax.lax.linalg.triangular_solve(lower, panel, left_side=True, lower=True), log_growth, spread


def _log_lengths(tangents: Array) -> Array:
    # A matmul, as XLA's sums over rows are not vectorised on CPUs.
    return 0.5 * jnp.log(_matmul(tangents**2, jnp.ones(tangents.shape[-1], tangents.dtype)))


def _loss_of_orthogonality(frame: Array) -> Array:
    """Estimate the Frobenius norm of Q^T Q - 1 by Hutchinson's probes, signs drawn once and for all."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (2, frame.shape[-2]))
    probes = jnp.broadcast_to(jnp.asarray(signs, frame.dtype), (*frame.shape[:-2], *signs.shape))
    lost = _matmul(_matmul(probes, frame), jnp.matrix_transpose(frame)) - probes
    return jnp.sqrt(jnp.max(jnp.sum(lost**2, axis=-1), axis=-1))


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _by_householder(tangents: Array, log_lengths: Array) -> Reframed:
    frame, triangle = householder(tangents)
    diagonal = _diagonal(triangle)
    rounding = triangle.shape[-1] * jnp.finfo(triangle.dtype).eps  # as `lost_in_rounding`
    lost = jax.lax.stop_gradient(diagonal) <= rounding * jnp.exp(log_lengths)
    log_growth = jnp.where(lost, -jnp.inf, jnp.log(jnp.where(lost, 1.0, diagonal)))
    spreads = jnp.where(lost, jnp.inf, log_lengths - jax.lax.stop_gradient(log_growth))
    return Reframed(frame, log_growth, jnp.max(spreads, axis=-1))


def _by_scaled_householder(tangents: Array) -> Reframed:
    """Factor tangents whose squares may over- or underflow, or that are 0; their frame does not know their lengths."""
    sizes = jax.lax.stop_gradient(jnp.max(jnp.abs(tangents), axis=-1))
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    scaled = tangents / sizes[..., None]
    reframed = _by_householder(scaled, jax.lax.stop_gradient(_log_lengths(scaled)))
    return reframed._replace(log_growth=reframed.log_growth + jnp.log(sizes))


@jax.custom_jvp
def householder(tangents: Array) -> tuple[Array, Array]:
    """Factor tangents by a Householder QR.

    Where R has entries on its diagonal that are rounding, the derivative holds the directions that they belong to as
    they are: what is left of those says nothing of the tangents.

    Args:
        tangents: [..., K, N], tangent vectors as rows.

    Returns:
        Orthonormal frame [..., K, N] and upper triangular R [..., K, K] with a diagonal >= 0, which makes the pair
        unique: tangents^T = frame^T R.
    """
    columns, triangle = jnp.linalg.qr(jnp.matrix_transpose(tangents))
    signs = jnp.where(_diagonal(triangle) < 0, -1, 1).astype(triangle.dtype)[..., :, None]
    return jnp.matrix_transpose(columns) * signs, triangle * signs


@householder.defjvp
def _householder_tangent(primals: tuple[Array], dots: tuple[Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Differentiate Z^T = Q R: with X = dZ^T R^-1 and M = Q^T X, dQ = Q O + X - Q M and dR = (M - O) R.

    O = tril(M) - tril(M)^T, below the diagonal, is the rotation within the frame.
    """
    frame, triangle = householder(*primals)
    lost = lost_in_rounding(triangle)
    identity = jnp.broadcast_to(jnp.eye(lost.shape[-1], dtype=triangle.dtype), triangle.shape)
    regular = jnp.where(lost[..., :, None], identity, triangle)
    solved = jax.lax.linalg.triangular_solve(regular, jnp.matrix_transpose(dots[0]), left_side=False, lower=False)
    solved = jnp.where(lost[..., None, :], 0, solved)
    within = _matmul(frame, solved)
    below = jnp.tril(within, -1)
    rotation = below - jnp.matrix_transpose(below)
    columns_dot = solved + _matmul(jnp.matrix_transpose(frame), rotation - within)
    return (frame, triangle), (jnp.matrix_transpose(columns_dot), _matmul(within - rotation, triangle))


def lost_in_rounding(triangle: Array) -> Array:
    """Tell which diagonal entries of R carry no digit: those below K u times the length of their column.

    The columns of R are as long as the tangents that were factored. One with such an entry lies in the span of those
    before it, up to rounding (u is the unit roundoff): the Jacobian is singular, as with relu units at rest, or worse
    conditioned than the arithmetic can tell. Without this, float64's rounding would pass for a growth of -36 nats.

    Args:
        triangle: R [..., K, K].

    Returns:
        [..., K], true where the entry is rounding.
    """
    lengths = jnp.linalg.norm(triangle, axis=-2)
    return jnp.abs(_diagonal(triangle)) <= triangle.shape[-1] * jnp.finfo(triangle.dtype).eps * lengths


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
        Orthonormal frame [K, N] and upper triangular R [K, K] with a diagonal >= 0.
    """
    frame, triangle = householder(tangents)
    return frame, jnp.where(jnp.diag(lost_in_rounding(triangle)), 0.0, triangle)


def _diagonal(matrix: Array) -> Array:
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)
