r"""The mean field of cells that keep their state by an update gate: what minimalRNN and GRU have in common.

The state is :math:`h_t = z_t h_{t-1} + (1 - z_t) n_t`, in which a unit's gate z, content n and old state h are
independent of each other, if weights are untied (see `gated_mean_field`). Its moments follow from those of z and n,

.. math:: E[h^k] (1 - E[z^k]) = \sum_{j<k} \binom{k}{j} E[z^j (1-z)^{k-j}]\, E[h^j]\, E[n^{k-j}],

and q* is the fixed point of k = 2, the laws of z and n depending on q. The Jacobian is diag(z) + diag(sqrt(p)) G with
independent entries G ~ N(0, 1/H), because the gates' recurrent weights are independent of each other, and

.. math::
    p &= g_z^2 (h - n)^2 \sigma'(u_z)^2 + (1 - z)^2 s, \qquad s = \sum_k g_k^2 (\partial n / \partial (W_k h))^2 \\
    \tfrac{1}{N} \mathrm{tr}\, J J^\top &= \chi_1 = E[z^2] + E[p] \\
    \tfrac{1}{N} \mathrm{tr}\, (J J^\top)^2 - \chi_1^2 &= \mathrm{Var}(z^2 + p) + 2 E[z^2] E[p] + E[p]^2.

The first is that of Chen, Pennington and Schoenholz (2018) and Gilboa et al. (2019); the second holds for any such
Jacobian, by Wick's theorem. Two replicas' overlap C = E[h h'] becomes, with the mean m = E[h] = E[n],

.. math:: E[z z'] C + 2 E[z (1 - z')] m^2 + E[(1 - z)(1 - z')] E[n n'],

whose slope at C = q* is chi_1, inputs being the same.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.theory.gated_mean_field import (
    SMALLEST,
    GatedMeanField,
    Number,
    fixed_point,
    replica_correlation,
)
from rnn_dynamics.theory.gaussian_averages import average, average_of_pair


class ContentLaw(NamedTuple):
    """What is averaged of the content n, at one second moment of the state.

    Attributes:
        moments: E[n^k], k = 0 ... 4, [5].
        gain_moments: E[s n^k], k = 0 ... 2, [3], s being the square of the content's gain with respect to the state.
        squared_gain: E[s^2], [].
    """

    moments: Array
    gain_moments: Array
    squared_gain: Array


class UpdateGated(NamedTuple):
    """A cell, as far as its mean field goes.

    Attributes:
        gain: of the update gate.
        gate_mean: of its preactivation.
        gate_variance: second moment q [] -> variance [] of the preactivation.
        gate_covariance: overlap C [] -> covariance [] of two replicas' preactivations.
        content: q [] -> the law of n.
        content_overlap: (C [], q []) -> E[n n'] [] of two replicas.
        input_correlation: of the replicas' inputs.
    """

    gain: Number
    gate_mean: Number
    gate_variance: Callable[[Array], Array]
    gate_covariance: Callable[[Array], Array]
    content: Callable[[Array], ContentLaw]
    content_overlap: Callable[[Array, Array], Array]
    input_correlation: Number


def powers(values: Array, highest: int = 4) -> Array:
    """Return values [...] to the powers 0 ... highest, [..., 5]."""
    return jnp.stack([jnp.ones_like(values), *(values**power for power in range(1, highest + 1))], axis=-1)


def gate_moments(variance: Array, mean: Number) -> Array:
    """Return E[z^j (1-z)^k] of a sigmoid gate for j, k = 0 ... 4, [5, 5]."""

    def products(u: Array) -> Array:
        return powers(jax.nn.sigmoid(u))[..., :, None] * powers(jax.nn.sigmoid(-u))[..., None, :]

    return average(products, variance, mean)


def state_moments(gate: Array, content: Array) -> list[Array]:
    """Return E[h^k], k = 0 ... 4, from the `gate_moments` [5, 5] and the content's moments [5]."""
    moments = [jnp.ones_like(content[0])]
    for order in range(1, 5):
        arriving = sum(
            math.comb(order, kept) * gate[kept, order - kept] * moments[kept] * content[order - kept]
            for kept in range(order)
        )
        leaving = jnp.sum(gate[:order, 1])  # 1 - z^k is (1 - z)(1 + z + ... + z^(k-1)): no cancellation where z is 1
        moments.append(arriving / leaving)
    return moments


def solve_update_gated(cell: UpdateGated) -> tuple[Array, GatedMeanField]:
    """Solve the mean field of a cell.

    Args:
        cell: its laws.

    Returns:
        The variance of the update gate's preactivation [], and the theory, its preactivation variances left empty.
    """

    def second_moment_after(q: Array) -> Array:
        return state_moments(gate_moments(cell.gate_variance(q), cell.gate_mean), cell.content(q).moments)[2]

    q = fixed_point(second_moment_after, 1.0, SMALLEST, 1.0)
    variance, content = cell.gate_variance(q), cell.content(q)
    gate = gate_moments(variance, cell.gate_mean)
    growth, width = jacobian_moments(cell.gain, gate, content)

    def overlap_after(overlap: Array) -> Array:
        shared = cell.gate_covariance(overlap) / variance
        both = average_of_pair(jax.nn.sigmoid, jax.nn.sigmoid, variance, shared, cell.gate_mean)
        one, neither = gate[1, 0] - both, 1 - 2 * gate[1, 0] + both
        return both * overlap + 2 * one * content.moments[1] ** 2 + neither * cell.content_overlap(overlap, q)

    correlation, slope = replica_correlation(overlap_after, q, growth, cell.input_correlation)
    return variance, GatedMeanField(q, q, {}, correlation, slope, growth, growth, width)


def jacobian_moments(gain: Number, gate: Array, content: ContentLaw) -> tuple[Array, Array]:
    """Return mean and variance, [] each, of the squared singular values of the Jacobian.

    Args:
        gain: of the update gate.
        gate: `gate_moments`, [5, 5].
        content: its law.

    Returns:
        tr(J J^T) / N, and tr((J J^T)^2) / N less its square.
    """
    h = state_moments(gate, content.moments)
    n, s = content.moments, content.gain_moments
    square = h[2] - 2 * h[1] * n[1] + n[2]  # of h - n
    fourth = h[4] - 4 * h[3] * n[1] + 6 * h[2] * n[2] - 4 * h[1] * n[3] + n[4]
    square_and_gain = h[2] * s[0] - 2 * h[1] * s[1] + s[2]
    g = jnp.asarray(gain) ** 2
    p = g * gate[2, 2] * square + gate[0, 2] * s[0]
    kept_and_p = g * gate[4, 2] * square + gate[2, 2] * s[0]
    p_squared = g**2 * gate[4, 4] * fourth + 2 * g * gate[2, 4] * square_and_gain + gate[0, 4] * content.squared_gain
    mean = gate[2, 0] + p
    return mean, gate[4, 0] + 2 * kept_and_p + p_squared - mean**2 + 2 * gate[2, 0] * p + p**2
