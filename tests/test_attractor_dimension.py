"""Kaplan-Yorke dimension and entropy rate: closed forms, Lorenz's attractor, and errors against repeated runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.dynamics import (
    DrivenSystem,
    LyapunovSpectrum,
    entropy_rate,
    kaplan_yorke_dimension,
    lyapunov_spectrum,
)

INF, NAN = np.inf, np.nan


def spectrum_of(batch_means, size):
    """A spectrum of exponents [K] that are the average of batches [B, K], of a network of some size."""
    batch_means = jnp.asarray(batch_means)
    exponents = jnp.mean(batch_means, axis=0)
    error = jnp.std(batch_means, axis=0, ddof=1) / np.sqrt(len(batch_means))
    scalars = dict.fromkeys(("log_det_residual", "steps_per_qr", "largest_spread", "sweep_residual"), jnp.zeros(()))
    return LyapunovSpectrum(
        exponents=exponents,
        standard_error=error,
        batch_means=batch_means,
        growth=batch_means,
        growth_steps=jnp.ones(len(batch_means), jnp.int32),
        sweeps=jnp.int32(0),
        first_nonfinite_step=jnp.int32(-1),
        final_step=jnp.int32(len(batch_means)),
        final_state=jnp.zeros(size),
        final_tangents=jnp.zeros((size, len(exponents))),
        **scalars,
    )


@pytest.mark.parametrize(
    ("exponents", "dimension", "entropy"),
    [
        ([0.9056, 0.0, -14.5723], 2 + 0.9056 / 14.5723, 0.9056),  # Lorenz, published: 2.062
        ([-1.623, 0.419], 1 + 0.419 / 1.623, 0.419),  # Henon, in any order
        ([-0.1, -0.2], 0.0, 0.0),
        ([0.0, -1.0], 1.0, 0.0),  # a limit cycle
        ([0.5, -0.25, -0.25, -3.0], 3.0, 0.5),  # the sum is exactly 0 at m = 3
        ([0.5, 0.1, -INF], 2.0, 0.6),
        ([0.5, -2.0, NAN], 1.25, 0.5),  # float32 does not resolve the last, and need not
        ([0.5, -0.2, NAN], NAN, 0.5),
        ([0.5, -0.2], NAN, 0.5),  # at least 2
        ([0.5, 0.2], NAN, NAN),  # and others may be positive
        ([NAN, NAN], NAN, NAN),
    ],
)
def test_closed_forms(exponents, dimension, entropy):
    for estimate, expected in (
        (kaplan_yorke_dimension(np.array(exponents)), dimension),
        (entropy_rate(np.array(exponents)), entropy),
    ):
        np.testing.assert_allclose(estimate.value, expected, rtol=0, atol=1e-14)
        assert np.isnan(estimate.standard_error)


def test_a_whole_spectrum_that_does_not_close_fills_the_space():
    batches = np.array([[0.5, 0.2], [0.7, 0.2]])
    assert kaplan_yorke_dimension(spectrum_of(batches, 2)).value == 2
    assert kaplan_yorke_dimension(spectrum_of(batches, 2)).standard_error == 0
    assert np.isnan(kaplan_yorke_dimension(spectrum_of(batches, 3)).value)
    assert np.isnan(kaplan_yorke_dimension(spectrum_of(batches, 3)).standard_error)
    np.testing.assert_allclose(entropy_rate(spectrum_of(batches, 2)).value, 0.8, rtol=0, atol=1e-15)
    np.testing.assert_allclose(entropy_rate(spectrum_of(batches, 2)).standard_error, 0.1, rtol=0, atol=1e-15)
    assert np.isnan(entropy_rate(spectrum_of(batches, 3)).value)


def test_a_dead_direction_leaves_the_others_their_error():
    batches = np.array([[0.5, -0.3, -INF], [0.7, -0.1, -INF], [0.9, -0.2, -INF]])
    estimate = entropy_rate(spectrum_of(batches, 3))
    np.testing.assert_allclose(estimate.standard_error, 0.2 / np.sqrt(3), rtol=1e-12)
    dimension = kaplan_yorke_dimension(spectrum_of(batches, 3))
    assert dimension.value == 2
    assert dimension.standard_error == 0  # whatever the others do, as nothing is left of the third


def test_a_direction_beyond_resolution_is_not_needed_once_the_sum_is_negative():
    batches = np.array([[0.5, -1.0, NAN], [0.7, -1.0, NAN], [0.9, -1.0, NAN]])
    for number, expected in ((kaplan_yorke_dimension, 1.7), (entropy_rate, 0.7)):
        estimate = number(spectrum_of(batches, 3))
        np.testing.assert_allclose(estimate.value, expected, rtol=1e-14)
        np.testing.assert_allclose(estimate.standard_error, 0.2 / np.sqrt(3), rtol=1e-12)


def test_errors_are_those_of_repeated_runs():
    """4000 runs of ten batches, whose exponents are correlated so that their sum hardly scatters."""
    generator = np.random.default_rng(0)
    common, own = generator.normal(size=(2, 4000, 10, 3))
    own[:, :, 1:] *= 0.05
    noise = 0.05 * (own + common[:, :, :1] * np.array([1.0, 0.3, -1.3]))
    spectra = jax.vmap(lambda batches: spectrum_of(batches, 3))(jnp.asarray(noise + np.array([0.9, -0.2, -1.6])))
    for number in (kaplan_yorke_dimension, entropy_rate):
        estimates = jax.jit(jax.vmap(number))(spectra)
        scatter = np.std(estimates.value)
        # A sample standard deviation's own error is 1/sqrt(2 runs) of it; the linearisation adds under 1 %.
        assert np.sqrt(np.mean(estimates.standard_error**2)) == pytest.approx(scatter, rel=4 / np.sqrt(8000) + 0.01)
        exact = 2 + 0.7 / 1.6 if number is kaplan_yorke_dimension else 0.9
        assert np.mean(estimates.value) == pytest.approx(exact, abs=2e-3)  # a bias of variance / 10


DT = 0.01


def lorenz(params, carry, inputs_t):
    x, y, z = carry
    return jnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


def test_lorenz():
    """Published: 0.9056, 0, -14.5723 per unit of time, dimension 2.062. The flow's divergence is -41/3 everywhere."""
    system = DrivenSystem.from_ode(lorenz, None, jnp.array([1.0, 1.0, 20.0]), dt=DT)
    spectrum = lyapunov_spectrum(system, steps=60_000, transient=2000, tangent_transient=2000)
    exponents, errors = spectrum.exponents / DT, spectrum.standard_error / DT
    published = np.array([0.9056, 0.0, -14.5723])
    assert np.all(np.abs(exponents - published) < 4 * errors + 1e-3)  # steps of 0.01 shift them by less than 1e-3
    assert np.all(errors < 0.02)
    assert float(jnp.sum(exponents)) == pytest.approx(-41 / 3, abs=2e-4)  # 1.0e-4 is Runge and Kutta's
    dimension, entropy = kaplan_yorke_dimension(spectrum), entropy_rate(spectrum)
    assert abs(dimension.value - 2.062) < 4 * dimension.standard_error + 5e-4  # as published, three digits
    # The sum is all but fixed: D = 2 + S / (S + 41/3) with S = 0.9056 -+ its error.
    expected_error = (41 / 3) / 14.5723**2 * errors[2]
    np.testing.assert_allclose(dimension.standard_error, expected_error, rtol=0.05)
    assert abs(entropy.value / DT - 0.9056) < 4 * entropy.standard_error / DT


def clark_step(weights, carry, inputs_t):
    return weights @ jnp.tanh(carry)


@pytest.mark.slow
def test_random_networks_have_clarks_dimension_and_entropy():
    """x' = W tanh(x) at gain 3, N = 4096 (Clark): per unit 0.28717 and 0.025106. From N = 128 and 256, where both are
    smaller by 4 and 3 %, to 1/N = 0."""

    def average(size, networks):
        def numbers(key):
            weights = 3 / np.sqrt(size) * jax.random.normal(key, (size, size), jnp.float64)
            system = DrivenSystem.from_step(clark_step, weights, jax.random.normal(key, (size,), jnp.float64))
            options = {"k": 7 * size // 16, "transient": 300, "tangent_transient": 100}
            spectrum = lyapunov_spectrum(system, steps=1200, **options)
            return kaplan_yorke_dimension(spectrum).value / size, entropy_rate(spectrum).value / size

        found = np.array(jax.lax.map(numbers, jax.random.split(jax.random.key(0), networks)))
        return found.mean(axis=1), found.var(axis=1, ddof=1) / networks

    (small, small_variance), (large, large_variance) = average(128, 24), average(256, 12)
    errors = np.sqrt(4 * large_variance + small_variance)
    assert np.all(np.abs(2 * large - small - np.array([0.28717, 0.025106])) < 4 * errors)
    assert np.all(errors < [0.006, 0.001])


@pytest.mark.parametrize("number", [kaplan_yorke_dimension, entropy_rate])
@pytest.mark.parametrize("exponents", [np.zeros((2, 3)), np.zeros(0), np.array([1, 2])])
def test_bad_input_gets_one_sentence(number, exponents):
    with pytest.raises(ValueError, match=r"exponents must be floating point numbers \[K\], got .* of shape"):
        number(exponents)
