"""Gaussian averages against closed forms and high precision: kinks, saturation, derivatives, pairs."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.special import erf

from rnn_dynamics.theory.gaussian_averages import average, average_of_pair

VARIANCES = jnp.array([1e-6, 0.01, 1.0, 30.0, 1e4])
averages = jax.jit(jax.vmap(average, (None, 0, None)), static_argnums=0)
pairs = jax.jit(jax.vmap(average_of_pair, (None, None, None, 0)), static_argnums=(0, 1))


def relu(u):
    return jnp.maximum(u, 0)


def powers(u):
    return jnp.stack([jnp.ones_like(u), u, u**2, u**4, relu(u), relu(u) ** 2], axis=-1)


def square_of_tanh(u):
    return jnp.tanh(u) ** 2


def ramp(u):
    return jnp.clip(u, -1, 1)


def test_moments_with_and_without_kinks():
    """Functions of several values go in one pass."""
    v, m = np.asarray(VARIANCES), 0.7
    density, above = np.exp(-(m**2) / (2 * v)) * np.sqrt(v / (2 * np.pi)), (1 + erf(m / np.sqrt(2 * v))) / 2
    expected = [np.ones(5), np.full(5, m), m**2 + v, m**4 + 6 * m**2 * v + 3 * v**2]
    expected += [m * above + density, (m**2 + v) * above + m * density]
    np.testing.assert_allclose(averages(powers, VARIANCES, m), np.stack(expected, axis=1), rtol=1e-14, atol=1e-13)


def test_a_ramp_and_its_jumping_slope():
    """E[clip(u)^2] = v erf(1/sqrt(2v)) - sqrt(2v/pi) exp(-1/2v) + erfc(1/sqrt(2v)), from the tails of a Gaussian."""
    v = np.asarray(VARIANCES)
    inside = erf(1 / np.sqrt(2 * v))
    expected = v * inside - np.sqrt(2 * v / np.pi) * np.exp(-1 / (2 * v)) + (1 - inside)
    square, by_variance = jax.jit(jax.vmap(jax.value_and_grad(lambda v: average(lambda u: ramp(u) ** 2, v))))(VARIANCES)
    np.testing.assert_allclose(square, expected, rtol=1e-13, atol=0)
    np.testing.assert_allclose(by_variance, inside - np.sqrt(2 / (np.pi * v)) * np.exp(-1 / (2 * v)), rtol=1e-9, atol=0)


def test_derivatives_of_a_function_that_jumps():
    """d/dm P(u > 0) is the density at 0, and d/dv half of the density's slope."""
    by_mean, by_variance = jax.jit(jax.grad(lambda m, v: average(lambda u: (u > 0).astype(u.dtype), v, m), (0, 1)))(
        0.5, 2.0
    )
    density = np.exp(-(0.5**2) / 4) / np.sqrt(4 * np.pi)
    np.testing.assert_allclose([by_mean, by_variance], [density, -density * 0.5 / 4], rtol=1e-12, atol=0)


@pytest.mark.parametrize("variance", [0.3, 40.0])
def test_saturating_functions_against_high_precision(variance):
    with mpmath.workdps(25):

        def weighted(u):
            return mpmath.tanh(u) ** 2 * mpmath.exp(-(u**2) / (2 * variance)) / mpmath.sqrt(2 * mpmath.pi * variance)

        reach = 14 * mpmath.sqrt(variance)
        expected = float(2 * mpmath.quad(weighted, mpmath.linspace(0, reach, 60)))
    assert float(averages(square_of_tanh, jnp.array([variance]), 0.0)[0]) == pytest.approx(expected, rel=2e-15)


def test_no_variance_is_the_value_at_the_mean():
    at_the_mean = averages(powers, jnp.zeros(5), 0.7)
    np.testing.assert_allclose(at_the_mean, np.tile(powers(jnp.array(0.7)), (5, 1)), rtol=1e-15, atol=0)


def test_pairs_have_their_closed_forms():
    """E[sin sin] = e^-v sinh(c v); relu: the arc-cosine kernel of order 1 (Cho and Saul 2009)."""
    v, c = 1.7, jnp.array([-1.0, -0.6, 0.0, 0.3, 0.99, 1.0])
    np.testing.assert_allclose(pairs(jnp.sin, jnp.sin, v, c), np.exp(-v) * np.sinh(c * v), rtol=1e-13, atol=1e-16)
    angle = np.arccos(c)
    kernel = v / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
    np.testing.assert_allclose(pairs(relu, relu, v, c), kernel, rtol=1e-13, atol=1e-15)


def test_pairs_of_two_functions_with_a_mean_and_the_derivative_by_correlation():
    """E[u_1 exp(u_2)] = (m + c v) exp(m + v/2); by Price (1958) the derivative is v times the product of the slopes."""
    v, m = 0.8, 0.3

    @jax.jit
    @jax.value_and_grad
    def both(c):
        return average_of_pair(lambda u: u, jnp.exp, v, c, m)

    value, derivative = both(-0.4)
    assert float(value) == pytest.approx((m - 0.4 * v) * np.exp(m + v / 2), rel=1e-14)
    assert float(derivative) == pytest.approx(v * np.exp(m + v / 2), rel=1e-13)


def test_single_precision_stays_single():
    single = jax.ShapeDtypeStruct((), jnp.float32)
    assert jax.eval_shape(lambda v, m: average(jnp.tanh, v, m), single, single).dtype == jnp.float32
    assert jax.eval_shape(lambda v: average_of_pair(jnp.tanh, jnp.sin, v, 0.3), single).dtype == jnp.float32
