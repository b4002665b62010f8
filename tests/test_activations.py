"""Every activation's slopes as its table says, and modReLU on the line and in the plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.cells.activations import ACTIVATIONS, modrelu

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def test_each_activation_is_there_and_names_its_paper():
    required = "tanh relu leaky_relu sigmoid identity softplus gelu elu selu hard_tanh softsign sin"
    assert set(ACTIVATIONS) >= set(required.split())
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
    along, across = 0.6 + 0.8j, -0.8 + 0.6j
    cases = [  # z, b, direction, value, slope
        (3 + 4j, -1, along, 2.4 + 3.2j, 1),
        (3 + 4j, -1, across, 2.4 + 3.2j, 1 - 1 / 5),
        (0.3 + 0.4j, -1, along, 0, 0),
        (0, -1, along, 0, 0),
        (0, 0, along, 0, 1),
    ]
    z, bias, direction, value, slope = map(jnp.asarray, zip(*cases, strict=True))
    bias = bias.astype(jnp.float64)
    found, tangent = jax.jit(lambda z: jax.jvp(lambda z: modrelu(z, bias), (z,), (direction,)))(z)
    np.testing.assert_allclose(found, value, rtol=0, atol=1e-15)
    np.testing.assert_allclose(tangent / direction, slope, rtol=0, atol=1e-15)


def test_modrelu_keeps_dtypes_and_its_bias_learns():
    for dtype in (jnp.bfloat16, jnp.float32, jnp.complex64):
        x, bias = (jax.ShapeDtypeStruct((2,), kind) for kind in (dtype, jnp.finfo(dtype).dtype))
        assert jax.eval_shape(modrelu, x, bias).dtype == dtype
    x, bias = jnp.array([-2.0, -0.5, 3.0]), jnp.full(3, -1.0)
    gradient = jax.grad(lambda bias: jnp.sum(modrelu(x, bias)))(bias)
    np.testing.assert_array_equal(gradient, [-1, 0, 1])
