"""Clipping by a percentile of the gradient norms seen so far: AutoClip."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import require, whole_number
from rnn_dynamics.training.clipping.norms import global_norm, shortened
from rnn_dynamics.training.clipping.reporting import reporting
from rnn_dynamics.types import PyTree


class NormHistory(NamedTuple):
    """The latest gradient norms.

    Attributes:
        norms: [window], as they come, the oldest overwritten; NaN where none has come yet.
        seen: how many have come.
    """

    norms: Float[Array, "*E window"]
    seen: Int[Array, "*E"]


def clip_by_percentile(threshold: float | Array, *, window: int = 1024) -> optax.GradientTransformation:
    r"""Shorten a gradient longer than most so far to a percentile of their norms (Seetharaman et al. 2020, AutoClip).

    .. math:: g_t \to \min\left(1, \frac{c_t}{\|g_t\|}\right) g_t, \qquad
              c_t = p\text{-th percentile of } \{\|g_s\| : t - \text{window} < s \le t\}

    before clipping, over all parameters together, that of the gradient itself among them, with linear interpolation
    as in `numpy.percentile`. So the first gradient is never shortened, and in the long run 1 - p / 100 of them are.
    The paper looks back to the first update; here the norms are exact and the window has an end, so that the state has
    a fixed size. Gradients that are not finite leave no norm. The authors' choice is p = 10.

    Args:
        threshold: p, a percentile, 0 ... 100; 100 clips nothing. May be traced.
        window: number of the latest norms that are remembered; they are sorted at every update. Not
            a number that may be traced: `optax.inject_hyperparams` needs it among its `static_args`.

    Returns:
        An optax transformation with a `ClipState` whose `own` is a `NormHistory`; read it with `clip_report`.

    Raises:
        ValueError: a percentile outside 0 ... 100, or a window < 1.
    """
    require("threshold", threshold, "a percentile in 0 ... 100", lambda number: (number >= 0) & (number <= 100))
    window = whole_number("window", window, least=1)

    def initial_own(params: PyTree) -> NormHistory:
        dtype = jnp.result_type(jnp.float32, *(leaf.real.dtype for leaf in jax.tree.leaves(params)))
        return NormHistory(jnp.full(window, jnp.nan, dtype), jnp.zeros((), jnp.int32))

    def rule(gradient: PyTree, params: PyTree, own: NormHistory) -> tuple[PyTree, NormHistory]:
        norm = global_norm(gradient).astype(own.norms.dtype)
        norms = own.norms.at[own.seen % window].set(norm)
        limit = _percentile(norms, jnp.minimum(own.seen + 1, window), threshold)
        return jax.tree.map(lambda leaf: shortened(leaf, norm, limit), gradient), NormHistory(norms, own.seen + 1)

    return reporting(rule, keeps_direction=True, initial_own=initial_own)


def _percentile(numbers: Array, count: Array, percent: float | Array) -> Array:
    """Interpolate linearly in the first `count` of the numbers in order; the others are NaN, which comes last.

    Unlike `jnp.nanpercentile`, equal numbers have just this number as every percentile.
    """
    ordered = jnp.sort(numbers)
    place = (jnp.asarray(percent) / 100 * (count - 1)).astype(numbers.dtype)
    below = jnp.floor(place).astype(jnp.int32)
    low, high = ordered[below], ordered[jnp.minimum(below + 1, count - 1)]
    return low + (place - below.astype(place.dtype)) * (high - low)
