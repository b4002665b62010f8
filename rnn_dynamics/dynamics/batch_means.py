"""Averages over time with standard errors: batch means, since what a network does at one step resembles the next."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

Rows = TypeVar("Rows")

BATCHES = 10
"""Batches behind a standard error. More make each shorter than the slow parts of the autocorrelation, and intervals
that cover too little: with 32, 95 % intervals of 2,000 steps of a slow GRU's growth covered 88 %
(benchmarks/coverage.py; Schmeiser, Oper. Res. 30, 1982, on choosing 10 to 30)."""


class BatchedMean(NamedTuple):
    """The average of a series and its error.

    Attributes:
        mean: [...], over all times.
        standard_error: [...], NaN where the mean is not finite or there was one batch.
        batch_means: [B, ...], over B consecutive stretches.
    """

    mean: Array
    standard_error: Array
    batch_means: Array


def first_times(steps: int) -> np.ndarray:
    """Cut a run into batches whose lengths differ by at most one.

    Args:
        steps: T >= 1.

    Returns:
        [B + 1], where each of B = min(10, T) batches begins, and then T.
    """
    return _cut(steps, min(BATCHES, steps))


def _cut(steps: Any, batches: int) -> Any:
    """Return ceil(steps * [0 ... batches] / batches), where the product does not overflow."""
    numbers = np.arange(batches + 1, dtype=np.int32)
    return numbers * (steps // batches) - -numbers * (steps % batches) // batches


def batched_mean(series: Array) -> BatchedMean:
    """Average a series over time, with the standard error of batch means.

    Args:
        series: [T, ...].

    Returns:
        The mean, its standard error (B - 1 degrees of freedom) and the batch means.
    """
    lengths = np.diff(first_times(series.shape[0]))
    about = jnp.mean(series, axis=0)
    about = jnp.where(jnp.isfinite(about), about, 0.0)  # what is left to sum is small, and so is its rounding
    batch_of_step = np.repeat(np.arange(len(lengths)), lengths)
    sums = jax.ops.segment_sum(series - about[None], batch_of_step, len(lengths), indices_are_sorted=True)
    left = mean_of_batches(sums, lengths)
    return BatchedMean(about + left.mean, left.standard_error, about[None] + left.batch_means)


def mean_of_stretches(sums: Array, lengths: Array) -> BatchedMean:
    """Average over stretches whose sums are known; whole stretches make up batches of nearly equal length.

    Args:
        sums: [R, ...], over the steps of each stretch.
        lengths: [R], how many steps these are.

    Returns:
        The mean, its standard error (B - 1 degrees of freedom) and the means of B = min(10, R) batches.
    """
    batches = min(BATCHES, len(sums))
    ends = jnp.cumsum(lengths, dtype=lengths.dtype)
    inner = _cut(ends[-1], batches)[1:-1]
    batch = jnp.sum((ends - lengths)[:, None] >= inner[None, :], axis=1)
    # A stretch longer than a batch would leave the next one empty: no batch is passed over, nor missing at the end.
    numbers = np.arange(len(sums))
    batch = jnp.maximum(batch, batches - len(sums) + numbers)
    batch = numbers + jax.lax.cummin(batch - numbers)
    gather = partial(jax.ops.segment_sum, segment_ids=batch, num_segments=batches, indices_are_sorted=True)
    return mean_of_batches(gather(sums), gather(lengths))


def mean_of_batches(sums: Array, lengths: ArrayLike) -> BatchedMean:
    """Average over batches whose sums are known, with the standard error of batch means.

    Args:
        sums: [B, ...], over the steps of each batch.
        lengths: [B], how many steps these are, >= 1.

    Returns:
        The mean, its standard error (B - 1 degrees of freedom) and the batch means.
    """
    batches = len(sums)
    steps = jnp.asarray(lengths, sums.dtype).reshape((batches,) + (1,) * (sums.ndim - 1))
    mean, means = jnp.sum(sums, axis=0) / jnp.sum(steps), sums / steps
    if batches == 1:
        return BatchedMean(mean, jnp.full_like(mean, jnp.nan), means)
    weights = steps * batches / jnp.sum(steps)  # a short batch scatters more
    variance = jnp.sum(weights * (means - mean[None]) ** 2, axis=0) / (batches - 1)
    return BatchedMean(mean, jnp.sqrt(variance / batches), means)


class CompensatedSum(NamedTuple):
    """A running sum that does not drift, however many terms it has (Kahan, Commun. ACM 8, 1965).

    Attributes:
        total: [...].
        excess: [...], what rounding has added to the total so far.
    """

    total: Array
    excess: Array

    @classmethod
    def zero(cls, shape: tuple[int, ...], dtype: jnp.dtype) -> "CompensatedSum":
        """Return the sum of no term."""
        zeros = jnp.zeros(shape, dtype)
        return cls(zeros, zeros)

    def plus(self, term: Array) -> "CompensatedSum":
        """Return the sum with one more term [...]; it may become infinite or NaN."""
        addend = term - self.excess
        total = self.total + addend
        return CompensatedSum(total, jnp.where(jnp.isfinite(total), (total - self.total) - addend, 0.0))


def with_row(rows: Rows, number: int | Array, change: Callable[[Rows], Rows]) -> Rows:
    """Change what belongs to one batch.

    Args:
        rows: a pytree of arrays [B, ...].
        number: of the batch.
        change: from a pytree of arrays [...] to one like it.

    Returns:
        The rows with that one changed.
    """
    changed = change(jax.tree.map(lambda leaf: leaf[number], rows))
    return jax.tree.map(lambda leaf, row: leaf.at[number].set(row), rows, changed)
