"""The gain at which a large random Elman network is at the edge of chaos."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.theory.activation_slopes import slope_of
from rnn_dynamics.theory.allowed_numbers import Number, at_least_0
from rnn_dynamics.theory.gaussian_averages import average

SMALLEST, LARGEST = 1e-36, 1e12
"""Variances of the preactivations between which the edge is looked for."""
HALVINGS = 100
"""Of the range of ln q; beyond what float64 resolves."""


def critical_gain(external_variance: Number = 0.0, activation: str = "tanh") -> Array:
    r"""Return the gain at which :math:`\chi_1 = 1`: without inputs the edge of chaos, with inputs that of one response.

    .. math:: g_c = \langle \phi'(u)^2 \rangle^{-1/2}, \qquad
        q - \frac{\langle \phi(u)^2 \rangle}{\langle \phi'(u)^2 \rangle} = \sigma_b^2 + \sigma_x^2, \qquad
        u \sim \mathcal N(0, q)

    Algorithm: the second equation is the fixed point of the variance at the gain of the first; its left side is
    bisected in ln q. Only the sum of the two variances counts (Molgedey, Schuchhardt and Schuster 1992 for inputs drawn
    anew; Schoenholz et al. 2017, section 2, for biases).

    Without variance from outside, and phi(0) = 0, it is the gain at which rest becomes unstable: 1 / |phi'(0)|, and the
    square root of 2 for relu. Next to there the gain has but 8 digits, and at 0 itself no derivative.

    Args:
        external_variance: :math:`\sigma_b^2 + \sigma_x^2` >= 0 of `RandomElman`, [].
        activation: phi by name, see `cells.activations`.

    Returns:
        :math:`g_c`, []; NaN where there is none: the variance grows without bound before perturbations do.

    Raises:
        ValueError: there is none, as for relu with biases; a variance below 0, an unknown activation.
    """
    gain = _critical_gain(at_least_0("external_variance", external_variance), activation)
    if not isinstance(gain, Tracer) and np.isnan(gain):
        raise ValueError(
            f"external_variance must leave an edge of chaos, and networks of {activation} have none with "
            f"{external_variance}: at larger gains the variance of the preactivations grows without bound"
        )
    return gain


@jax.jit(static_argnames="activation")
def _critical_gain(external_variance: Array, activation: str) -> Array:
    phi = find_activation(activation)
    slope = slope_of(phi)

    def squares(variance: Array) -> tuple[Array, Array]:
        return average(lambda u: phi(u) ** 2, variance), average(lambda u: slope(u) ** 2, variance)

    def supplied(variance: Array) -> Array:
        of_values, of_slopes = squares(variance)
        return variance - of_values / of_slopes

    eps = jnp.finfo(external_variance.dtype).eps
    # What is left of a difference that vanishes counts as more than nothing and as less than anything.
    tolerance = jnp.where(external_variance == 0, -8 * eps, 8 * eps)

    def enough(variance: Array) -> Array:
        return supplied(variance) >= external_variance + tolerance * variance

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        there = enough(jnp.exp(middle))
        return jnp.where(there, low, middle), jnp.where(there, middle, high)

    ends = tuple(jnp.log(jnp.asarray(end, external_variance.dtype)) for end in (SMALLEST, LARGEST))
    variance = jax.lax.stop_gradient(jnp.exp(jax.lax.fori_loop(0, HALVINGS, halve, ends)[1]))
    variance = _with_derivative(variance, supplied, external_variance)
    of_slopes = squares(variance)[1]
    _, stability = jax.jvp(lambda v: squares(v)[0], (variance,), (jnp.ones_like(variance),))
    exists = enough(jnp.asarray(LARGEST, variance.dtype)) & (stability <= of_slopes * (1 + 1e-6))
    return jnp.where(exists, of_slopes**-0.5, jnp.nan)


def _with_derivative(variance: Array, supplied: Callable[[Array], Array], external_variance: Array) -> Array:
    """Give the root of supplied(q) = external_variance its derivative, by the implicit function."""
    _, slope = jax.jvp(supplied, (variance,), (jnp.ones_like(variance),))
    slope = jnp.maximum(slope, jnp.finfo(slope.dtype).tiny)
    return variance + (external_variance - jax.lax.stop_gradient(external_variance)) / jax.lax.stop_gradient(slope)
