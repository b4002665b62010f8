"""What a spectrum says of its run: where the state overflowed, transients, errors, precision; and bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import elman, noise

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import DrivenSystem, gradient_norm_by_lag, jacobian_product, lyapunov_spectrum, trajectory


def exploding_step(rate, carry, inputs_t):
    return rate * carry**3


def test_nonfinite_state_is_recorded_with_its_step():
    system = DrivenSystem.from_step(exploding_step, jnp.float64(1.0), jnp.array([10.0, 1.0]))
    result = lyapunov_spectrum(system, steps=50)
    states = trajectory(system, steps=50)
    assert int(result.first_nonfinite_step) == int(np.argmax(~np.isfinite(states).all(axis=1))) > 0
    assert not np.any(np.isfinite(result.exponents))


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_an_overflow_is_not_taken_for_a_vanishing_gradient(activation):
    """relu'(NaN) is 0, so behind an overflow every Jacobian would look like one that kills all gradients."""
    cell = ElmanCell(
        1, 8, activation=activation, recurrent_kernel_init=gaussian(6.0), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    system, inputs = DrivenSystem.from_cell(cell), noise(2000)
    step = int(np.argmax(~np.isfinite(trajectory(system, inputs)).all(axis=1)))
    assert step > 0
    result = lyapunov_spectrum(system, inputs)
    assert int(result.first_nonfinite_step) == step
    assert np.isnan(result.exponents).all()
    product = jacobian_product(system, inputs, horizons=[step, 2000])
    assert product.log_norm[0] > 300
    assert np.isnan(product.log_norm[1])
    by_lag = gradient_norm_by_lag(system, inputs, max_lag=1000)
    assert np.isnan(by_lag.reach)


@pytest.mark.slow
def test_transients_are_left_out():
    system, inputs = DrivenSystem.from_cell(elman()), noise(150)
    late = dataclasses.replace(system, initial_state=trajectory(system, inputs[:50])[-1])
    np.testing.assert_allclose(
        lyapunov_spectrum(system, inputs, transient=50).exponents,
        lyapunov_spectrum(late, inputs[50:]).exponents,
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.slow
def test_batch_means_average_to_the_exponents_and_give_the_interval():
    result = lyapunov_spectrum(DrivenSystem.from_cell(elman()), noise(320))
    assert result.batch_means.shape == (10, 8)
    np.testing.assert_allclose(np.mean(result.batch_means, axis=0), result.exponents, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        np.std(result.batch_means, axis=0, ddof=1) / np.sqrt(10), result.standard_error, rtol=0, atol=1e-12
    )
    low, high = result.interval(0.95)
    np.testing.assert_allclose((high - low) / 2 / result.standard_error, 2.262157, rtol=0, atol=1e-6)  # t, 9 degrees


@pytest.mark.parametrize(("steps", "qr_every"), [(1009, 100), (101, 50)])
@pytest.mark.slow
def test_standard_error_with_batches_of_different_length(steps, qr_every):
    """Independent growth of variance v per step: the error of the mean is sqrt(v/T) on average, however it is cut."""
    v = np.pi**2 / 8  # the variance of ln|x|, x normal

    def log_normal_growth(params, carry, inputs_t):
        return inputs_t * carry

    def squared_error(key):
        system = DrivenSystem.from_step(log_normal_growth, jnp.float64(0), jnp.zeros(1))
        inputs = jax.random.normal(key, (steps, 1), jnp.float64)
        return lyapunov_spectrum(system, inputs, qr_every=qr_every).standard_error[0] ** 2

    squares = jax.vmap(squared_error)(jax.random.split(jax.random.key(0), 4000))
    expected = v / steps
    assert float(jnp.mean(squares)) == pytest.approx(expected, abs=4 * float(jnp.std(squares)) / np.sqrt(4000))


@pytest.mark.slow
def test_single_precision_never_calls_a_regular_jacobian_singular():
    system, inputs = DrivenSystem.from_cell(elman(hidden=32), dtype=jnp.float32), noise(2000)
    exponents = lyapunov_spectrum(system, inputs).exponents
    assert not np.any(np.isneginf(exponents))
    assert np.isnan(exponents[-1])  # its smallest single-step growth is below float32's resolution
    reference = lyapunov_spectrum(DrivenSystem.from_cell(elman(hidden=32)), inputs)
    assert abs(exponents[0] - reference.exponents[0]) < 5 * reference.standard_error[0]


def test_undriven_cell_gets_zero_inputs():
    cell = elman()
    np.testing.assert_allclose(
        lyapunov_spectrum(DrivenSystem.from_cell(cell, jnp.full(8, 0.3)), steps=40).exponents,
        lyapunov_spectrum(DrivenSystem.from_cell(cell, jnp.full(8, 0.3)), jnp.zeros((40, 1))).exponents,
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("inputs", "options", "sentence"),
    [
        (noise(10)[:, 0], {}, r"inputs must have shape \[time, feature\], got \(10,\)"),
        (noise(10, 3), {}, "inputs must have 1 features, got 3"),
        (noise(10), {"k": 9}, "k must be between 1 and the state size 8, got 9"),
        (noise(10), {"k": 0}, "k must be a whole number >= 1, got 0"),
        (noise(10), {"qr_every": 0}, "qr_every must be a whole number >= 1, got 0"),
        (noise(10), {"transient": 6, "tangent_transient": 4}, "must leave a step to measure: got 6 . 4 of 10"),
        (noise(10), {"transient": -1}, "transient must be a whole number >= 0, got -1"),
        (jnp.sin, {"steps": 10}, r"inputs must give 1 features at each step, got shape \(\)"),
        (noise(10), {"steps": 11}, "steps must be between 1 and the 10 steps of the inputs, got 11"),
        (None, {}, "steps must be given when inputs is None"),
        (None, {"steps": 0}, "steps must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input_gets_one_sentence(inputs, options, sentence):
    with pytest.raises(ValueError, match=sentence) as failure:
        lyapunov_spectrum(DrivenSystem.from_cell(elman()), inputs, **options)
    assert "\n" not in str(failure.value)


def test_a_stacked_system_is_told_to_use_vmap():
    systems = [DrivenSystem.from_cell(elman(seed=seed)) for seed in range(2)]
    systems = jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)
    with pytest.raises(ValueError, match=r"measure an ensemble with jax\.vmap"):
        lyapunov_spectrum(systems, noise(10))
