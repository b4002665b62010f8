"""Lyapunov spectra against closed forms, published values, determinants and other implementations of the same
network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, dense_jacobians, elman, linear_system, lstm, noise, slow_but, zeros
from scipy.special import digamma

from rnn_dynamics.cells import ElmanCell, LSTMCell
from rnn_dynamics.cells.activations import ACTIVATIONS
from rnn_dynamics.cells.initializers import gaussian, identity, orthogonal
from rnn_dynamics.dynamics import DrivenSystem, jacobian_product, lyapunov_spectrum, trajectory


def ginibre_step(scale, carry, inputs_t):
    size = carry.shape[0]
    return scale * inputs_t.reshape(size, size) @ carry


def ginibre_spectrum(size, steps, **options):
    """Product of matrices with independent N(0, 1/N) entries, drawn anew at each step by a function of the step."""
    key = jax.random.key(7)

    def inputs(t):
        return jax.random.normal(jax.random.fold_in(key, t), (size * size,), jnp.float64)

    system = DrivenSystem.from_step(ginibre_step, jnp.float64(size**-0.5), jnp.ones(size))
    return lyapunov_spectrum(system, inputs, steps=steps, **options)


def newman(size):
    """Newman, Commun. Math. Phys. 103 (1986): exponents of products of real Gaussian matrices, variance 1/N."""
    i = np.arange(1, size + 1)
    return 0.5 * (np.log(2 / size) + digamma((size - i + 1) / 2))


@pytest.mark.parametrize(("size", "first", "last"), [(2, -0.28860783, -0.98175501), (3, -0.18448757, -1.18448757)])
def test_gaussian_products_have_newmans_exponents(size, first, last):
    result = ginibre_spectrum(size, 40_000)
    np.testing.assert_allclose(newman(size)[[0, -1]], [first, last], rtol=0, atol=1e-8)
    # The state itself decays and says nothing here; each step's growth is independent, so errors are Gaussian.
    deviations = (result.exponents - newman(size)) / result.standard_error
    assert np.all(np.abs(deviations) < 4)
    assert np.all(result.standard_error < 0.01)


@pytest.mark.slow
def test_gaussian_products_have_newmans_mean_at_n_100():
    result = ginibre_spectrum(100, 2000)
    assert np.mean(newman(100)) == pytest.approx(-0.51219304, abs=1e-8)
    mean_error = np.std(np.mean(result.batch_means, axis=1), ddof=1) / np.sqrt(result.batch_means.shape[0])
    assert abs(np.mean(result.exponents) - np.mean(newman(100))) < 4 * mean_error
    assert mean_error < 5e-4


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.7])
def test_linear_orthogonal_network_grows_by_its_gain(gain):
    cell = ElmanCell(
        1, 12, activation="identity", recurrent_kernel_init=orthogonal(gain), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    result = lyapunov_spectrum(DrivenSystem.from_cell(cell), noise(300))
    np.testing.assert_allclose(result.exponents, np.log(gain), rtol=0, atol=1e-14)
    np.testing.assert_allclose(result.standard_error, 0, rtol=0, atol=1e-14)


def test_linear_network_has_the_logarithms_of_its_eigenvalues():
    matrix = np.random.default_rng(0).normal(size=(6, 6)) / np.sqrt(6)
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(matrix))))[::-1]
    result = lyapunov_spectrum(linear_system(matrix), steps=20_000, tangent_transient=500)
    # Complex pairs make the finite-time value oscillate with amplitude O(1/T).
    np.testing.assert_allclose(result.exponents, expected, rtol=0, atol=5e-4)
    assert result.log_det_residual < 1e-12


def leaky_step(params, carry, inputs_t):
    weights, leak = params
    return (1 - leak) * carry + leak * weights @ carry


def test_leaky_linear_network():
    leak = 0.2
    matrix = np.diag([1.5, 0.9, -0.5]) + np.triu(np.ones((3, 3)), 1)
    system = DrivenSystem.from_step(leaky_step, (jnp.asarray(matrix), jnp.float64(leak)), jnp.ones(3))
    expected = np.sort(np.log(np.abs(1 - leak + leak * np.diag(matrix))))[::-1] / leak  # nats per time constant
    result = lyapunov_spectrum(system, steps=1200, tangent_transient=800)
    np.testing.assert_allclose(result.exponents / leak, expected, rtol=0, atol=1e-9)


def test_mean_exponent_of_a_tanh_network():
    cell = elman(hidden=10)
    system, inputs = DrivenSystem.from_cell(cell), noise(200)
    states = trajectory(system, inputs)
    slopes = 1 - states**2
    expected = jnp.mean(jnp.log(slopes)) + jnp.linalg.slogdet(cell.recurrent_kernel[...])[1] / 10
    assert float(jnp.mean(lyapunov_spectrum(system, inputs).exponents)) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("forget_bias", "expected"), [(0.0, -0.69314718), (1.0, -0.31326169), (np.log(99.0), np.log(1 - 1 / 100))]
)
def test_lstm_without_weights_forgets_at_its_forget_gate(forget_bias, expected):
    cell = LSTMCell(
        1,
        5,
        forget_bias=forget_bias,
        kernel_init=zeros,
        recurrent_kernel_init=zeros,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    result = lyapunov_spectrum(DrivenSystem.from_cell(cell), noise(50), tangent_transient=1)
    np.testing.assert_allclose(result.exponents[:5], -np.log1p(np.exp(-forget_bias)), rtol=0, atol=1e-14)
    np.testing.assert_allclose(result.exponents[:5], expected, rtol=0, atol=1e-8)
    assert np.all(np.isneginf(result.exponents[5:]))
    assert result.log_det_residual == 0


@pytest.mark.parametrize("name", slow_but(("tanh", "relu"), [name for name in ACTIVATIONS if name not in {"gelu"}]))
def test_gradients_vanish_below_pascanus_sufficient_bound(name):
    """||W||_2 < 1/sup|phi'| implies ||J_T ... J_1|| <= (||W||_2 sup|phi'|)^T (Pascanu, Mikolov and Bengio 2013)."""
    ratio = 0.98
    cell = ElmanCell(
        1,
        8,
        activation=name,
        recurrent_kernel_init=orthogonal(ratio / ACTIVATIONS[name].max_slope),
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    system, inputs = DrivenSystem.from_cell(cell), noise(200)
    bound = np.log(ratio)
    if name in {"tanh", "sigmoid"}:  # the spectrum takes as long to compile as all else
        assert lyapunov_spectrum(system, inputs, k=1).exponents[0] <= bound + 1e-12
    product = jacobian_product(system, inputs, horizons=[1, 10, 200])
    assert np.all(product.log_norm <= product.horizons * bound + 1e-10)


def logistic_step(rate, carry, inputs_t):
    return rate * carry * (1 - carry)


def henon_step(params, carry, inputs_t):
    a, b = params
    x, y = carry
    return jnp.stack([1 - a * x**2 + y, b * x])


def test_logistic_map_at_4():
    system = DrivenSystem.from_step(logistic_step, jnp.float64(4.0), jnp.array([0.3]))
    result = lyapunov_spectrum(system, steps=100_000, transient=100)
    assert abs(float(result.exponents[0]) - np.log(2)) < 4 * float(result.standard_error[0])
    assert result.standard_error[0] < 1e-3


def test_henon_map():
    system = DrivenSystem.from_step(henon_step, (jnp.float64(1.4), jnp.float64(0.3)), jnp.array([0.1, 0.1]))
    result = lyapunov_spectrum(system, steps=100_000, transient=100, tangent_transient=100)
    assert float(jnp.sum(result.exponents)) == pytest.approx(np.log(0.3), abs=1e-12)
    assert abs(float(result.exponents[0]) - 0.4192) < 4 * float(result.standard_error[0]) + 1e-4  # 4 published digits


def flax_lstm_with_weights_of(cell):
    """Flax's OptimizedLSTMCell keeps its gates in the order i, f, g, o as we do, and one bias."""
    theirs = nnx.OptimizedLSTMCell(cell.in_features, cell.hidden_features, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    theirs.dense_i.kernel[...] = cell.kernel[...]
    theirs.dense_h.kernel[...] = cell.recurrent_kernel[...]
    theirs.dense_h.bias[...] = cell.bias[...]
    return theirs


def plain_lstm_step(params, carry, x):
    kernel, recurrent_kernel, bias = params
    c, h = carry
    i, f, g, o = jnp.split(x @ kernel + h @ recurrent_kernel + bias, 4)
    c = c / (1 + jnp.exp(-f)) + jnp.tanh(g) / (1 + jnp.exp(-i))
    return c, jnp.tanh(c) / (1 + jnp.exp(-o))


def test_flax_lstm_and_a_hand_written_one_have_our_spectrum():
    cell, inputs = lstm(hidden=6, gain=2.0), noise(400)
    params = (cell.kernel[...], cell.recurrent_kernel[...], cell.bias[...])
    systems = [
        DrivenSystem.from_cell(cell),
        DrivenSystem.from_cell(flax_lstm_with_weights_of(cell)),
        DrivenSystem.from_step(plain_lstm_step, params, (jnp.zeros(6), jnp.zeros(6))),
    ]
    ours, flax, plain = [lyapunov_spectrum(system, inputs).exponents for system in systems]
    assert ours.shape == (12,)  # the cell state counts: N = 2H
    np.testing.assert_allclose(flax, ours, rtol=1e-9)
    np.testing.assert_allclose(plain, ours, rtol=1e-9)


@pytest.mark.slow
def test_leading_exponents_are_those_of_the_full_spectrum():
    """The first k columns of a QR do not depend on the others; the start frames differ, so compare after alignment."""
    system, inputs = DrivenSystem.from_cell(any_cell("LSTMCell")), noise(4000, 2)
    full = lyapunov_spectrum(system, inputs, tangent_transient=1500)
    leading = lyapunov_spectrum(system, inputs, tangent_transient=1500, k=2)
    # What is left of the start frames is bounded: an error O(1/T).
    np.testing.assert_allclose(leading.exponents, full.exponents[:2], rtol=0, atol=2e-3)
    assert jnp.isnan(leading.log_det_residual)


@pytest.mark.parametrize("qr_every", [3])
def test_rarer_orthonormalisation_changes_nothing_while_it_is_safe(qr_every):
    system, inputs = DrivenSystem.from_cell(elman(gain=1.5)), noise(1001)
    every_step = lyapunov_spectrum(system, inputs)
    np.testing.assert_allclose(
        lyapunov_spectrum(system, inputs, qr_every=qr_every).exponents, every_step.exponents, rtol=0, atol=1e-9
    )


def test_directions_beyond_resolution_are_nan_and_the_others_stay_right():
    """A spread of 5 nats per step: 25 steps between orthonormalisations leave room for the leading exponents only."""
    system, inputs = DrivenSystem.from_cell(elman(hidden=16)), noise(400)
    rarely, every_step = lyapunov_spectrum(system, inputs, qr_every=25), lyapunov_spectrum(system, inputs)
    resolved = np.isfinite(rarely.exponents)
    assert 0 < resolved.sum() < 16
    np.testing.assert_allclose(rarely.exponents[:2], every_step.exponents[:2], rtol=0, atol=1e-9)
    assert not np.isfinite(rarely.log_det_residual)
    assert rarely.first_nonfinite_step == -1  # the state itself is fine


@pytest.mark.slow
def test_relu_network_has_minus_infinity_where_its_jacobian_is_singular():
    cell = ElmanCell(
        1, 8, activation="relu", recurrent_kernel_init=gaussian(1.4), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    system, inputs = DrivenSystem.from_cell(cell), noise(500)
    ranks = np.linalg.matrix_rank(dense_jacobians(system, inputs))
    exponents = lyapunov_spectrum(system, inputs).exponents
    finite = np.isfinite(exponents)
    assert 0 < finite.sum() <= ranks.min() < 8
    assert np.all(np.isneginf(exponents[~finite]))


@pytest.mark.slow
def test_float32_agrees_with_float64():
    """A stable network: the trajectories stay together, so the exponents agree to float32's rounding."""
    double = elman(gain=0.8)
    system, inputs = DrivenSystem.from_cell(double), noise(2000)
    single = DrivenSystem.from_cell(double, dtype=jnp.float32)
    result = lyapunov_spectrum(single, inputs, tangent_transient=1000)  # the start frames differ with the dtype
    assert result.exponents.dtype == jnp.float32
    expected = lyapunov_spectrum(system, inputs, tangent_transient=1000).exponents
    np.testing.assert_allclose(result.exponents, expected, rtol=0, atol=3e-6)


@pytest.mark.slow
def test_gain_can_be_swept_by_vmap():
    def spectrum(gain):
        cell = ElmanCell(
            1, 6, recurrent_kernel_init=gaussian(gain), param_dtype=jnp.float64, rngs=nnx.Rngs(jax.random.key(0))
        )
        return lyapunov_spectrum(DrivenSystem.from_cell(cell), noise(50)).exponents

    gains = jnp.array([0.5, 1.5])
    swept = jax.vmap(spectrum)(gains)
    for gain, exponents in zip(gains, swept, strict=True):
        np.testing.assert_allclose(exponents, spectrum(gain), rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [2, 5])
def test_differentiable_through_the_qr(k):
    """d lambda_1 / d gain of a linear orthogonal network is 1 / gain."""

    def largest(gain):
        system = linear_system(gain * jax.random.orthogonal(jax.random.key(0), 5, dtype=jnp.float64))
        return lyapunov_spectrum(system, steps=20, k=k).exponents[0]

    assert float(jax.grad(largest)(jnp.float64(1.3))) == pytest.approx(1 / 1.3, abs=1e-10)


@pytest.mark.slow
def test_rank_deficient_linear_network():
    matrix = np.random.default_rng(1).normal(size=(6, 2)) @ np.random.default_rng(2).normal(size=(2, 6))
    result = lyapunov_spectrum(linear_system(matrix), steps=5000, tangent_transient=100)
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(matrix))))[::-1][:2]
    np.testing.assert_allclose(result.exponents[:2], expected, rtol=0, atol=1e-3)
    assert np.all(np.isneginf(result.exponents[2:]))
    assert result.log_det_residual == 0


def test_identity_network_is_exactly_neutral():
    cell = ElmanCell(
        1, 7, activation="identity", recurrent_kernel_init=identity(), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    np.testing.assert_allclose(
        lyapunov_spectrum(DrivenSystem.from_cell(cell), noise(50)).exponents, 0, rtol=0, atol=1e-15
    )
