"""Bounds on gradients against measured Jacobian products and spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import noise

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.activations import ACTIVATIONS
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import DrivenSystem, gradient_norm_by_lag, jacobian_product, lyapunov_spectrum
from rnn_dynamics.theory import gradient_bound


def cell_of(activation, weights, hidden=8):
    return ElmanCell(
        1, hidden, activation=activation, recurrent_kernel_init=weights, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_product_of_jacobians_exceeds_its_bound(name):
    """Weights that are not orthogonal: the bound is strict, and holds on either side of 1."""
    for gain in (0.4, 1.2):
        cell = cell_of(name, gaussian(gain))
        bound = gradient_bound(cell.recurrent_kernel[...], cell.activation)
        norm = np.linalg.svd(cell.recurrent_kernel[...])[1][0]
        np.testing.assert_allclose(bound.exponent, np.log(norm * ACTIVATIONS[name].max_slope), rtol=0, atol=1e-14)
        product = jacobian_product(DrivenSystem.from_cell(cell), noise(100), horizons=[1, 2, 5, 20, 100])
        assert np.all(product.log_norm <= bound.log_norm(product.horizons) + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "relu", "sigmoid"])
def test_no_gradient_and_no_exponent_exceeds_its_bound(name):
    cell = cell_of(name, gaussian(0.7))
    bound = gradient_bound(cell.recurrent_kernel[...], name)
    system, inputs = DrivenSystem.from_cell(cell), noise(300)
    gradient = gradient_norm_by_lag(system, inputs, max_lag=30, norm="spectral")
    assert np.all(gradient.samples <= bound.log_norm(gradient.lags)[None] + 1e-10)
    assert lyapunov_spectrum(system, inputs, k=1, tangent_transient=10).exponents[0] <= bound.exponent


def test_linear_orthogonal_networks_meet_the_bound():
    """Every singular value of their products is the gain to the power of the lag."""
    bounds = jax.vmap(lambda gain: gradient_bound(gain * jnp.eye(8)[::-1], "identity"))(jnp.array([0.9, 1.0, 1.1]))
    np.testing.assert_array_equal(bounds.must_vanish, [True, False, False])
    np.testing.assert_array_equal(bounds.may_explode, [False, False, True])
    np.testing.assert_allclose(bounds.log_norm(7), 7 * np.log([0.9, 1.0, 1.1]), rtol=0, atol=1e-14)


def product_of_relu_jacobians(weights, state, steps):
    product = np.eye(len(state))
    for _ in range(steps):
        preactivation = weights @ state
        state = np.maximum(preactivation, 0)
        product = (preactivation > 0)[:, None] * weights @ product
    return product


def test_a_spectral_radius_below_1_bounds_nothing_and_a_norm_above_1_makes_nothing():
    doubling = np.array([[2.0, 1.5], [-2.0, -1.5]])  # the second unit is silent
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(doubling).real), [0, 0.5], rtol=0, atol=1e-12)
    growth = np.linalg.norm(product_of_relu_jacobians(doubling, np.array([1.0, 0.0]), 10), 2)
    np.testing.assert_allclose(growth, 2**9 * np.hypot(2, 1.5), rtol=1e-12, atol=0)
    shear = np.array([[0.0, 5.0], [0.0, 0.0]])
    assert np.all(product_of_relu_jacobians(shear, np.ones(2), 2) == 0)
    for weights in (doubling, shear):
        bound = gradient_bound(jnp.asarray(weights), "relu")
        assert bound.may_explode
        assert not bound.must_vanish


@pytest.mark.parametrize("weights", [jnp.ones(3), jnp.ones((2, 3)), jnp.ones((2, 2, 2))])
def test_weights_that_are_no_square_matrix_get_one_sentence(weights):
    with pytest.raises(ValueError, match=r"recurrent_kernel must be a square matrix \[H, H\], got shape"):
        gradient_bound.__wrapped__(weights, "tanh")


def test_an_unknown_activation_gets_one_sentence():
    with pytest.raises(ValueError, match="unknown activation 'tan'"):
        gradient_bound(jnp.eye(2), "tan")
