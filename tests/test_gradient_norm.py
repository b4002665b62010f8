"""Gradient norms against the lag: against jax.grad, dense products, closed forms; and the tests' own loss gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, dense_jacobians, elman, linear_system, noise

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import orthogonal
from rnn_dynamics.dynamics import DrivenSystem, gradient_norm_by_lag, trajectory


def test_against_dense_products():
    system, inputs = DrivenSystem.from_cell(any_cell("LSTMCell")), noise(13, 2)
    result = gradient_norm_by_lag(system, inputs, max_lag=4, transient=1)
    jacobians = dense_jacobians(system, inputs)
    expected = []
    for end in (5, 9, 13):
        products = [np.eye(system.state_size)]
        for lag in range(1, 5):
            products.append(products[-1] @ jacobians[end - lag])
        expected.append([np.log(np.linalg.norm(product) / np.sqrt(system.state_size)) for product in products])
    np.testing.assert_allclose(result.samples, expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(result.log_norm, np.mean(expected, axis=0), rtol=0, atol=1e-11)
    np.testing.assert_allclose(result.standard_error, np.std(expected, axis=0, ddof=1) / np.sqrt(3), rtol=0, atol=1e-11)


@pytest.mark.parametrize("gain", [0.9, 0.5])
def test_reach_of_a_linear_orthogonal_network(gain):
    cell = ElmanCell(
        1, 5, activation="identity", recurrent_kernel_init=orthogonal(gain), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    result = gradient_norm_by_lag(DrivenSystem.from_cell(cell), noise(100), max_lag=50)
    np.testing.assert_allclose(result.log_norm, np.log(gain) * np.arange(51), rtol=0, atol=1e-11)
    assert float(result.reach) == pytest.approx(-1 / np.log(gain), abs=1e-9)


def test_a_gradient_that_grows_reaches_for_ever():
    result = gradient_norm_by_lag(linear_system(1.1 * np.eye(3)), steps=40, max_lag=20)
    assert np.isinf(result.reach)
    assert np.isnan(result.reach_standard_error)


def test_nothing_underflows():
    """0.5^4000 is 0 in float64; its logarithm is not."""
    result = gradient_norm_by_lag(linear_system(0.5 * np.eye(2)), steps=4000, max_lag=4000)
    assert float(result.log_norm[-1]) == pytest.approx(4000 * np.log(0.5), rel=1e-12)


def squares(state):
    """The gradient of a loss: sum of weights * state^2 / 2."""
    return jnp.arange(1.0, len(state) + 1) * state


def test_the_gradient_of_a_loss_on_its_way_back():
    system, inputs = DrivenSystem.from_cell(any_cell("LSTMCell", hidden=3)), noise(12, 2)
    result = gradient_norm_by_lag(system, inputs, max_lag=6, along=squares)
    states = jnp.concatenate([system.initial_state[None], trajectory(system, inputs)])

    def loss(state, first, last):
        for x in inputs[first:last]:
            state = system.step(state, x)
        return 0.5 * jnp.sum(jnp.arange(1.0, 7.0) * state**2)

    for number, end in enumerate((6, 12)):
        norms = [jnp.linalg.norm(jax.grad(loss)(states[end - lag], end - lag, end)) for lag in (0, 1, 6)]
        np.testing.assert_allclose(
            result.samples[number, [0, 1, 6]], np.log(np.array(norms) / norms[0]), rtol=0, atol=1e-12
        )


def test_the_gradient_of_a_loss_may_be_tiny():
    system = DrivenSystem.from_cell(elman(), dtype=jnp.float32)
    tiny, plain = [
        gradient_norm_by_lag(system, noise(6), max_lag=6, along=along)
        for along in (lambda state: jnp.full_like(state, 1e-25), jnp.ones_like)
    ]
    np.testing.assert_allclose(tiny.log_norm, plain.log_norm, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_probes_have_the_frobenius_norm_on_average():
    system, inputs = DrivenSystem.from_cell(elman(hidden=6)), noise(5)
    exact = gradient_norm_by_lag(system, inputs, max_lag=5).samples[0]

    def squared(key, probes):
        return jnp.exp(2 * gradient_norm_by_lag(system, inputs, max_lag=5, probes=probes, key=key).samples[0])

    for probes in (1, 4):
        drawn = jax.vmap(lambda key, probes=probes: squared(key, probes))(jax.random.split(jax.random.key(0), 2000))
        error = jnp.std(drawn, axis=0) / np.sqrt(2000)
        assert drawn[:, 0] == pytest.approx(1, abs=1e-13)
        assert np.all(jnp.abs(jnp.mean(drawn, axis=0) - jnp.exp(2 * exact))[1:] < 4 * error[1:])
        assert np.all(jnp.std(drawn, axis=0) < np.sqrt(2 / probes) * jnp.exp(2 * exact))


def test_a_gradient_of_0_has_no_norm_to_be_compared_with():
    result = gradient_norm_by_lag(DrivenSystem.from_cell(elman()), noise(10), max_lag=5, along=jnp.zeros_like)
    assert np.all(np.isnan(result.log_norm))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_lag": 2, "probes": 0}, "probes must be a whole number >= 1, got 0"),
        ({"max_lag": 2, "probes": 3, "along": squares}, "give one of along, probes and norm='spectral', got"),
        ({"max_lag": 2, "probes": 3, "norm": "spectral"}, "give one of along, probes and norm='spectral', got"),
        ({"max_lag": 0}, "max_lag must be a whole number >= 1, got 0"),
        ({"max_lag": 11}, "max_lag must be between 1 and the 10 steps"),
        ({"max_lag": 8, "transient": 3}, "max_lag must be between 1 and the 7 steps"),
        ({"max_lag": 5, "norm": "nuclear"}, "norm must be one of frobenius, spectral, got 'nuclear'"),
    ],
)
def test_bad_input_gets_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        gradient_norm_by_lag(DrivenSystem.from_cell(elman()), noise(10), **options)
