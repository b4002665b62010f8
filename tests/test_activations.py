"""Every activation's slopes as its table says, and modReLU on the line and in the plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.cells.activations import ACTIVATIONS, modrelu

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_each_activation_is_there_and_names_its_paper():
    required = "tanh relu leaky_relu sigmoid identity softplus gelu elu selu hard_tanh softsign sin"
    assert set(ACTIVATIONS) == set(required.split())
    assert all(activation.reference for activation in ACTIVATIONS.values())


def test_modrelu_on_the_line():
    x = jnp.array([-2.0, -0.5, 0.0, 0.5, 2.0])
    for bias, values, slopes in [
        (-1.0, [-1, 0, 0, 0, 1], [1, 0, 0, 0, 1]),
        (0.0, x, [1, 1, 1, 1, 1]),  # the identity, at 0 too, or a network would start without gradients
        (0.25, [-2.25, -0.75, 0, 0.75, 2.25], [1, 1, 1, 1, 1]),
    ]:
        value, slope = jax.vmap(jax.value_and_grad(modrelu), (0, None))(x, jnp.asarray(bias))
        np.testing.assert_array_equal(value, values)
        np.testing.assert_array_equal(slope, slopes)


def test_modrelu_in_the_plane():
    """Slope 1 along z and 1 + b/|z| across, and finite at 0, where z has no direction."""
    z, bias = jnp.array([3.0 + 4.0j, 0.3 + 0.4j, 0.0]), jnp.asarray(-1.0)
    np.testing.assert_allclose(modrelu(z, bias), [2.4 + 3.2j, 0, 0], atol=1e-15)
    along, across = z[0] / 5, 1j * z[0] / 5
    _, linear = jax.linearize(lambda z: modrelu(z, bias), z[0])
    np.testing.assert_allclose([linear(along) / along, linear(across) / across], [1, 1 - 1 / 5], atol=1e-15)
    for at_zero, slope in [(bias, 0), (jnp.asarray(0.0), 1)]:
        _, tangent = jax.jvp(lambda z, b=at_zero: modrelu(z, b), (z[2],), (along,))
        np.testing.assert_allclose(tangent, slope * along, atol=1e-15)


def test_modrelu_keeps_dtypes_and_its_bias_learns():
    for dtype in (jnp.bfloat16, jnp.float32, jnp.complex64):
        assert modrelu(jnp.ones(2, dtype), jnp.zeros(2, jnp.finfo(dtype).dtype)).dtype == dtype
    x, bias = jnp.array([-2.0, -0.5, 3.0]), jnp.full(3, -1.0)
    gradient = jax.grad(lambda bias: jnp.sum(modrelu(x, bias)))(bias)
    np.testing.assert_array_equal(gradient, [-1, 0, 1])
