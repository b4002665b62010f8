"""Lengths of gradients and angles between them, of any size: nothing is squared that could overflow or vanish."""

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.types import PyTree


def euclidean_norm(entries: Array, axis: int | tuple[int, ...] | None = None) -> Array:
    """Return the Euclidean norm over some axes, which stay as axes of length 1, or over all entries.

    The largest entry is taken out first, so that squares neither overflow nor vanish: what explodes to 1e25 is still
    seen, and clipped, in float32. Infinite where an entry is, NaN where one is.

    Args:
        entries: any shape, real or complex.
        axis: those to sum over; None for all of them.

    Returns:
        Norms in float32 at least: [] for all axes, else the shape of the entries with ones.
    """
    keep = axis is not None
    sizes = jnp.abs(entries)
    sizes = sizes.astype(jnp.promote_types(sizes.dtype, jnp.float32))
    largest = jnp.max(sizes, axis=axis, keepdims=True, initial=0)
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), _invertible(largest), 1)
    norm = scale * jnp.sqrt(jnp.sum((sizes / scale) ** 2, axis=axis, keepdims=True))
    return norm if keep else norm.reshape(())


def global_norm(tree: PyTree) -> Array:
    """Return the Euclidean norm over all entries of all leaves together, in float32 at least; see `euclidean_norm`."""
    norms = [euclidean_norm(leaf) for leaf in jax.tree.leaves(tree)]
    return euclidean_norm(jnp.stack(norms)) if norms else jnp.zeros(())


def with_norm(entries: Array, norm: Array, length: float | Array) -> Array:
    """Bring entries of a norm > 0 to the norm `length`, whatever the ratio: 1e30 to 1e-9 in float32.

    Args:
        entries: any shape.
        norm: theirs, of a shape that broadcasts with it.
        length: the norm that they shall have.

    Returns:
        The entries, in their dtype.
    """
    scale = _invertible(norm)
    rest = jnp.asarray(length).astype(norm.dtype) / (norm / scale)
    wide = jnp.promote_types(entries.dtype, norm.dtype)  # a half's own range may not reach the norm
    return (entries.astype(wide) / scale.astype(wide) * rest.astype(wide)).astype(entries.dtype)


def _invertible(size: Array) -> Array:
    """Move a size > 0 to where its inverse is a normal number too: XLA multiplies by it instead of dividing."""
    limits = jnp.finfo(size.dtype)
    return jnp.clip(size, 8 * limits.tiny, limits.max / 8)


def shortened(entries: Array, norm: Array, limit: float | Array) -> Array:
    """Return entries with the norm min(norm, limit); those within the limit, or of no finite norm, just as they came.

    Args:
        entries: any shape.
        norm: theirs, of a shape that broadcasts with it.
        limit: > 0.

    Returns:
        The entries, in their dtype.
    """
    limit = jnp.asarray(limit).astype(norm.dtype)
    longer = (norm > limit) & jnp.isfinite(norm)
    cut = with_norm(entries, jnp.where(longer, norm, 1), jnp.where(longer, limit, 1))
    return jnp.where(longer, cut, entries)


def log_ratio(after: Array, before: Array) -> Array:
    """Return ln(after / before) of positive numbers, also where the ratio underflows.

    Args:
        after: >= 0.
        before: > 0.

    Returns:
        Nats.
    """
    ratio = after / before
    representable = ratio >= jnp.finfo(ratio.dtype).tiny
    return jnp.where(representable, jnp.log(jnp.where(representable, ratio, 1)), jnp.log(after) - jnp.log(before))


def angle_between(first: PyTree, second: PyTree) -> Array:
    r"""Return the angle between two gradients, as vectors of all entries of all leaves.

    .. math:: 2 \arctan \frac{\|u - v\|}{\|u + v\|}, \qquad u = \frac{a}{\|a\|}, \quad v = \frac{b}{\|b\|}

    (Kahan, "How futile are mindless assessments of roundoff in floating-point computation?", 2006): right to rounding
    for small angles and for those near pi too, where the arc cosine of the inner product loses half of the digits.

    Args:
        first: any pytree, not all zeros.
        second: one of the same structure and shapes.

    Returns:
        Radians, 0 ... pi.
    """
    one, other = _unit_vector(first), _unit_vector(second)
    difference, total = (global_norm(jax.tree.map(combine, one, other)) for combine in (jnp.subtract, jnp.add))
    return 2 * jnp.arctan2(difference, total)


def _unit_vector(tree: PyTree) -> PyTree:
    norm = global_norm(tree)
    return jax.tree.map(lambda leaf: with_norm(leaf, norm, 1.0), tree)
