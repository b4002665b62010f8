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
import lyapax
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
ROUNDS = 21
EVERY = 4


def main() -> None:
    """Measure and publish."""
    jax.config.update("jax_enable_x64", True)
    rows = [row for size in STEPS for threads in BLAS_THREADS for row in measure(size, threads)]
    report.publish("lyapunov_spectrum", rows)


def measure(size: int, blas_threads: int) -> list[dict[str, Any]]:
    """Time the competitors at one state size and number of BLAS threads; one row for each."""
    system, steps = network(size), STEPS[size]
    with threadpool_limits(blas_threads, user_api="blas"):
        timings = timing.take_turns(competitors(system, steps), ROUNDS)
        accuracy = {f"qr_every={every}": values for every, values in accuracies(system).items()}
    rows = []
    for name, taken in timings.items():
        change, residual = accuracy.get(name.removeprefix("ours "), (float("nan"), float("nan")))
        rows.append(
            {
                "state_size": size,
                "blas_threads": blas_threads,
                "method": name,
                "microseconds_per_step": taken.median / steps * 1e6,
                "over_lyapax": timing.ratio(timings, name, "lyapax renorm_every=1"),
                "over_floor": timing.ratio(timings, name, f"floor, QR every {EVERY if '=4' in name else 1}"),
                "spread": taken.spread,
                "compile_seconds": taken.compile_seconds,
                "largest_change_of_an_exponent": change,
                "log_det_residual": residual,
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
        **{f"ours qr_every={every}": ours(every) for every in (1, EVERY)},
        **{f"lyapax renorm_every={every}": theirs(every) for every in (1, EVERY)},
        **{f"floor, QR every {every}": partial(_floor, weights, frame, steps, every) for every in (1, EVERY)},
    }


@partial(jax.jit, static_argnums=(2, 3))
def _floor(weights: Array, frame: Array, steps: int, every: int) -> Array:
    def block(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        frame, sums = carry
        frame = jax.lax.fori_loop(0, every, lambda _, tangents: weights @ tangents, frame)
        frame, triangle = jnp.linalg.qr(frame)
        return (frame, sums + jnp.log(jnp.abs(jnp.diagonal(triangle)))), None

    return jax.lax.scan(block, (frame, jnp.zeros(frame.shape[1])), None, length=steps // every)[0][1] / steps


def accuracies(system: DrivenSystem) -> dict[int, tuple[float, float]]:
    """Interval -> (largest change of an exponent against interval 1, largest residual of the determinant)."""
    every_step, every_few = (
        lyapunov_spectrum(system, steps=ACCURACY_STEPS, transient=200, tangent_transient=200, qr_every=every)
        for every in (1, EVERY)
    )
    # The runs see the same Jacobians only while they see the same states; a chaotic network forgives no last bit.
    same = np.array_equal(every_step.final_state, every_few.final_state)
    change = float(np.max(np.abs(every_few.exponents - every_step.exponents))) if same else float("nan")
    return {1: (0.0, float(every_step.log_det_residual)), EVERY: (change, float(every_few.log_det_residual))}


if __name__ == "__main__":
    main()
