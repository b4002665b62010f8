"""Slopes of activations, and the averages of their logarithms, where rounding and zeros are in the way."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.activations import SELU_ALPHA, SELU_SCALE, Activation
from rnn_dynamics.theory.gaussian_averages import average

LOG_SLOPES: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda u: 2 * (math.log(2) - jnp.logaddexp(u, -u)),
    "sigmoid": lambda u: -jax.nn.softplus(u) - jax.nn.softplus(-u),
    "softplus": lambda u: -jax.nn.softplus(-u),
    "elu": lambda u: jnp.minimum(u, 0),
    "selu": lambda u: math.log(SELU_SCALE) + jnp.where(u > 0, 0, math.log(SELU_ALPHA) + u),
    "positive": lambda u: jnp.where(u > 0, 0, -jax.nn.softplus(u) - jax.nn.softplus(-u)),
}
"""ln phi' of activations whose slope is lost to rounding far from 0; another's, as it is there, will do."""
SLOPES_WITH_ZEROS = ("gelu", "sin")
"""Activations whose slope is 0 at single points, where its logarithm has poles that quadrature does not see."""


def slope_of(activation: Activation) -> Callable[[Array], Array]:
    """Return the derivative phi' of an activation, Array [...] -> Array [...]."""

    def slope(preactivation: Array) -> Array:
        return jax.jvp(activation, (preactivation,), (jnp.ones_like(preactivation),))[1]

    return slope


def mean_log_slope(activation: Activation, variance: Array) -> Array:
    r"""Average :math:`\ln |\phi'(u)|` over u ~ N(0, variance).

    Args:
        activation: phi.
        variance: > 0, [].

    Returns:
        The average [], nats; -inf where the slope is 0 with some probability.

    Raises:
        ValueError: an activation whose slope is 0 at single points.
    """
    if activation.name in SLOPES_WITH_ZEROS:
        raise ValueError(
            "activation must be one whose slope has no zeros at single points, where its logarithm has poles that no "
            f"quadrature here averages, got {activation.name}"
        )
    slope = slope_of(activation)
    log_slope = LOG_SLOPES.get(activation.name, lambda u: jnp.log(jnp.abs(slope(u))))

    def dead_and_alive(preactivation: Array) -> Array:
        logarithm = log_slope(preactivation)
        dead = logarithm == -jnp.inf
        return jnp.stack([dead.astype(logarithm.dtype), jnp.where(dead, 0, logarithm)], axis=-1)

    dead, alive = average(dead_and_alive, variance)
    return jnp.where(dead > 0, -jnp.inf, alive)
