"""What makes long spectra cheap and safe: chosen intervals, going on from a result, chunks in parallel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import elman, linear_system, lstm, noise

from rnn_dynamics.dynamics import Chunked, DrivenSystem, lyapunov_spectrum
from rnn_dynamics.dynamics.frames import resolved_spread

STEPS = 600
RESOLVED = resolved_spread(jnp.float64)


@pytest.fixture(scope="module")
def chaotic():
    """A chaotic network, its inputs, and its spectrum with a QR at every step."""
    system, inputs = DrivenSystem.from_cell(elman(hidden=20)), noise(STEPS)
    return system, inputs, lyapunov_spectrum(system, inputs)


@pytest.fixture(scope="module")
def chosen(chaotic):
    system, inputs, _ = chaotic
    return lyapunov_spectrum(system, inputs, qr_every="auto")


def test_chosen_intervals_are_longer_and_change_nothing(chaotic, chosen):
    every_step = chaotic[2]
    # Each block may lose 70 % of float64's digits in its weakest direction, and few do.
    np.testing.assert_allclose(chosen.exponents, every_step.exponents, rtol=0, atol=1e-7)
    assert chosen.steps_per_qr > 1.5
    assert every_step.steps_per_qr == 1
    assert every_step.largest_spread < chosen.largest_spread <= RESOLVED
    assert chosen.log_det_residual < 1e-6
    assert int(jnp.sum(chosen.growth_steps)) == STEPS
    assert chosen.standard_error.shape == (20,)
    np.testing.assert_allclose(chosen.standard_error, every_step.standard_error, rtol=0.5)


@pytest.mark.slow
def test_few_exponents_need_few_orthonormalisations(chaotic):
    system, inputs, _ = chaotic
    every_step = lyapunov_spectrum(system, inputs, k=2)
    chosen = lyapunov_spectrum(system, inputs, k=2, qr_every="auto")
    np.testing.assert_allclose(chosen.exponents, every_step.exponents, rtol=0, atol=1e-9)
    assert chosen.steps_per_qr > 8


def test_a_chosen_interval_never_meets_what_it_cannot_resolve():
    """Growth that jumps from mild to 16 nats of spread a step: long intervals have to be taken back."""

    rotation = jnp.asarray([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    system = DrivenSystem.from_step(_shrink_one_axis, rotation, jnp.zeros(2))
    quiet, loud = np.full((100, 1), 0.1), np.full((60, 1), 16.0)
    inputs = jnp.asarray(np.concatenate([quiet, loud, quiet, loud]))
    every_step = lyapunov_spectrum(system, inputs)
    chosen = lyapunov_spectrum(system, inputs, qr_every="auto")
    np.testing.assert_allclose(chosen.exponents, every_step.exponents, rtol=1e-6)
    assert chosen.largest_spread <= RESOLVED
    assert 1.5 < chosen.steps_per_qr < 320 / 120  # each of 120 loud steps needs its own


def _shrink_one_axis(rotation, carry, inputs_t):
    return rotation @ (jnp.exp(-jnp.arange(2.0) * inputs_t) * carry)


def test_a_chosen_interval_does_not_overflow():
    for rate in (100.0, -100.0):  # 64 steps at once would leave float64
        system = linear_system(np.exp(rate) * np.eye(3))
        result = lyapunov_spectrum(system, steps=300, qr_every="auto")
        np.testing.assert_allclose(result.exponents, rate, rtol=1e-13)
        assert result.first_nonfinite_step == -1


def test_chosen_intervals_know_a_singular_jacobian_from_a_long_interval():
    result = lyapunov_spectrum(linear_system(np.diag([0.9, 0.0])), steps=100, tangent_transient=2, qr_every="auto")
    np.testing.assert_allclose(result.exponents, [np.log(0.9), -np.inf], rtol=0, atol=1e-14)
    assert result.steps_per_qr == 1


@pytest.mark.slow
def test_chosen_intervals_in_single_precision(chaotic):
    _, inputs, every_step = chaotic
    single = DrivenSystem.from_cell(elman(hidden=20), dtype=jnp.float32)
    result = lyapunov_spectrum(single, inputs, k=3, qr_every="auto")
    assert result.exponents.dtype == jnp.float32
    assert np.all(np.abs(result.exponents - every_step.exponents[:3]) < 5 * every_step.standard_error[:3])


def test_history_ends_at_the_exponents(chaotic):
    _, _, spectrum = chaotic
    assert spectrum.history.shape == (100, 20)
    np.testing.assert_allclose(spectrum.history[-1], spectrum.exponents, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(spectrum.history_steps, np.arange(6, STEPS + 1, 6))


@pytest.mark.slow
def test_history_is_that_of_shorter_runs(chaotic):
    system, inputs, spectrum = chaotic
    half = lyapunov_spectrum(system, inputs[: STEPS // 2])
    np.testing.assert_allclose(spectrum.history[49], half.exponents, rtol=0, atol=1e-10)


@pytest.mark.parametrize("qr_every", [1, "auto"])
@pytest.mark.slow
def test_going_on_equals_an_uninterrupted_run(chaotic, qr_every):
    system, inputs, spectrum = chaotic
    first = lyapunov_spectrum(system, inputs[:300], qr_every=qr_every)
    both = lyapunov_spectrum(system, inputs[300:], resume_from=first, qr_every=qr_every)
    np.testing.assert_allclose(both.exponents, spectrum.exponents, rtol=0, atol=1e-7)
    assert int(jnp.sum(both.growth_steps)) == int(both.final_step) == STEPS
    np.testing.assert_array_equal(both.final_state, spectrum.final_state)
    if qr_every == 1:
        np.testing.assert_allclose(both.batch_means, spectrum.batch_means, rtol=0, atol=1e-10)
        np.testing.assert_allclose(both.standard_error, spectrum.standard_error, rtol=0, atol=1e-10)
        assert both.steps_per_qr == 1


@pytest.mark.slow
def test_going_on_with_a_function_of_the_step(chaotic):
    system, inputs, spectrum = chaotic

    def drive(t):
        return inputs[t]

    first = lyapunov_spectrum(system, drive, steps=200, transient=100)
    both = lyapunov_spectrum(system, drive, steps=400, resume_from=first)
    np.testing.assert_array_equal(both.final_state, spectrum.final_state)
    assert int(both.final_step) == STEPS
    assert int(jnp.sum(both.growth_steps)) == STEPS - 100


@pytest.mark.slow
def test_going_on_by_vmap(chaotic):
    system, inputs, _ = chaotic
    sequences = jnp.stack([inputs, -inputs])
    first = jax.vmap(lambda x: lyapunov_spectrum(system, x, k=2))(sequences[:, :40])
    both = jax.vmap(lambda x, earlier: lyapunov_spectrum(system, x, resume_from=earlier))(sequences[:, 40:80], first)
    np.testing.assert_allclose(
        both.exponents[0], lyapunov_spectrum(system, inputs[:80], k=2).exponents, rtol=0, atol=1e-12
    )


@pytest.mark.slow
def test_going_on_again_and_again_keeps_the_result_small(chaotic):
    system, inputs, _ = chaotic
    result = lyapunov_spectrum(system, inputs[:120], k=2)
    for first in range(120, STEPS, 120):
        result = lyapunov_spectrum(system, inputs[first : first + 120], resume_from=result)
    assert result.growth.shape == (200, 2)
    assert int(jnp.sum(result.growth_steps)) == STEPS
    np.testing.assert_allclose(result.exponents, lyapunov_spectrum(system, inputs, k=2).exponents, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.history[-1], result.exponents, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_a_long_stretch_leaves_its_error_to_the_others(chaotic):
    system, inputs, _ = chaotic
    first = lyapunov_spectrum(system, inputs[:400], k=2, qr_every=400)
    both = lyapunov_spectrum(system, inputs[400:], resume_from=first)
    assert np.all(np.isnan(first.standard_error))
    assert np.all(both.standard_error > 0)
    assert both.batch_means.shape == (10, 2)
    assert np.all(np.isfinite(both.batch_means))


@pytest.fixture(scope="module")
def chunked(chaotic):
    system, inputs, _ = chaotic
    return lyapunov_spectrum(system, inputs, method=Chunked(110, max_sweeps=6, tolerance=0.0))


def test_as_many_sweeps_as_chunks_are_the_sequential_run(chaotic, chunked):
    """600 steps are five chunks of 110 and a rest of 50, and what a sweep does reaches one chunk further."""
    spectrum = chaotic[2]
    assert int(chunked.sweeps) <= 5
    assert chunked.sweep_residual == 0
    # Each block's growth is known to u exp(spread), and the frames of the two ways differ by as much.
    rounding = np.finfo(float).eps * np.exp(spectrum.largest_spread)
    assert rounding < 1e-11
    np.testing.assert_allclose(chunked.exponents, spectrum.exponents, rtol=0, atol=rounding)
    np.testing.assert_allclose(chunked.final_tangents, spectrum.final_tangents, rtol=0, atol=1e-9)
    assert chunked.log_det_residual < 1e-12
    assert int(jnp.sum(chunked.growth_steps)) == STEPS == int(chunked.final_step)
    np.testing.assert_allclose(
        jnp.sum(chunked.growth, axis=0) / STEPS, jnp.sum(spectrum.growth, axis=0) / STEPS, rtol=0, atol=rounding
    )


@pytest.mark.slow
def test_the_sum_is_exact_at_every_sweep_and_the_certificate_bounds_the_error(chaotic):
    system, inputs, spectrum = chaotic
    errors, residuals = [], []
    for sweeps in (0, 1, 2):
        result = lyapunov_spectrum(system, inputs, method=Chunked(100, max_sweeps=sweeps, tolerance=0.0))
        assert float(jnp.sum(result.exponents)) == pytest.approx(float(jnp.sum(spectrum.exponents)), abs=1e-12)
        errors.append(float(jnp.max(jnp.abs(result.exponents - spectrum.exponents))))
        residuals.append(float(result.sweep_residual))
    assert residuals[0] == np.inf
    assert errors[2] < errors[1] < errors[0]
    # The change is the error before less the error after; it certifies that what is left is smaller.
    assert errors[1] - errors[2] <= residuals[2] <= errors[1] + errors[2] + 1e-15


@pytest.mark.slow
def test_chunks_of_an_lstm_stop_when_they_fit():
    system, inputs = DrivenSystem.from_cell(lstm(hidden=4, gain=2.0)), noise(960)
    sequential = lyapunov_spectrum(system, inputs, k=3, transient=100, tangent_transient=60)
    chunked = lyapunov_spectrum(system, inputs, k=3, transient=100, tangent_transient=60, method=Chunked(80))
    assert 1 <= int(chunked.sweeps) < 10
    assert chunked.sweep_residual <= 1e-6
    np.testing.assert_allclose(chunked.exponents, sequential.exponents, rtol=0, atol=1e-5)


def test_chunks_fit_although_one_exponent_is_not_known():
    """Behind a singular Jacobian, three steps between QRs leave an exponent NaN, and the others may well fit."""
    matrix = np.diag([0.9, 0.5, 0.0]) + np.triu(np.full((3, 3), 0.2), 1)
    result = lyapunov_spectrum(linear_system(matrix), steps=600, qr_every=3, method=Chunked(60))
    np.testing.assert_array_equal(np.isnan(result.exponents), [False, False, True])
    assert result.sweep_residual <= 1e-6
    assert int(result.sweeps) < 5


@pytest.mark.slow
def test_one_chunk_is_swept_once():
    result = lyapunov_spectrum(linear_system(0.5 * np.eye(2)), steps=30, method=Chunked(30))
    assert (int(result.sweeps), float(result.sweep_residual)) == (0, 0.0)


@pytest.mark.slow
def test_chunks_of_a_state_that_overflows():
    def squared(params, carry, inputs_t):
        return carry**2

    system = DrivenSystem.from_step(squared, jnp.float64(0), jnp.array([10.0, 1.0]))
    result = lyapunov_spectrum(system, steps=20, method=Chunked(4))
    assert int(result.first_nonfinite_step) == 8
    assert np.all(np.isnan(result.exponents))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"qr_every": "often"}, "qr_every must be a whole number >= 1 or \"auto\", got 'often'"),
        ({"method": "parallel"}, "method must be one of sequential, chunked or a Chunked, got 'parallel'"),
        ({"method": Chunked(chunk=11)}, "chunk must be between 1 and the 10 steps to measure, got 11"),
        ({"method": Chunked(chunk=0)}, "chunk must be a whole number >= 1, got 0"),
        ({"method": Chunked(max_sweeps=-1)}, "max_sweeps must be a whole number >= 0, got -1"),
        ({"method": Chunked(tolerance=-1.0)}, "tolerance must be a number >= 0, in nats per step, got -1.0"),
    ],
)
def test_bad_options_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        lyapunov_spectrum(DrivenSystem.from_cell(elman()), noise(10), **options)


def test_going_on_with_another_system_is_refused(chaotic, chosen):
    system, inputs, _ = chaotic
    with pytest.raises(ValueError, match=r"resume_from must hold a frame of shape \(8, 8\), got \(20, 20\)"):
        lyapunov_spectrum(DrivenSystem.from_cell(elman()), inputs, k=8, resume_from=chosen)
    with pytest.raises(ValueError, match="resume_from must be of the system's dtype float32, got float64"):
        lyapunov_spectrum(DrivenSystem.from_cell(elman(20), dtype=jnp.float32), inputs, resume_from=chosen)
    with pytest.raises(ValueError, match="transient and tangent_transient must be 0 with resume_from, got 3 steps"):
        lyapunov_spectrum(system, inputs, transient=3, resume_from=chosen)
