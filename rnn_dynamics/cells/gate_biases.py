"""Laws that the bias of a gate is drawn from at initialisation, so that units keep their state for different times.

A cell takes one wherever it takes the number: `LSTMCell(..., forget_bias=chrono(784))`,
`GRUCell(..., update_bias=uniform(0, 5))`. A number, or one per unit [H], is the constant law. Which gate keeps the
state, and what it is called, the cell knows: its argument is named after it. Where an open gate writes instead, as the
MGU's forget gate and the transform gates of recurrent highways do, the law that keeps is the negative: `-chrono(784)`.
"""

import dataclasses
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from rnn_dynamics.types import Initializer


@dataclasses.dataclass(frozen=True)
class GateBiasLaw:
    """How the bias of a gate is drawn, and what others follow from the same draw.

    Attributes:
        draw: (key, shape, dtype) -> biases, Flax's convention.
        opposed: names of gates that get the negative of this gate's biases, in cells that have such gates.
    """

    draw: Initializer
    opposed: tuple[str, ...] = ()

    def __neg__(self) -> "GateBiasLaw":
        """Return the law of the negative biases, for a gate that writes where it is open."""
        return dataclasses.replace(self, draw=lambda key, shape, dtype: -self.draw(key, shape, dtype))


GateBias: TypeAlias = float | Array | GateBiasLaw
"""What a cell takes for the bias of a gate: a number, one per unit [H], or the law that they are drawn from."""


def uniform(low: float | int | Array, high: float | int | Array) -> GateBiasLaw:
    """Draw every unit's bias between two values.

    Args:
        low: least bias.
        high: upper bound of the biases.

    Returns:
        The law.
    """
    return GateBiasLaw(lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, low, high))


def uniform_gate() -> GateBiasLaw:
    r"""Spread the gate's own values over (0, 1) (Gu, Gulcehre, Paine, Hoffman and Pascanu 2020).

    .. math:: b_f \sim \sigma^{-1}\bigl(U(1/H, 1 - 1/H)\bigr)

    Returns:
        The law.
    """

    def draw(key: Array, shape: tuple[int], dtype: jax.typing.DTypeLike) -> Array:
        margin = 1 / max(2, *shape)
        return jax.scipy.special.logit(jax.random.uniform(key, shape, dtype, margin, 1 - margin))

    return GateBiasLaw(draw)


def chrono(longest: float | int | Array) -> GateBiasLaw:
    r"""Spread the units' time scales up to the longest dependency in the data (Tallec and Ollivier 2018).

    .. math:: b_f \sim \ln U(1, T_{\max} - 1), \qquad b_i = -b_f

    A unit whose gates see nothing but their bias keeps sigma(b_f) = 1 - 1/T of its state, T = 1 + exp(b_f), and so has
    the exponent ln(1 - 1/T). Cells whose state equation couples the two, as the GRU's does, have no input gate to set.

    Args:
        longest: T_max in steps.

    Returns:
        The law.

    Raises:
        ValueError: longest < 2.
    """
    if not isinstance(longest, Tracer) and not 2 <= longest < math.inf:
        raise ValueError(f"longest must be a finite number of steps >= 2, got {longest}")
    return GateBiasLaw(
        lambda key, shape, dtype: jnp.log(jax.random.uniform(key, shape, dtype, 1, longest - 1)), opposed=("input",)
    )
