"""Where maps of one number settle, against roots in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.theory.scalar_fixed_points import settled


def parabola(constant, x):
    """x^2 + a has fixed points (1 -+ sqrt(1 - 4a)) / 2, the lower one stable."""
    return x**2 + constant, 2 * x


def root(constant, x):
    """a sqrt(x) has the fixed points 0, unstable, and a^2."""
    return constant * jnp.sqrt(x), constant / (2 * jnp.sqrt(x))


settle = jax.jit(jax.vmap(settled, (None, 0, 0, None)), static_argnums=(0, 3))


def test_a_convex_map_settles_at_its_lower_root_or_never():
    constant = jnp.array([0.1, 0.1, 0.2499999, 0.26, 0.1])
    found = settle(parabola, constant, jnp.array([0.0, 0.8, 0.0, 0.0, 0.9]), 1.0)
    np.testing.assert_allclose(found[:2], (1 - np.sqrt(0.6)) / 2, rtol=1e-14, atol=0)
    np.testing.assert_allclose(found[2], (1 - np.sqrt(1 - 4 * 0.2499999)) / 2, rtol=1e-11, atol=0)
    np.testing.assert_array_equal(found[3:], np.inf)


def test_a_concave_map_settles_at_its_upper_root():
    found = settle(root, jnp.full(4, 3.0), jnp.array([1e-20, 1.0, 9.0, 1e6]), 0.0)
    np.testing.assert_allclose(found, 9.0, rtol=1e-14, atol=0)


def test_a_map_that_is_not_a_number_gives_none():
    assert np.isnan(settle(parabola, jnp.array([np.nan]), jnp.zeros(1), 1.0)[0])


def test_the_derivative_is_that_of_the_root_both_ways():
    def lower(constant):
        return settled(parabola, constant, jnp.float64(0.0), 1.0)

    expected = 1 / np.sqrt(1 - 4 * 0.2)
    np.testing.assert_allclose(jax.grad(lower)(0.2), expected, rtol=1e-13, atol=0)
    np.testing.assert_allclose(jax.jvp(lower, (0.2,), (1.0,))[1], expected, rtol=1e-13, atol=0)


def test_single_precision_stays_single():
    found = settled(parabola, jnp.float32(0.1), jnp.float32(0), 1.0)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, (1 - np.sqrt(0.6)) / 2, rtol=1e-6, atol=0)
