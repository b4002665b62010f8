"""Products of matrices whose singular values span thousands of nats: arithmetic with the sizes kept as logarithms.

A product is held as P = Q diag(exp(log_scale)) U, Q orthogonal and U unit upper triangular, so that no number in it is
ever large or small. Starting from a Haar-distributed Q makes U well conditioned and the scales graded with
overwhelming probability (randomised rank-revealing factorisation: Demmel, Dumitriu and Holtz, Numer. Math. 108, 2007;
of products: Ballard, Demmel, Dumitriu and Rusciano, arXiv 1909.06524), and leaves the singular values as they are.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

MAX_SWEEPS = 40
"""Jacobi sweeps at most; fewer than ten are usual."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradedTriangle:
    """The triangular part of a product, R = diag(exp(log_scale)) U.

    Attributes:
        log_scale: [N], nats; -inf for a direction that was mapped to exactly nothing.
        unit_upper: U [N, N], ones on the diagonal.
    """

    log_scale: Array
    unit_upper: Array

    @classmethod
    def identity(cls, size: int, dtype: jax.typing.DTypeLike) -> "GradedTriangle":
        """Return the empty product."""
        return cls(jnp.zeros(size, dtype), jnp.eye(size, dtype=dtype))

    def multiplied_by(self, triangle: Array) -> "GradedTriangle":
        """Multiply from the left by an upper triangular matrix [N, N] of ordinary numbers with a diagonal >= 0."""
        diagonal = jnp.diagonal(triangle)
        was_alive = self.log_scale > -jnp.inf
        alive = was_alive & (diagonal > 0)
        scale = jnp.where(was_alive, self.log_scale, 0.0)
        # D^-1 (triangle / diagonal) D. A direction that dies in this factor still feeds the rows above it, for what it
        # held until now is part of the product; one that was dead before feeds nobody.
        ratio = jnp.exp(jnp.triu(scale[None, :] - scale[:, None], 1))
        rows = jnp.triu(triangle, 1) / jnp.where(alive, diagonal, 1.0)[:, None]
        strict = jnp.where(alive[:, None] & was_alive[None, :], rows * ratio, 0.0)
        return GradedTriangle(
            jnp.where(alive, self.log_scale + jnp.log(jnp.where(alive, diagonal, 1.0)), -jnp.inf),
            self.unit_upper + strict @ self.unit_upper,
        )

    @property
    def log_determinant(self) -> Array:
        """ln|det R|, nats."""
        return jnp.sum(self.log_scale)

    def singular_values(self) -> "GradedSingularValues":
        """Decompose, with values as accurate as the factors are.

        One-sided Jacobi on the rows (Demmel and Veselic, SIAM J. Matrix Anal. Appl. 13, 1992), with each row held as
        a unit vector and the logarithm of its length; a sweep rotates N/2 disjoint pairs at a time.
        """
        size = self.log_scale.shape[0]
        padding = size % 2
        rows = jnp.pad(self.unit_upper, ((0, padding), (0, 0)))
        log_lengths = jnp.pad(self.log_scale, (0, padding), constant_values=-jnp.inf)
        rows, log_lengths = _renormalise(rows, log_lengths)
        rounds = jnp.asarray(_round_robin(size + padding))
        tolerance = size * jnp.finfo(rows.dtype).eps
        first = _Rotated(rows, log_lengths, jnp.eye(size + padding, dtype=rows.dtype))

        def sweep(carry: tuple[_Rotated, Array, Array]) -> tuple[_Rotated, Array, Array]:
            rotated, cosines = jax.lax.scan(_rotate_pairs, carry[0], rounds)
            return rotated, jnp.max(cosines), carry[2] + 1

        def unfinished(carry: tuple[_Rotated, Array, Array]) -> Array:
            return (carry[1] > tolerance) & (carry[2] < MAX_SWEEPS)

        largest = jnp.array(jnp.inf, rows.dtype)
        rotated, _, _ = jax.lax.while_loop(unfinished, sweep, (first, largest, jnp.int32(0)))
        # The padding is the only row that no rotation moves, so it is told from a row that died by its place.
        order = jnp.argsort(-rotated.log_lengths[:size], stable=True)
        return GradedSingularValues(rotated.log_lengths[order], rotated.rotations[order, :size], rotated.rows[order])


class GradedSingularValues(NamedTuple):
    """R = sum_i exp(log_values_i) left_i^T right_i.

    Attributes:
        log_values: [N], nats, largest first.
        left: [N, N], singular vectors as rows.
        right: [N, N], singular vectors as rows; zeros where the value is exactly 0.
    """

    log_values: Array
    left: Array
    right: Array


class _Rotated(NamedTuple):
    """Rows as unit vectors and log lengths, and the rotations that made them: rotations @ R = exp(log lengths) rows."""

    rows: Array
    log_lengths: Array
    rotations: Array


def _rotate_pairs(carry: _Rotated, pairs: Array) -> tuple[_Rotated, Array]:
    """Make the rows of each pair orthogonal: pairs [N/2, 2] -> rotated, |cosine| before, [N/2]."""
    rows, log_lengths, rotations = carry
    first, second = pairs[:, 0], pairs[:, 1]
    swap = log_lengths[first] < log_lengths[second]
    long, short = jnp.where(swap, second, first), jnp.where(swap, first, second)
    a, b = rows[long], rows[short]
    cosine = jnp.sum(a * b, axis=1)
    difference = log_lengths[short] - log_lengths[long]
    ratio = jnp.where(log_lengths[short] == -jnp.inf, 0.0, jnp.exp(difference))
    # tan(angle)/ratio, written so that it stays finite when ratio underflows.
    gap = (1 - ratio) * (1 + ratio)
    root = gap + jnp.sqrt(gap**2 + (2 * cosine * ratio) ** 2)
    slope = jnp.where(root > 0, -2 * cosine / jnp.where(root > 0, root, 1.0), 0.0)
    tangent = slope * ratio
    scale = jax.lax.rsqrt(1 + tangent**2)[:, None]
    a, b = scale * (a - (tangent * ratio)[:, None] * b), scale * (b + slope[:, None] * a)
    a, log_a = _renormalise(a, log_lengths[long])
    b, log_b = _renormalise(b, log_lengths[short])
    of_long, of_short = rotations[long], rotations[short]
    turned_long = scale * (of_long - tangent[:, None] * of_short)
    turned_short = scale * (of_short + tangent[:, None] * of_long)
    rotated = _Rotated(
        rows.at[long].set(a).at[short].set(b),
        log_lengths.at[long].set(log_a).at[short].set(log_b),
        rotations.at[long].set(turned_long).at[short].set(turned_short),
    )
    return rotated, jnp.abs(cosine)


def _renormalise(rows: Array, log_lengths: Array) -> tuple[Array, Array]:
    lengths = jnp.linalg.norm(rows, axis=1)
    alive = (lengths > 0) & (log_lengths > -jnp.inf)
    lengths = jnp.where(alive, lengths, 1.0)
    return jnp.where(alive[:, None], rows / lengths[:, None], 0.0), log_lengths + jnp.log(lengths)


def _round_robin(count: int) -> np.ndarray:
    """Schedule all pairs of an even number of rows in count-1 rounds of disjoint pairs: [count-1, count/2, 2]."""
    circle = list(range(count))
    rounds = []
    for _ in range(count - 1):
        rounds.append([(circle[i], circle[-1 - i]) for i in range(count // 2)])
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return np.array(rounds, np.int32)
