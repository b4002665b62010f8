"""Lyapunov spectra of random tanh networks, beside peers and beside the linear algebra that none can do without.

`python -m benchmarks.lyapunov_spectrum`, 5 minutes on two cores, with one BLAS thread: two make all of them slower at
N = 128 but the matmuls. Peers: lyapax, and the plain loop that most scripts are: a Jacobian by `jacfwd`, a product, a
QR (chaotax 0.0.1 cannot be compiled as a whole: it asks for the number of states as an array). The floor is a bare
matmul and LAPACK's QR of the same shapes in the same loop. Compile time is apart. The larger the interval between QRs
the cheaper and the less exact; the error is the root mean square over the exponents against those of a run ten times as
long, and for intervals of ours also the largest change against a QR at every step of the same states.
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
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum, trajectory

GAIN = 2.0
STEPS = {64: 1000, 128: 320, 256: 80}
"""State size -> timed steps of full spectra, four times as many of 16: a tenth to a quarter of a second each."""
LEADING = 16
ACCURACY_STEPS = 2000
ROUNDS = 5
INTERVALS = (1, 2, 4, "auto")
REFERENCE = "lyapax, QR every 1"


def main() -> None:
    """Measure and publish."""
    jax.config.update("jax_enable_x64", True)
    shapes = [(size, k) for k in (None, LEADING) for size in STEPS]
    report.publish("lyapunov_spectrum", [row for size, k in shapes for row in measure(size, k or size)])


def measure(size: int, k: int) -> list[dict[str, Any]]:
    """Time the competitors at one state size and number of exponents; one row for each."""
    system, steps = network(size), STEPS[size] * (1 if k == size else 4)
    calls = competitors(system, k, steps)
    with threadpool_limits(1, user_api="blas"):
        accuracy = accuracies(system, k)
        timings = timing.take_turns(calls, ROUNDS)
    return [
        {
            "state_size": size,
            "exponents": k,
            "method": name,
            "microseconds_per_step": taken.median / steps * 1e6,
            "over_lyapax": timing.ratio(timings, name, REFERENCE),
            "over_floor": timing.ratio(timings, name, "floor, QR every 1"),
            "spread": taken.spread,
            "compile_seconds": taken.compile_seconds,
            **accuracy.get(name, dict.fromkeys(accuracy["ours, QR every 1"], "")),
        }
        for name, taken in timings.items()
    ]


def network(size: int) -> DrivenSystem:
    """Draw the network, in a state on its attractor."""
    weights_key, state_key = jax.random.split(jax.random.key(size))
    weights = GAIN / np.sqrt(size) * jax.random.normal(weights_key, (size, size))
    start = DrivenSystem.from_step(_step, weights, jax.random.normal(state_key, (size,)))
    return DrivenSystem.from_step(_step, weights, trajectory(start, steps=500)[-1])


def _step(weights: Array, state: Array, _: None) -> Array:
    return jnp.tanh(weights @ state)


def competitors(system: DrivenSystem, k: int, steps: int) -> dict[str, Callable[[], Array]]:
    """Name -> function that computes k exponents, or that much linear algebra."""
    weights, state = system.params, system.initial_state

    def step(state: Array) -> Array:
        return _step(weights, state, None)

    def by_lyapax(every: int) -> Callable[[Array], Array]:
        return lambda state: lyapax.lyapunov_spectrum(step, state, 1.0, steps, k=k, renorm_every=every).exponents

    def ours(every: int | str) -> Array:
        return lyapunov_spectrum(system, steps=steps, k=k, qr_every=every).exponents

    frame, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (len(state), k)))
    peers = {f"lyapax, QR every {every}": by_lyapax(every) for every in INTERVALS if every != "auto"}
    peers["jacfwd and QR"] = partial(_by_dense_jacobians, weights, frame, steps)
    return {
        **{f"ours, QR every {every}": partial(ours, every) for every in INTERVALS},
        **{name: partial(jax.jit(peer), state) for name, peer in peers.items()},
        "floor, QR every 1": partial(_floor, weights, frame, steps),
    }


def _by_dense_jacobians(weights: Array, frame: Array, steps: int, state: Array) -> Array:
    def step(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        state, frame, sums = carry
        frame, triangle = jnp.linalg.qr(jax.jacfwd(lambda s: _step(weights, s, None))(state) @ frame)
        return (_step(weights, state, None), frame, sums + jnp.log(jnp.abs(jnp.diagonal(triangle)))), None

    first = (state, frame, jnp.zeros(frame.shape[1]))
    return jnp.sort(jax.lax.scan(step, first, None, length=steps)[0][2] / steps, descending=True)


@partial(jax.jit, static_argnums=2)
def _floor(weights: Array, frame: Array, steps: int) -> Array:
    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        frame, sums = carry
        frame, triangle = jnp.linalg.qr(weights @ frame)
        return (frame, sums + jnp.log(jnp.abs(jnp.diagonal(triangle)))), None

    return jax.lax.scan(step, (frame, jnp.zeros(frame.shape[1])), None, length=steps)[0][1] / steps


def accuracies(system: DrivenSystem, k: int) -> dict[str, dict[str, Any]]:
    """Competitor -> its error against a long run, and what an interval of ours changes."""
    long_run = np.asarray(lyapunov_spectrum(system, steps=10 * ACCURACY_STEPS, k=k).exponents)
    exact = lyapunov_spectrum(system, steps=ACCURACY_STEPS, k=k)
    rows = {}
    for name, call in competitors(system, k, ACCURACY_STEPS).items():
        if name.startswith("floor"):
            continue
        exponents = np.asarray(call())
        rows[name] = {
            "rms_error": float(np.sqrt(np.nanmean((exponents - long_run) ** 2))),
            "lost_exponents": int(np.sum(~np.isfinite(exponents))),
            "change_by_interval": "",
            "steps_per_qr": "",
        }
    for every in INTERVALS:
        run = lyapunov_spectrum(system, steps=ACCURACY_STEPS, k=k, qr_every=every)
        # The runs see the same Jacobians only while they see the same states; a chaotic network forgives no last bit.
        np.testing.assert_array_equal(run.final_state, exact.final_state)
        change = float(np.nanmax(np.abs(run.exponents - exact.exponents)))
        rows[f"ours, QR every {every}"] |= {"change_by_interval": change, "steps_per_qr": float(run.steps_per_qr)}
    return rows


if __name__ == "__main__":
    main()
