r"""The mean field of `GRUCell` (Gilboa et al. 2019, arXiv 1901.08987), its reset gate after the matmul."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import require
from rnn_dynamics.theory.gated_mean_field import SMALLEST, GatedMeanField, GateLaw, Number, check_laws
from rnn_dynamics.theory.gaussian_averages import average
from rnn_dynamics.theory.update_gated_mean_field import ContentLaw, UpdateGated, powers, solve_update_gated

NODES = 32
"""Of the trapezoidal rule in each of the four dimensions of a pair of contents."""
FARTHEST = 8.0
"""Standard deviations that it goes to."""


def gru_mean_field(
    reset: GateLaw,
    update: GateLaw,
    candidate: GateLaw,
    *,
    recurrent_bias: GateLaw | None = None,
    input_correlation: Number = 1.0,
) -> GatedMeanField:
    r"""Predict what a wide `GRUCell` with untied weights does.

    .. math::
        n_t = \tanh(W_{xn} x_t + b_n + r_t \odot y_t), \qquad y_t = W_{hn} h_{t-1} + b_{hn}

    Given r the content's preactivation a is Gaussian, and so is y given r and a. The content's gain with respect to
    the state, squared, is :math:`s = \tanh'(a)^2 (g_n^2 r^2 + g_r^2 \sigma'(u_r)^2 y^2)`: moments of n and s are
    averages over r and a, to rounding. The mathematics is in `update_gated_mean_field`, what is assumed in
    `gated_mean_field`.

    Two replicas' contents need four dimensions, which are left to the trapezoidal rule: where the correlation is not 1,
    correlation and slope are good to 1e-9 if the content's preactivation has the variance 0.5, to 1e-5 at 1 and to 1e-3
    at 10. Worst is the slope of replicas that become independent, without inputs: 2e-4 off at 2, and 1e-2 at 6.

    Args:
        reset: law of the preactivation of r.
        update: law of the preactivation of z.
        candidate: law of W_hn h, which the reset gate scales, and of W_xn x + b_n, which it does not.
        recurrent_bias: bias mean and variance of b_hn, which the reset gate scales; 0 by default.
        input_correlation: of the inputs of two replicas.

    Returns:
        The theory, with the preactivation variances of the three gates, that of the content averaged over r.

    Raises:
        ValueError: gains or variances that are negative or not finite, a correlation outside 0 ... 1.
    """
    inner = GateLaw() if recurrent_bias is None else recurrent_bias
    given = {"reset": reset, "update": update, "candidate": candidate, "recurrent_bias": inner}
    check_laws(given, input_correlation)
    for field in ("gain", "drive_variance"):
        none = "0, for the bias sees neither state nor inputs"
        require(f"recurrent_bias.{field}", getattr(inner, field), none, lambda number: number == 0)
    scaled = GateLaw(candidate.gain, 0.0, inner.bias_mean, inner.bias_variance)
    outer = dataclasses.replace(candidate, gain=0.0)
    variance, theory = solve_update_gated(
        UpdateGated(
            gain=update.gain,
            gate_mean=update.bias_mean,
            gate_variance=update.variance,
            gate_covariance=lambda overlap: update.covariance(overlap, input_correlation),
            content=lambda q: content_law(reset, scaled, outer, q),
            content_overlap=lambda overlap, q: content_overlap(reset, scaled, outer, overlap, q, input_correlation),
            input_correlation=input_correlation,
        )
    )
    q = theory.second_moment
    opening = average(lambda u: powers(jax.nn.sigmoid(u)), reset.variance(q), reset.bias_mean)
    content = outer.variance(q) + opening[2] * scaled.variance(q)
    content += (opening[2] - opening[1] ** 2) * jnp.asarray(scaled.bias_mean) ** 2
    variances = {"reset": reset.variance(q), "update": variance, "candidate": content}
    return dataclasses.replace(theory, preactivation_variance=variances)


def content_law(reset: GateLaw, scaled: GateLaw, outer: GateLaw, q: Array) -> ContentLaw:
    """Average over reset gate and content.

    Args:
        reset: law of the reset gate's preactivation.
        scaled: law of y.
        outer: law of the content's preactivation but for r y.
        q: second moment of the state.

    Returns:
        The content's law.
    """
    y_variance, gains = scaled.variance(q), (jnp.asarray(scaled.gain) ** 2, jnp.asarray(reset.gain) ** 2)

    def given_reset(u: Array) -> Array:
        r, slope = jax.nn.sigmoid(u), jax.nn.sigmoid(u) * jax.nn.sigmoid(-u)
        a_variance = outer.variance(q) + r**2 * y_variance
        a_mean = outer.bias_mean + r * scaled.bias_mean
        through_r = gains[1] * slope**2

        def given_content(a: Array) -> Array:
            n = jnp.tanh(a)
            y = scaled.bias_mean + r * y_variance / a_variance * (a - a_mean)
            spread = y_variance * outer.variance(q) / a_variance  # of y given r and a
            s = (1 - n**2) ** 2 * (gains[0] * r**2 + through_r * (y**2 + spread))
            s_variance = (1 - n**2) ** 4 * through_r**2 * (4 * y**2 * spread + 2 * spread**2)
            return jnp.concatenate([powers(n), s[:, None] * powers(n, 2), (s**2 + s_variance)[:, None]], axis=1)

        return average(given_content, a_variance, a_mean)

    averages = average(jax.vmap(given_reset), reset.variance(q), reset.bias_mean)
    return ContentLaw(averages[:5], averages[5:8], averages[8])


def content_overlap(
    reset: GateLaw, scaled: GateLaw, outer: GateLaw, overlap: Array, q: Array, input_correlation: Number
) -> Array:
    """Average the product of two replicas' contents.

    Args:
        reset: law of the reset gate's preactivation.
        scaled: law of y.
        outer: law of the content's preactivation but for r y.
        overlap: E[h h'].
        q: second moment of the state.
        input_correlation: of the replicas' inputs.

    Returns:
        E[n n'], [].
    """
    z = jnp.linspace(-FARTHEST, FARTHEST, NODES)
    weights = jnp.exp(-(z**2) / 2)
    weights /= jnp.sum(weights)
    first, second = pair(reset.variance(q), reset.covariance(overlap, input_correlation), z)
    r_first, r_second = jax.nn.sigmoid(reset.bias_mean + first), jax.nn.sigmoid(reset.bias_mean + second)

    def given_resets(r: Array, r_other: Array) -> Array:
        own, others = (outer.variance(q) + x**2 * scaled.variance(q) for x in (r, r_other))
        shared = outer.covariance(0.0, input_correlation)
        shared += r * r_other * scaled.covariance(overlap, input_correlation)
        a = jnp.sqrt(own)
        along = shared / a
        across = jnp.sqrt(jnp.maximum(others - along**2, SMALLEST))
        n = jnp.tanh(outer.bias_mean + r * scaled.bias_mean + a * z)
        n_other = jnp.tanh(outer.bias_mean + r_other * scaled.bias_mean + along * z[:, None] + across * z[None, :])
        return jnp.einsum("i,i,ij,j", weights, n, n_other, weights)

    given_first = jax.vmap(jax.vmap(given_resets, (None, 0)), (0, 0))(r_first, r_second)
    return weights @ given_first @ weights


def pair(variance: Array, covariance: Array, z: Array) -> tuple[Array, Array]:
    """Make pairs of Gaussians with zero mean from independent ones.

    Args:
        variance: of each.
        covariance: of the two.
        z: standard deviations, [n].

    Returns:
        The first [n], and the second for each of them [n, n].
    """
    deviation = jnp.sqrt(variance)
    along = covariance / deviation
    across = jnp.sqrt(jnp.maximum(variance - along**2, SMALLEST))
    return deviation * z, along * z[:, None] + across * z[None, :]
