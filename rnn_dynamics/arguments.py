"""Checks of arguments that are numbers, each with one sentence; what is being traced is taken as it comes."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.core import Tracer


def whole_number(name: str, value: Any, *, least: int) -> int:
    """Check an argument that counts something.

    Args:
        name: of the argument.
        value: what came; NumPy's whole numbers are welcome.
        least: the smallest allowed.

    Returns:
        The value as an int.

    Raises:
        ValueError: anything but a whole number from `least` on.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return operator.index(value)


def require(name: str, value: Any, allowed: str, holds: Callable[[np.ndarray], Any]) -> None:
    """Refuse a number, or an array with a number, that a formula does not hold for.

    Args:
        name: of the argument.
        value: what came.
        allowed: what is, to follow "must be".
        holds: says of an array's entries whether they are.

    Raises:
        ValueError: an entry that is not allowed.
    """
    if not isinstance(value, Tracer) and not np.all(holds(np.asarray(value))):
        raise ValueError(f"{name} must be {allowed}, got {value}")


def require_positive(name: str, value: Any) -> None:
    """Refuse what is not above 0 and finite.

    Args:
        name: of the argument.
        value: what came.

    Raises:
        ValueError: a number <= 0, inf or NaN.
    """
    require(name, value, "a finite number > 0", lambda number: (number > 0) & np.isfinite(number))
