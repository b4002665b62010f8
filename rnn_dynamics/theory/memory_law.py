r"""The stationary law of an LSTM's cell state, to rounding, by its characteristic function.

With untied weights :math:`c_t = f_t c_{t-1} + w_t`, in which :math:`w = i g` and the gates are independent of each
other and of the past. The law of c is not Gaussian. Gilboa et al. (2019) draw samples of it; here its characteristic
function :math:`\varphi(k) = E[e^{ikc}]` solves

.. math:: \varphi(k) = \varphi_w(k)\, E_f[\varphi(f k)], \qquad \varphi(0) = 1,

which is linear, and closed on any interval [0, K] since f < 1. What the LSTM needs of c it needs by way of tanh, so of
small k alone: by the Fourier transforms

.. math:: \mathrm{sech}^2 c = \int_0^\infty \frac{k \cos kc}{\sinh(\pi k/2)}\, dk, \qquad
    \widehat{\mathrm{sech}^{n+2}}(k) = \frac{n^2 + k^2}{n (n + 1)}\, \widehat{\mathrm{sech}^n}(k)

K = 24 is enough for double precision. On [0, K] functions are Chebyshev series in x with k = sinh(b x) / s, s being the
deviation of c, so that narrow and wide laws are resolved alike. Averages weighted by powers of c solve like equations,
whose right-hand sides hold those of lower powers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.theory.gated_mean_field import GateLaw
from rnn_dynamics.theory.gaussian_averages import average

HIGHEST = 24.0
"""Frequency beyond which the transform of sech^2 is below 1e-15."""
NODES = 64
NARROWEST = 0.125
"""Deviation of c below which the grid of frequencies is that of this deviation."""
POINTLIKE = 1e-5
"""Second moment below which tanh^2 is averaged by its series."""

_ANGLES = np.pi * (np.arange(NODES)[::-1] + 0.5) / NODES
_ORDERS = np.arange(NODES)
_TO_SERIES = np.where(_ORDERS[:, None] > 0, 2, 1) / NODES * np.cos(np.outer(_ORDERS, _ANGLES))
_AT_START = (-1.0) ** _ORDERS @ _TO_SERIES
_INTEGRALS = np.where(_ORDERS % 2 == 0, 2 / (1.0 - np.where(_ORDERS == 1, 0, _ORDERS) ** 2), 0) @ _TO_SERIES

Powers = tuple[int, int]
"""Exponents (j, k) of a gate and of its slope with respect to its preactivation: f^j f'^k."""


class Frequencies(NamedTuple):
    """The grid on which transforms are known.

    Attributes:
        values: k, rising, [n].
        weights: of quadrature over k from 0 to K, [n].
        scale: s in k = sinh(b x) / s, [].
        stretch: b, [].
    """

    values: Array
    weights: Array
    scale: Array
    stretch: Array

    @classmethod
    def resolving(cls, deviation: Array) -> "Frequencies":
        """Make the grid for a law of this deviation []."""
        scale = jnp.maximum(deviation, NARROWEST)
        stretch = jnp.arcsinh(HIGHEST * scale)
        x = (1 + jnp.cos(jnp.asarray(_ANGLES, scale.dtype))) / 2
        widths = stretch * jnp.cosh(stretch * x) / scale / 2
        return cls(jnp.sinh(stretch * x) / scale, widths * jnp.asarray(_INTEGRALS, scale.dtype), scale, stretch)

    def sech_average(self, transform: Array, power: int) -> Array:
        """Return E[X sech^power(c)], for an even power >= 2, from the transform E[X e^{ikc}] [n]."""
        k = self.values
        kernel = k / jnp.sinh(jnp.pi * k / 2)
        for order in range(2, power, 2):
            kernel *= (order**2 + k**2) / (order * (order + 1))
        return jnp.sum(self.weights * kernel * jnp.real(transform))

    def at_zero(self, transform: Array) -> Array:
        """Return E[X] from the transform E[X e^{ikc}] [n]."""
        return jnp.real(jnp.asarray(_AT_START) @ transform)

    def shrinking(self, law: GateLaw, variance: Array, wanted: Sequence[Powers]) -> dict[Powers, Array]:
        """Average over the forget gate.

        Args:
            law: of its preactivation.
            variance: of its preactivation, [].
            wanted: powers of gate and slope.

        Returns:
            By these powers, the matrices [n, n] that map a transform T to E[f^j f'^k T(f k)].
        """

        def weighted(order: Array) -> Array:
            def series(u: Array) -> Array:
                reached = jax.nn.sigmoid(u)[:, None] * self.values[None, :]
                x = jnp.arcsinh(reached * self.scale) / self.stretch
                return jnp.cos(order * jnp.arccos(2 * x - 1))

            return average(
                lambda u: _products(_gate(u), wanted)[:, :, None] * series(u)[:, None, :], variance, law.bias_mean
            )

        matrices = jnp.einsum("mfi,mj->fij", jax.lax.map(weighted, jnp.asarray(_ORDERS, float)), _TO_SERIES)
        return dict(zip(wanted, matrices, strict=True))


class Written(NamedTuple):
    """Transforms of what is written into the cell, w = i g.

    Attributes:
        values: E[i^j i'^k g^l g'^m e^{ikw}], [I, G, n].
        wanted: the powers that the axes I and G stand for.
    """

    values: Array
    wanted: tuple[Powers, ...]

    def __call__(self, gate: Powers, content: Powers) -> Array:
        """Return the one with these powers of the gate and of the content, [n]."""
        return self.values[self.wanted.index(gate), self.wanted.index(content)]


def written(
    frequencies: Frequencies,
    laws: tuple[GateLaw, GateLaw],
    variances: tuple[Array, Array],
    wanted: tuple[Powers, ...],
) -> Written:
    """Average over input gate and content.

    Of the gate first, as a function of y = k g in [-K, K], which a Chebyshev series holds; then over the content.

    Args:
        frequencies: k.
        laws: of the preactivations of input gate and content.
        variances: of these preactivations, [] each.
        wanted: powers of gate and slope, and of content and slope.

    Returns:
        The transforms.
    """
    y = HIGHEST * jnp.cos(jnp.asarray(_ANGLES))

    def given_gate(u: Array) -> Array:
        return _products(_gate(u), wanted)[:, :, None] * jnp.exp(1j * jnp.outer(jax.nn.sigmoid(u), y))[:, None, :]

    series = average(given_gate, variances[0], laws[0].bias_mean) @ _TO_SERIES.T

    def weighted(order: Array) -> Array:
        def given_content(u: Array) -> Array:
            g = jnp.tanh(u)
            polynomial = jnp.cos(order * jnp.arccos(g[:, None] * frequencies.values[None, :] / HIGHEST))
            return _products((g, 1 - g**2), wanted)[:, :, None] * polynomial[:, None, :]

        return average(given_content, variances[1], laws[1].bias_mean)

    return Written(jnp.einsum("im,mgk->igk", series, jax.lax.map(weighted, jnp.asarray(_ORDERS, float))), wanted)


def memory_moments(laws: dict[str, GateLaw], variances: dict[str, Array]) -> Array:
    """Return E[c^k], k = 0 ... 4, [5], in closed form but for averages over single gates.

    Args:
        laws: of the preactivations of "input", "forget" and "candidate".
        variances: of these preactivations.

    Returns:
        The moments.
    """
    exponents = [(power, 0) for power in range(5)]
    i, f = (
        average(lambda u: _products(_gate(u), exponents), variances[x], laws[x].bias_mean) for x in ("input", "forget")
    )
    g = average(lambda u: _products((jnp.tanh(u), u), exponents), variances["candidate"], laws["candidate"].bias_mean)
    # 1 - f^k is (1 - f)(1 + ... + f^(k-1)): no cancellation where f is 1.
    lost = average(
        lambda u: jax.nn.sigmoid(-u)[:, None] * _products(_gate(u), exponents[:-1]),
        variances["forget"],
        laws["forget"].bias_mean,
    )
    moments = [jnp.ones_like(lost[0])]
    for order in range(1, 5):
        arriving = (math.comb(order, j) * f[j] * moments[j] * (i * g)[order - j] for j in range(order))
        moments.append(sum(arriving, jnp.zeros_like(lost[0])) / jnp.sum(lost[:order]))
    return jnp.stack(moments)


class MemoryLaw(NamedTuple):
    """The law of c, and what it was made of.

    Attributes:
        frequencies: k.
        transforms: E[c^a e^{ikc}] for a = 0, 1 ..., each [n].
        kept: by powers of the forget gate, see `Frequencies.shrinking`.
        written: transforms of what is written.
        squared_tanh: E[tanh^2 c], [].
    """

    frequencies: Frequencies
    transforms: tuple[Array, ...]
    kept: dict[Powers, Array]
    written: Written
    squared_tanh: Array


def memory_law(
    laws: dict[str, GateLaw], variances: dict[str, Array], wanted: tuple[Powers, ...], highest: int
) -> MemoryLaw:
    """Solve for the law of c.

    Args:
        laws: of the preactivations of "input", "forget" and "candidate".
        variances: of these preactivations, [] each.
        wanted: powers of gates and slopes to average with; (0, 0) to (highest, 0) must be there, and (1, 0).
        highest: power of c that transforms are weighted with.

    Returns:
        The law.
    """
    moments = memory_moments(laws, variances)
    frequencies = Frequencies.resolving(jnp.sqrt(moments[2]))
    kept = frequencies.shrinking(laws["forget"], variances["forget"], wanted)
    names = ("input", "candidate")
    into = written(frequencies, (laws[names[0]], laws[names[1]]), (variances[names[0]], variances[names[1]]), wanted)
    k, arriving = frequencies.values, into((0, 0), (0, 0))

    def solve(power: int, source: Array) -> Array:
        matrix = jnp.eye(NODES, dtype=arriving.dtype) - arriving[:, None] * kept[power, 0]
        return jnp.linalg.solve(matrix, source)

    slope = solve(
        1, (arriving - 1) / k
    )  # phi = 1 + k slope: the equation of phi itself has a solution but for a factor
    transforms = [1 + k * slope]
    for power in range(1, highest + 1):
        lower = (
            math.comb(power, j) * into((power - j, 0), (power - j, 0)) * (kept[j, 0] @ transforms[j])
            for j in range(power)
        )
        transforms.append(solve(power, sum(lower, jnp.zeros_like(arriving))))
    squared_tanh = jnp.where(
        moments[2] < POINTLIKE, moments[2] - 2 / 3 * moments[4], -frequencies.sech_average(k * slope, 2)
    )
    return MemoryLaw(frequencies, tuple(transforms), kept, into, squared_tanh)


def _gate(u: Array) -> tuple[Array, Array]:
    """Return a sigmoid gate and its slope at preactivations [n]."""
    gate = jax.nn.sigmoid(u)
    return gate, gate * jax.nn.sigmoid(-u)


def _products(gate_and_slope: tuple[Array, Array], wanted: Sequence[Powers]) -> Array:
    """Return gate^j slope^k for the powers that are wanted, [n, W]."""
    gate, slope = gate_and_slope
    return jnp.stack([gate**j * slope**k for j, k in wanted], axis=1)
