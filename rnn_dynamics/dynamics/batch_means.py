"""Standard errors of averages over time: batch means, since what a network does at one step resembles the next."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

BATCHES = 10
"""Batches behind a standard error: enough for its own error, few enough to be longer than the autocorrelation
(Schmeiser, Oper. Res. 30, 1982, on choosing 10 to 30)."""


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
    batches = min(BATCHES, steps)
    return -(-np.arange(batches + 1) * steps // batches)


def batched_mean(series: Array) -> BatchedMean:
    """Average a series over time, with the standard error of batch means.

    Args:
        series: [T, ...].

    Returns:
        The mean, its standard error (B - 1 degrees of freedom) and the batch means.
    """
    lengths = np.diff(first_times(series.shape[0]))
    batches = len(lengths)
    columns = (batches,) + (1,) * (series.ndim - 1)
    about = jnp.mean(series, axis=0)
    about = jnp.where(jnp.isfinite(about), about, 0.0)  # what is left to sum is small, and so is its rounding
    batch_of_step = np.repeat(np.arange(batches), lengths)
    sums = jax.ops.segment_sum(series - about[None], batch_of_step, batches, indices_are_sorted=True)
    means = about[None] + sums / jnp.asarray(lengths.reshape(columns), series.dtype)
    mean = about + jnp.sum(sums, axis=0) / series.shape[0]
    if batches == 1:
        return BatchedMean(mean, jnp.full_like(mean, jnp.nan), means)
    weights = jnp.asarray(lengths.reshape(columns) / lengths.mean(), series.dtype)  # a short batch scatters more
    variance = jnp.sum(weights * (means - mean[None]) ** 2, axis=0) / (batches - 1)
    return BatchedMean(mean, jnp.sqrt(variance / batches), means)
