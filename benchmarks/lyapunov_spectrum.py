"""Full Lyapunov spectra of tanh networks in float64: ours, lyapax and the bare linear algebra.

The network is h' = tanh(W h), W ~ N(0, g^2 / N), g = 2. The floor is the matmul and the QR of the same shapes in the
same `lax.scan`, with the logarithms of the diagonal added up: no state, no linearisation, no checks.

Targets: not slower than lyapax at the same interval; within 1.3 of the floor; `qr_every=4` 2.5 times faster than lyapax
at 1, with no exponent changed by more than 1e-5.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import lyapax  # pyright: ignore[reportMissingImports] - of the extra `bench`
import numpy as np
from jax import Array
from threadpoolctl import threadpool_limits

from benchmarks import report, timing
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum

GAIN = 2.0
STEPS = {64: 1000, 128: 320, 256: 80}
"""State size -> timed steps: a round of one competitor takes a tenth to a quarter of a second."""
ACCURACY_STEPS = 2000
BLAS_THREADS = (1, 2)
ROUNDS = 15
INTERVALS = (1, 2, 4)


def main() -> None:
    """Measure and publish."""
    jax.config.update("jax_enable_x64", True)
    report.publish("lyapunov_spectrum", [row for size in STEPS for row in measure(size)])


def measure(size: int) -> list[dict[str, Any]]:
    """Time the competitors at one state size; one row for each and each number of BLAS threads."""
    system, steps = network(size), STEPS[size]
    calls = competitors(system, steps)
    with threadpool_limits(1, user_api="blas"):
        accuracy = {f"ours qr_every={every}": values for every, values in accuracies(system).items()}
        compile_seconds = {name: taken.compile_seconds for name, taken in timing.take_turns(calls, 2).items()}
    rows = []
    for blas_threads in BLAS_THREADS:
        with threadpool_limits(blas_threads, user_api="blas"):
            timings = timing.take_turns(calls, ROUNDS)
        for name, taken in timings.items():
            rows.append(
                {
                    "state_size": size,
                    "blas_threads": blas_threads,
                    "method": name,
                    "microseconds_per_step": taken.median / steps * 1e6,
                    "over_lyapax": timing.ratio(timings, name, "lyapax renorm_every=1"),
                    "over_floor": timing.ratio(timings, name, f"floor, QR every {name[-1]}"),
                    "spread": taken.spread,
                    "compile_seconds": compile_seconds[name],
                    **accuracy.get(name, dict.fromkeys(accuracy["ours qr_every=1"], "")),
                }
            )
    return rows


def network(size: int) -> DrivenSystem:
    """Draw the network and its initial state."""
    weights_key, state_key = jax.random.split(jax.random.key(size))
    weights = GAIN / np.sqrt(size) * jax.random.normal(weights_key, (size, size))
    return DrivenSystem.from_step(_step, weights, jax.random.normal(state_key, (size,)))


def _step(weights: Array, state: Array, _: None) -> Array:
    return jnp.tanh(weights @ state)


def competitors(system: DrivenSystem, steps: int) -> dict[str, Callable[[], Array]]:
    """Name -> function that computes the full spectrum, or that much linear algebra."""
    weights, state = system.params, system.initial_state

    def theirs(every: int) -> Callable[[], Array]:
        def exponents(state: Array) -> Array:
            return lyapax.lyapunov_spectrum(
                lambda state: _step(weights, state, None), state, 1.0, steps, renorm_every=every
            ).exponents

        return partial(jax.jit(exponents), state)

    def ours(every: int) -> Callable[[], Array]:
        return lambda: lyapunov_spectrum(system, steps=steps, qr_every=every).exponents

    frame, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), weights.shape))
    return {
        **{f"ours qr_every={every}": ours(every) for every in INTERVALS},
        **{f"lyapax renorm_every={every}": theirs(every) for every in INTERVALS},
        **{f"floor, QR every {every}": partial(_floor, weights, frame, steps, every) for every in INTERVALS},
    }


@partial(jax.jit, static_argnums=(2, 3))
def _floor(weights: Array, frame: Array, steps: int, every: int) -> Array:
    def block(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        frame, sums = carry
        frame = jax.lax.fori_loop(0, every, lambda _, tangents: weights @ tangents, frame)
        frame, triangle = jnp.linalg.qr(frame)
        return (frame, sums + jnp.log(jnp.abs(jnp.diagonal(triangle)))), None

    return jax.lax.scan(block, (frame, jnp.zeros(frame.shape[1])), None, length=steps // every)[0][1] / steps


def accuracies(system: DrivenSystem) -> dict[int, dict[str, Any]]:
    """Interval -> how the exponents differ from those at interval 1, from the same start and over the same steps."""
    runs = {
        every: lyapunov_spectrum(system, steps=ACCURACY_STEPS, transient=200, tangent_transient=200, qr_every=every)
        for every in INTERVALS
    }
    exact = np.asarray(runs[1].exponents)
    rows = {}
    for every, run in runs.items():
        # The runs see the same Jacobians only while they see the same states; a chaotic network forgives no last bit.
        np.testing.assert_array_equal(run.final_state, runs[1].final_state)
        exponents = np.asarray(run.exponents)
        rows[every] = {
            "lost_exponents": int(np.sum(~np.isfinite(exponents))),
            "largest_change_of_others": float(np.nanmax(np.where(np.isfinite(exponents), abs(exponents - exact), 0))),
            "log_det_residual": float(run.log_det_residual),
        }
    return rows


if __name__ == "__main__":
    main()
