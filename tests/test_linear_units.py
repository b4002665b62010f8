"""Second moments of linear units against sums in high precision, real gradients of LRU cells, and their own limits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flax import nnx
from networks import slow_but

from rnn_dynamics.cells import LRUCell
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.theory.linear_units import (
    edge_moments,
    lru_sensitivity,
    parameter_sensitivity,
    unit_moments,
    unit_moments_of_autocorrelation,
)

EIGENVALUES = [0.0, 0.7, -0.8, 0.6 + 0.65j, 0.3 - 0.2j]


def sums_in_high_precision(eigenvalue, autocorrelation, lags=900):
    """Sum a_k conj(b_l) R(k - l) over k and l, term by term, for the impulse responses of h and dh/dlambda.

    `autocorrelation` is R(1) / R(0), of inputs that correlate geometrically, or a list R(0), R(1) ...
    """
    with mpmath.workdps(40):
        eigenvalue = mpmath.mpc(eigenvalue)
        state = [eigenvalue**k for k in range(lags)]
        slope = [k * eigenvalue ** (k - 1) if k else mpmath.mpc(0) for k in range(lags)]

        def total(a, b):
            if isinstance(autocorrelation, list):
                spread = range(1 - len(autocorrelation), len(autocorrelation))
                pairs = (
                    (k, k - d, autocorrelation[abs(d)]) for d in spread for k in range(max(d, 0), lags + min(d, 0))
                )
                return mpmath.fsum(a[k] * mpmath.conj(b[l]) * r for k, l, r in pairs)
            # sum over l < k of rho^(k-l) b_l, and over l > k of a likewise, by recurrence
            sum_, before_a, before_b = mpmath.mpc(0), mpmath.mpc(0), mpmath.mpc(0)
            for a_k, b_k in zip(a, map(mpmath.conj, b), strict=True):
                sum_ += a_k * b_k + a_k * before_b + before_a * b_k
                before_a, before_b = autocorrelation * (before_a + a_k), autocorrelation * (before_b + b_k)
            return sum_

        return [complex(total(*pair)) for pair in ((state, state), (slope, state), (slope, slope))]


def assert_moments(moments, expected, rtol):
    for found, value in zip((moments.state, moments.cross, moments.sensitivity), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("correlation", slow_but([0.5], [0.0, 0.5, -0.9, 1.0]))
def test_moments_of_geometrically_correlated_inputs(correlation):
    for eigenvalue in EIGENVALUES:
        expected = sums_in_high_precision(eigenvalue, correlation)
        assert_moments(unit_moments(eigenvalue, correlation), expected, rtol=1e-13)


def test_moments_of_any_autocorrelation():
    autocorrelation = [1.5, 0.4, -0.3, 0.2]
    for eigenvalue in EIGENVALUES:
        expected = sums_in_high_precision(eigenvalue, autocorrelation, lags=600)
        found = unit_moments_of_autocorrelation(eigenvalue, jnp.array(autocorrelation))
        assert_moments(found, expected, rtol=1e-13)


def test_the_two_forms_are_one():
    """A geometric autocorrelation until it is below rounding; of white inputs R(0) alone."""
    eigenvalues = jnp.array(EIGENVALUES)
    for correlation, lags in ((0.0, 1), (0.6, 90)):
        by_lags = unit_moments_of_autocorrelation(eigenvalues, correlation ** jnp.arange(lags))
        closed = unit_moments(eigenvalues, correlation)
        assert_moments(by_lags, (closed.state, closed.cross, closed.sensitivity), rtol=1e-13)


def test_white_inputs_in_the_papers_form():
    moduli = np.abs(np.array(EIGENVALUES)) ** 2
    moments = unit_moments(jnp.array(EIGENVALUES))
    np.testing.assert_allclose(moments.state, 1 / (1 - moduli), rtol=1e-14, atol=0)
    np.testing.assert_allclose(moments.sensitivity, (1 + moduli) / (1 - moduli) ** 3, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("phase", "correlation"), [(0.0, 0.0), (0.0, 0.8), (1.1, -0.5)])
def test_divergence_at_the_unit_circle(phase, correlation):
    """The relative error of the leading term falls with the distance, tenfold each time or faster."""
    errors = []
    for distance in (1e-3, 1e-4, 1e-5):
        edge = edge_moments(distance, phase, correlation)
        exact = unit_moments((1 - distance) * np.exp(1j * phase), correlation)
        ratios = [edge.state / exact.state, edge.cross / exact.cross, edge.sensitivity / exact.sensitivity]
        errors.append(np.abs(np.array(ratios) - 1))
    assert np.all(errors[-1] < 1e-3)
    assert np.all(np.array(errors[1:]) < 0.11 * np.array(errors[:-1]) + 1e-9)


def exponential(nu_log):
    return jnp.exp(-jnp.exp(nu_log)), jnp.sqrt(-jnp.expm1(-2 * jnp.exp(nu_log)))


def normalised(eigenvalue):
    return eigenvalue, jnp.sqrt(1 - eigenvalue**2)


def plain(eigenvalue):
    return eigenvalue, jnp.ones_like(eigenvalue)


def test_normalisation_and_parametrisation_lift_the_curse_one_power_at_a_time():
    """White inputs, epsilon = 1 - lambda: 1/4 e^3 plain; with gamma' of gamma = sqrt(1 - lambda^2), by hand, (1/2 - 1/2
    + 1/4) / e^2; by ln(-ln lambda), whose slope is epsilon, 1/4."""
    distance = 1e-5
    sensitivities = [
        parameter_sensitivity(plain, 1 - distance) * distance**3,
        parameter_sensitivity(normalised, 1 - distance) * distance**2,
        parameter_sensitivity(exponential, np.log(-np.log1p(-distance))),
    ]
    np.testing.assert_allclose(sensitivities, [1 / 4, 1 / 4, 1 / 4], rtol=1e-4, atol=0)


def test_parameter_sensitivity_is_the_sum_over_the_impulse_response():
    """d(gamma lambda^k)/dp by differences, squared and summed: white inputs have nothing else."""
    point, step = jnp.float64(-1.3), 1e-5

    def response(nu_log):
        eigenvalue, scale = exponential(nu_log)
        return scale * eigenvalue ** jnp.arange(400)

    slopes = (response(point + step) - response(point - step)) / (2 * step)
    np.testing.assert_allclose(parameter_sensitivity(exponential, point), jnp.sum(slopes**2), rtol=1e-8, atol=0)


def test_an_lru_keeps_its_digits_at_long_memories():
    """e^nu = 1e-12, where 1 - |lambda|^2 has lost all but four of its digits: f, f/2 and (theta / e^nu)^2 f / 2."""
    rate, phase, correlation = 1e-12, 0.4, 0.5
    found = lru_sensitivity(np.log(rate), np.log(phase), correlation)
    spectrum = (1 - correlation**2) / abs(1 - correlation * np.exp(1j * phase)) ** 2
    expected = [spectrum, spectrum / 2, spectrum / 2 * (phase / rate) ** 2, spectrum]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=0)


def autoregressive(samples, steps, correlation, seed):
    """Stationary inputs of variance 1 and R(k) = rho^|k|, [samples, steps, 1]."""
    noise = np.random.default_rng(seed).normal(size=(samples, steps, 1))
    inputs = noise.copy()
    for t in range(1, steps):
        inputs[:, t] = correlation * inputs[:, t - 1] + np.sqrt(1 - correlation**2) * noise[:, t]
    return jnp.asarray(inputs)


@pytest.fixture(scope="module")
def squares_of_real_gradients():
    """|h_T|^2 and |dh_T/dp|^2 of three LRU units by each parameter, for every sequence, from `Recurrence`."""
    cell = LRUCell(1, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    cell.nu_log[...] = jnp.log(jnp.array([0.08, 0.3, 1.0]))
    cell.theta_log[...] = jnp.log(jnp.array([0.2, 1.0, 2.5]))
    cell.gamma_log[...] = jnp.log(-jnp.expm1(-2 * jnp.exp(cell.nu_log[...]))) / 2
    cell.B_re[...], cell.B_im[...] = jnp.full((1, 3), 0.6), jnp.full((1, 3), 0.8)  # of modulus 1
    graph, params, rest = nnx.split(Recurrence(cell), nnx.Param, ...)

    def parts(params, sequence):
        state = nnx.merge(graph, params, rest)(sequence[None])[0][0]
        return jnp.stack([jnp.sum(jnp.real(state)), jnp.sum(jnp.imag(state))]), state

    @jax.jit
    @jax.vmap
    def squares(sequence):
        jacobian, state = jax.jacrev(parts, has_aux=True)(params, sequence)  # a unit sees its own parameters alone
        names = ("nu_log", "theta_log", "gamma_log")
        return jnp.stack([jnp.abs(state) ** 2, *(jnp.sum(jacobian["cell"][name][...] ** 2, axis=0) for name in names)])

    return cell, squares


@pytest.mark.parametrize("correlation", slow_but([0.7], [0.0, 0.7]))
def test_real_gradients_of_an_lru_have_these_mean_squares(squares_of_real_gradients, correlation):
    cell, squares = squares_of_real_gradients
    found = np.asarray(squares(autoregressive(3000, 160, correlation, seed=4)))  # |lambda|^160 < 3e-6
    expected = np.stack(lru_sensitivity(cell.nu_log[...], cell.theta_log[...], correlation))
    error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
    assert np.all(error < 0.04 * expected)
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4 * error)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: unit_moments(1.0), "eigenvalue must be inside the unit circle, got 1.0"),
        (lambda: unit_moments(0.5, 1.2), "correlation must be between -1 and 1, got 1.2"),
        (lambda: unit_moments_of_autocorrelation(0.5, jnp.zeros(0)), r"autocorrelation must .* \[lag\], got \(0,\)"),
        (lambda: edge_moments(0.0), "distance must be a finite number > 0, got 0.0"),
        (lambda: edge_moments(0.1, 0.0, 1.0), "correlation must be inside -1 ... 1, got 1.0"),
        (lambda: parameter_sensitivity(plain, 1.5), "eigenvalue must be inside the unit circle, got 1.5"),
        (lambda: lru_sensitivity(0.0, 0.0, -2.0), "correlation must be between -1 and 1, got -2.0"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
