r"""The mean field of `MinimalRNNCell` (Chen, Pennington and Schoenholz 2018, arXiv 1806.05394)."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import require
from rnn_dynamics.theory.gated_mean_field import GatedMeanField, GateLaw, Number, check_laws
from rnn_dynamics.theory.gaussian_averages import average, average_of_pair
from rnn_dynamics.theory.update_gated_mean_field import ContentLaw, UpdateGated, powers, solve_update_gated


def minimal_rnn_mean_field(
    update: GateLaw, content: GateLaw, *, content_gain: Number = 1.0, input_correlation: Number = 1.0
) -> GatedMeanField:
    r"""Predict what a wide `MinimalRNNCell` with untied weights does.

    .. math::
        z_t &= \tanh(W_x x_t + b_z) \\
        u_t &= \sigma(U_h h_{t-1} + U_z z_t + b_u) \\
        h_t &= u_t \odot h_{t-1} + (1 - u_t) \odot z_t

    The content z sees no state: with g and :math:`g_z` the gains of :math:`U_h` and :math:`U_z`, the update gate's
    preactivation has the variance :math:`g^2 q + g_z^2 E[z^2] + \mathrm{Var}\, b_u`, and (section 3.2 of the paper)

    .. math:: \chi_1 = E[u^2] + g^2 E[\sigma'(\cdot)^2]\, E[(h - z)^2].

    The mathematics is in `update_gated_mean_field`, what is assumed in `gated_mean_field`. Averages are good to
    rounding.

    Args:
        update: law of the preactivation of u but for U_z z; its drive_variance is 0 in `MinimalRNNCell`.
        content: law of W_x x + b_z; its gain must be 0, z seeing no state.
        content_gain: g_z, that of U_z, `content_kernel`.
        input_correlation: of the inputs of two replicas.

    Returns:
        The theory, with preactivation variances "update" and "candidate", and with derivatives by every argument.

    Raises:
        ValueError: gains or variances that are negative or not finite, a gain of the content, a correlation outside
            0 ... 1.
    """
    require("content.gain", content.gain, "0, for the content sees no state", lambda gain: gain == 0)
    check_laws({"update": update, "content": content, "content_kernel": GateLaw(content_gain)}, input_correlation)
    content_variance = content.variance(0.0)
    moments = average(lambda u: powers(jnp.tanh(u)), content_variance, content.bias_mean)
    shared = content.covariance(0.0, input_correlation) / content_variance
    overlap = average_of_pair(jnp.tanh, jnp.tanh, content_variance, shared, content.bias_mean)
    nothing = jnp.zeros_like(moments)
    law = ContentLaw(moments, nothing[:3], nothing[0])

    def gate_covariance(state_overlap: Array, content_overlap: Array) -> Array:
        return update.covariance(state_overlap, input_correlation) + jnp.asarray(content_gain) ** 2 * content_overlap

    variance, theory = solve_update_gated(
        UpdateGated(
            gain=update.gain,
            gate_mean=update.bias_mean,
            gate_variance=lambda q: update.variance(q) + jnp.asarray(content_gain) ** 2 * moments[2],
            gate_covariance=lambda state_overlap: gate_covariance(state_overlap, overlap),
            content=lambda q: law,
            content_overlap=lambda state_overlap, q: overlap,
            input_correlation=input_correlation,
        )
    )
    return dataclasses.replace(theory, preactivation_variance={"update": variance, "candidate": content_variance})
