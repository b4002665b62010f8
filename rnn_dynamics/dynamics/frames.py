"""Frames of tangent vectors, orthonormalised, with rounding told apart from size.

A frame holds its K vectors as rows, [K, N]: each lies in one piece of memory, as LAPACK takes columns, so that neither
the linearised step nor the QR has to transpose anything.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

LOSS_OF_ORTHOGONALITY = 1e-2
"""|Q^T Q - 1| that a fast QR may leave. It harms nothing: Z = Q R holds to rounding all the same, so whatever Q lacks
is in the next R, and the errors do not add up."""

PASSES = 2
"""Of the fast way, at most: the second mends a loss of orthogonality that is not yet 1, at a third of Householder's
cost."""

PANELS = 4
NARROWEST_PANEL = 16
"""Vectors that are orthogonalised together. Fewer vectors resolve more of the spread, more are faster."""


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
    """Factor tangents as R^T Q, by the cheapest of two ways that is safe.

    The fast way is a Gram-Schmidt of panels, each factored by Cholesky (Stathopoulos and Wu, SIAM J. Sci. Comput. 23,
    2002): nearly all matmuls, and two to three times faster than LAPACK's Householder QR. Its loss of orthogonality
    grows with the spread, and is measured; Householder is for what the fast way cannot factor, and is what derivatives
    are taken of.

    Args:
        tangents: [K, N], tangent vectors as rows.
        expected_spread: the spread of the tangents before these. It only decides what is tried first.

    Returns:
        Frame, log growth and spread; R has a diagonal >= 0.
    """
    return _cheapest(tangents, expected_spread)


@reframe.defjvp
def _differentiate(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Reframed, Reframed]:
    return jax.jvp(_by_householder, primals[:1], tangents[:1])


@jax.custom_batching.custom_vmap
def _cheapest(tangents: Array, expected_spread: Array) -> Reframed:
    log_lengths = _log_lengths(tangents)
    limit = resolved_spread(tangents.dtype)

    def unfinished(done: _Panelled) -> Array:
        worth_mending = jnp.all(done.loss <= 1) & jnp.any(done.loss > LOSS_OF_ORTHOGONALITY)
        return worth_mending & (done.passes < PASSES)

    def again(done: _Panelled) -> _Panelled:
        frame, log_growth, loss = _by_panels(done.frame)
        return _Panelled(frame, done.log_growth + log_growth, loss, done.passes + 1)

    nothing = jnp.zeros_like(log_lengths)
    hopeful = jnp.all(expected_spread <= fast_spread(tangents.dtype)) & jnp.all(jnp.isfinite(log_lengths))
    first = _Panelled(tangents, nothing, jnp.where(hopeful, 1, jnp.inf) + nothing[..., 0], jnp.int32(0))
    done = jax.lax.while_loop(unfinished, again, first)

    spread = jnp.max(log_lengths - done.log_growth, axis=-1)
    # A second pass makes a proper frame even of a direction that was lost; its spread tells.
    good = jnp.all((done.loss <= LOSS_OF_ORTHOGONALITY) & (spread <= limit))
    fast = Reframed(done.frame, done.log_growth, spread)
    return jax.lax.cond(good, lambda: fast, lambda: _by_householder(tangents))


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
    """Return the spread, in nats, up to which the fast way is worth trying: 20 in float64, 8 in float32."""
    return min(-0.55 * float(np.log(jnp.finfo(dtype).eps)), resolved_spread(dtype))


def resolved_spread(dtype: DTypeLike) -> float:
    """Return the spread, in nats, that leaves 30 % of the digits to every direction: 25 in float64, 8 in float32.

    It is also far from where rounding passes for size: 8 nats, which are K u with K of some thousands.
    """
    resolution = -float(np.log(jnp.finfo(dtype).eps))
    return min(0.7 * resolution, resolution - 8)


class _Panelled(NamedTuple):
    """A frame [..., K, N] after some passes of the fast way, its log growth [..., K] and what it lacks, [...]."""

    frame: Array
    log_growth: Array
    loss: Array
    passes: Array


def _by_panels(tangents: Array) -> tuple[Array, Array, Array]:
    """Orthogonalise panel by panel, against those before and then within: frame, log growth, loss of orthogonality."""
    vectors = tangents.shape[-2]
    width = max(NARROWEST_PANEL, -(-vectors // PANELS))
    frame = tangents[..., :0, :]
    log_growths, spread = [], jnp.zeros(())
    for panel in jnp.split(tangents, np.arange(width, vectors, width), axis=-2):
        if frame.shape[-2]:
            panel = panel - _matmul(_matmul(panel, jnp.matrix_transpose(frame)), frame)
        gram = _matmul(panel, jnp.matrix_transpose(panel))
        lower = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
        panel = jax.lax.linalg.triangular_solve(lower, panel, left_side=True, lower=True)
        log_growths.append(jnp.log(_diagonal(lower)))
        frame = jnp.concatenate([frame, panel], axis=-2) if frame.shape[-2] else panel
        spread = jnp.max(0.5 * jnp.log(_diagonal(gram)) - log_growths[-1], axis=-1)
    if vectors <= width:
        # Bounds of the loss by the spread are met up to a factor of 30 on chaotic networks, so one of 100 is left.
        loss = 100 * vectors * jnp.finfo(tangents.dtype).eps * jnp.exp(2 * spread)
    else:
        loss = _loss_of_orthogonality(frame)
    return frame, jnp.concatenate(log_growths, axis=-1), loss


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


def _by_householder(tangents: Array) -> Reframed:
    # The frame does not know the lengths of the tangents, and their squares neither over- nor underflow without them.
    sizes = jax.lax.stop_gradient(jnp.max(jnp.abs(tangents), axis=-1))
    sizes = jnp.where(sizes > 0, sizes, 1.0)
    frame, triangle = householder(tangents / sizes[..., None])
    diagonal = _diagonal(triangle)
    passive = jax.lax.stop_gradient(triangle)
    lost = lost_in_rounding(passive)
    log_growth = jnp.where(lost, -jnp.inf, jnp.log(jnp.where(lost, 1.0, diagonal)))
    spreads = jnp.log(jnp.linalg.norm(passive, axis=-2)) - jax.lax.stop_gradient(log_growth)
    return Reframed(frame, log_growth + jnp.log(sizes), jnp.max(jnp.where(lost, jnp.inf, spreads), axis=-1))


def householder(tangents: Array) -> tuple[Array, Array]:
    """Factor tangents by a Householder QR.

    Args:
        tangents: [..., K, N], tangent vectors as rows.

    Returns:
        Orthonormal frame [..., K, N] and upper triangular R [..., K, K] with a diagonal >= 0, which makes the pair
        unique: tangents^T = frame^T R.
    """
    columns, triangle = jnp.linalg.qr(jnp.matrix_transpose(tangents))
    signs = jnp.where(_diagonal(triangle) < 0, -1, 1).astype(triangle.dtype)[..., :, None]
    return jnp.matrix_transpose(columns) * signs, triangle * signs


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
