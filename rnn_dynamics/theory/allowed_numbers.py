"""The one sentence for a number that is not allowed, asked of numbers that are known and not of those being traced."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.arguments import require

Number = float | Array
"""A number, or an array [] of one."""


def allowed(name: str, value: Number, words: str, is_allowed: Callable[[Any], Any]) -> Array:
    """Return a number as an array of floating point.

    Args:
        name: of the argument, for the message.
        value: what came, [].
        words: what is allowed, such as "> 0".
        is_allowed: tells of a value whether it is.

    Returns:
        The number [].

    Raises:
        ValueError: a number that is not allowed, or NaN, or more than one.
    """
    if np.shape(value) != ():
        raise ValueError(f"{name} must be one number, got shape {np.shape(value)}; jax.vmap takes many")
    require(name, value, words, is_allowed)
    return jnp.asarray(value, jnp.result_type(value, 0.0))


def at_least_0(name: str, value: Number) -> Array:
    """Return a number that is a standard deviation or a variance.

    Args:
        name: of the argument, for the message.
        value: what came, [].

    Returns:
        The number [].

    Raises:
        ValueError: a number below 0, NaN, or more than one.
    """
    return allowed(name, value, ">= 0", lambda number: number >= 0)
