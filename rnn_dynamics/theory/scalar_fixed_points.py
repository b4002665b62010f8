"""Where a map of one number settles, in few steps also where plain iteration crawls, with the right derivative."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.types import PyTree

ITERATIONS = 200
"""At most; some ten are the rule, some fifty at the edge of stability."""
LARGEST = 1e15
"""Beyond it there is no end."""

Update = Callable[[PyTree, Array], tuple[Array, Array]]
"""(parameters, x) -> f(x), f'(x)."""


class _Search(NamedTuple):
    value: Array
    low: Array
    high: Array
    iterations: Array
    done: Array


@partial(jax.jit, static_argnames=("update", "scale"))
def settled(update: Update, parameters: PyTree, start: Array, scale: float) -> Array:
    """Find where an increasing map of the numbers >= 0 takes its start in the long run.

    Such a map goes from its start to the nearest fixed point on the side it sets out to, and for ever on if there is
    none. Newton's method, kept between the values that rose and those that fell, gets there in fewer steps. At the edge
    of stability, where the slope is 1, half of the digits are lost, as to any method.

    The derivative by the parameters, of first order, is that of the implicit function: none goes through the search.

    Args:
        update: the map and its slope, compiled in by its identity; continuous, increasing, and convex or concave.
        parameters: pytree of arrays that the map depends on.
        start: x >= 0, [].
        scale: size of what is added up to f(x), where that is more than x itself: what rounding leaves of it counts as
            nothing. Or 0.

    Returns:
        The fixed point []; inf if there is none on that side, NaN if the map or its slope is NaN on the way.
    """
    held = jax.lax.stop_gradient(parameters)

    def more(search: _Search) -> Array:
        return ~search.done & (search.iterations < ITERATIONS)

    def improve(search: _Search) -> _Search:
        return _improved(search, *update(held, search.value), scale)

    start = jax.lax.stop_gradient(start)
    ends = jnp.zeros_like(start), jnp.full_like(start, jnp.inf)
    found = jax.lax.while_loop(more, improve, _Search(start, *ends, jnp.int32(0), jnp.asarray(False)))
    value = jnp.where(found.done, found.value, jnp.nan)
    after, slope = update(parameters, jnp.where(jnp.isfinite(value), value, start))
    room = jnp.maximum(1 - jax.lax.stop_gradient(slope), jnp.finfo(value.dtype).tiny)
    return value + (after - jax.lax.stop_gradient(after)) / room


def _improved(search: _Search, after: Array, slope: Array, scale: float) -> _Search:
    value, eps = search.value, jnp.finfo(after.dtype).eps
    tolerance, contracts = 4 * eps * jnp.maximum(value, scale), slope < 1 - 8 * eps
    excess = after - value
    low = jnp.where(excess > 0, jnp.maximum(value, search.low), search.low)
    high = jnp.where(excess < 0, jnp.minimum(value, search.high), search.high)
    faster = jnp.where(excess > 0, jnp.maximum(after, value * (2 + value)), after)
    guess = jnp.where(contracts, value + excess / jnp.where(contracts, 1 - slope, 1), faster)
    guess = jnp.where(guess > LARGEST, jnp.inf, guess)
    between = jnp.where(jnp.isfinite(high), (low + high) / 2, after)
    below = jnp.where(low > 0, between, 0)  # nothing that rises was met yet: 0 is the end of the range
    guess = jnp.where(guess > high, between, jnp.where(guess < low, below, guess))
    at_rest = jnp.abs(excess) <= tolerance
    near = jnp.abs(guess - value) <= tolerance
    lost = ~jnp.isfinite(excess)
    value = jnp.where(lost & (value < jnp.inf), jnp.nan, jnp.where(at_rest | lost, value, guess))
    return _Search(value, low, high, search.iterations + 1, at_rest | near | lost)
