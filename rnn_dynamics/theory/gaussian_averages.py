"""Averages over a Gaussian preactivation, to rounding, of functions that are smooth but for kinks at known places.

Nor may they oscillate far out: the average of sin^2 loses its digits where the variance is above 300.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

FARTHEST = 10.0
"""Standard deviations that are integrated over; beyond them lie 2e-23 of the weight."""
FEATURES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Preactivations, with either sign, between which activations are smooth: kinks at 0 and 1, the bends of sigmoids."""
NODES = 20
"""Of Gauss-Legendre quadrature in each panel."""


def average(function: Callable[[Array], Array], variance: float | Array, mean: float | Array = 0.0) -> Array:
    r"""Average a function over u ~ N(mean, variance).

    .. math:: \langle f \rangle = \int \frac{e^{-z^2/2}}{\sqrt{2\pi}} f(m + \sqrt{v}\, z) \, dz

    Gauss-Hermite quadrature converges slowly for functions with kinks, and for saturating ones at large variance. Here
    the range is cut into panels, at every standard deviation and at every feature of the activations, with
    Gauss-Legendre quadrature in each. The panels move with the kinks, so that derivatives by mean and variance are
    right too, even of functions that jump there, as the slopes of piecewise linear activations do.

    Args:
        function: u [n] -> values [n, ...]; continuous but at 0 and +-1.
        variance: v >= 0; at 0 itself the derivative by it is NaN.
        mean: m.

    Returns:
        The average [...], with the dtype of the function's values.
    """
    deviation = jnp.sqrt(jnp.asarray(variance, jnp.result_type(variance, 0.0)))
    narrow = jnp.maximum(deviation, jnp.finfo(deviation.dtype).tiny ** 0.5)
    bends = (jnp.asarray([*(-x for x in FEATURES[:0:-1]), *FEATURES], deviation.dtype) - mean) / narrow
    grid = jnp.arange(-FARTHEST, FARTHEST + 1, dtype=deviation.dtype)
    edges = jnp.sort(jnp.concatenate([grid, jnp.clip(bends, -FARTHEST, FARTHEST)]))
    nodes, weights = (jnp.asarray(values, deviation.dtype) for values in np.polynomial.legendre.leggauss(NODES))
    halves = jnp.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + halves * (1 + nodes[None, :])).ravel()
    density = (halves * weights[None, :] * jnp.exp(-(z.reshape(-1, NODES) ** 2) / 2)).ravel() / math.sqrt(2 * math.pi)
    return jnp.tensordot(density, function(mean + deviation * z), axes=1)


def average_of_pair(
    first: Callable[[Array], Array],
    second: Callable[[Array], Array],
    variance: float | Array,
    correlation: float | Array,
    mean: float | Array = 0.0,
) -> Array:
    r"""Average f(u_1) g(u_2) over a pair of Gaussians of one variance and the given correlation.

    Args:
        first: f, u [n] -> values [n].
        second: g, likewise.
        variance: v of u_1 and of u_2, >= 0.
        correlation: c of u_1 and u_2, between -1 and 1.
        mean: m of both.

    Returns:
        The average [].
    """
    remaining = variance * jnp.maximum(1 - jnp.asarray(correlation) ** 2, 0)

    def given_first(u: Array) -> Array:
        return first(u) * jax.vmap(lambda m: average(second, remaining, m))(mean + correlation * (u - mean))

    return average(given_first, variance, mean)
