"""Do the 95 % intervals of `LyapunovSpectrum.interval` cover the long-run exponent in 95 of 100 short runs?

Each system runs a thousand times over its own noise, from its own start and frame, at several lengths; the long-run
value is the mean over as many runs of 8000 steps. Lengths are to be read against the correlation time of the growth,

    tau = lim T var(exponent over T steps) / var(growth of one step) = 1 + 2 sum of its autocorrelations.

It understates a slow component of small weight: what the batch means need is that two neighbours be independent.

Beside the coverage of the library's interval stands that of other numbers of batches, on the same runs: the reason for
`BATCHES`.

Target: coverage of 0.90 to 0.98.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from scipy.stats import t

from benchmarks import report
from rnn_dynamics.cells import ElmanCell, GRUCell, LSTMCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import DrivenSystem, LyapunovSpectrum, batch_means, lyapunov_spectrum

LEVEL = 0.95
RUNS = 1000
LENGTHS = (480, 960, 1920, 3840)
LONG = 8000
OTHER_BATCHES = (32, 16, 8)
FINE_BATCHES = 160
"""Divides the lengths, and is divided by all the numbers of batches."""
TRANSIENT = 500
TANGENT_TRANSIENT = 500
IN_FEATURES = 4


def main() -> None:
    """Measure and publish."""
    jax.config.update("jax_enable_x64", True)
    rows = [row for name, (make, noise) in SYSTEMS.items() for row in measure(name, make(), noise)]
    report.publish("coverage", rows)


def measure(name: str, system: DrivenSystem, noise: float) -> list[dict[str, Any]]:
    """Compare the intervals at every length with the long run; one row for each."""
    growth = np.asarray(ensemble(system, noise, batch_means.BATCHES, seed=1).batch_means)  # batches of one step each
    long = np.asarray(ensemble(system, noise, LONG, seed=2).exponents)[:, 0]
    truth, truth_error = float(np.mean(long)), float(np.std(long, ddof=1) / np.sqrt(RUNS))
    correlation_time = LONG * float(np.var(long, ddof=1)) / float(np.var(growth))
    rows = []
    for number, steps in enumerate(LENGTHS):
        result = ensemble(system, noise, steps, seed=3 + number)
        exponents = np.asarray(result.exponents)[:, 0]
        means = fine_batch_means(system, noise, steps, seed=3 + number)
        lower, upper = result.interval(LEVEL)
        covered = float(np.mean((lower[:, 0] <= truth) & (truth <= upper[:, 0])))
        true_error = float(np.std(exponents, ddof=1))
        rows.append(
            {
                "system": name,
                "exponent": truth,
                "correlation_time": correlation_time,
                "steps": steps,
                "steps_over_correlation_time": steps / correlation_time,
                "coverage": covered,
                "binomial_error": float(np.sqrt(covered * (1 - covered) / RUNS)),
                **{f"with_{batches}_batches": joined_coverage(means, batches, truth) for batches in OTHER_BATCHES},
                "standard_error": true_error,
                "reported_over_true": float(np.sqrt(np.mean(np.asarray(result.standard_error) ** 2))) / true_error,
                "bias_over_true": float(np.mean(exponents) - truth) / true_error,
                "long_run_error_over_true": truth_error / true_error,
            }
        )
    return rows


def ensemble(system: DrivenSystem, noise: float, steps: int, seed: int) -> LyapunovSpectrum:
    """Measure the first exponent of independent runs: leaves with a leading axis of runs."""
    total = TRANSIENT + TANGENT_TRANSIENT + steps

    def run(key: Array) -> LyapunovSpectrum:
        state_key, noise_key, frame_key = jax.random.split(key, 3)
        state = system.initial_state + jax.random.normal(state_key, system.initial_state.shape)

        def inputs(step: Array) -> Array:
            return noise * jax.random.normal(jax.random.fold_in(noise_key, step), (IN_FEATURES,))

        return lyapunov_spectrum(
            DrivenSystem(system.params, state, system.layout, system.step_function, system.in_features),
            jax.vmap(inputs)(jnp.arange(total)),
            k=1,
            transient=TRANSIENT,
            tangent_transient=TANGENT_TRANSIENT,
            key=frame_key,
        )

    return jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(seed), RUNS))


def fine_batch_means(system: DrivenSystem, noise: float, steps: int, seed: int) -> np.ndarray:
    """Repeat the runs with more batches than the library takes: batch means of the first exponent, [runs, batches]."""
    with mock.patch.object(batch_means, "BATCHES", FINE_BATCHES):
        jax.clear_caches()  # what is compiled holds the number
        means = ensemble(system, noise, steps, seed).batch_means
    jax.clear_caches()
    return np.asarray(means)[:, :, 0]


def joined_coverage(means: np.ndarray, batches: int, truth: float) -> float:
    """Return the coverage with fine batch means [runs, FINE_BATCHES] joined to fewer batches of equal length."""
    joined = means.reshape(len(means), batches, -1).mean(axis=2)
    half = t.ppf((1 + LEVEL) / 2, batches - 1) * np.std(joined, axis=1, ddof=1) / np.sqrt(batches)
    return float(np.mean(np.abs(joined.mean(axis=1) - truth) <= half))


def _elman() -> DrivenSystem:
    cell = ElmanCell(IN_FEATURES, 32, recurrent_kernel_init=gaussian(2.0), rngs=nnx.Rngs(0))
    return DrivenSystem.from_cell(cell, dtype=jnp.float64)


def _lstm() -> DrivenSystem:
    return DrivenSystem.from_cell(LSTMCell(IN_FEATURES, 16, rngs=nnx.Rngs(0)), dtype=jnp.float64)


def _slow_gru() -> DrivenSystem:
    return DrivenSystem.from_cell(GRUCell(IN_FEATURES, 16, update_bias=3.0, rngs=nnx.Rngs(0)), dtype=jnp.float64)


SYSTEMS: dict[str, tuple[Callable[[], DrivenSystem], float]] = {
    "chaotic Elman, N = 32, g = 2": (_elman, 0.1),
    "stable LSTM, H = 16": (_lstm, 1.0),
    "slow GRU, H = 16, update bias 3": (_slow_gru, 1.0),
}
"""Name -> what makes the system, standard deviation of its inputs."""


if __name__ == "__main__":
    main()
