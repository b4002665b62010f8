"""Spectra of many networks at once, by `jax.vmap`, beside a Python loop over them.

256 tanh networks with N = 32, 200 steps, all exponents and the leading 4, float64. Both ways are compiled once.

Target: `vmap` at least 5 times the throughput of the loop.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import report, timing
from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum

NETWORKS, STATE_SIZE, STEPS = 256, 32, 200
ROUNDS = 5


def main() -> None:
    """Measure and publish."""
    jax.config.update("jax_enable_x64", True)
    report.publish(
        "ensembles", [row for k in (STATE_SIZE, 4) for qr_every in (1, "auto") for row in measure(k, qr_every)]
    )


def measure(k: int, qr_every: int | str) -> list[dict[str, Any]]:
    """Time both ways for k exponents."""
    timings = timing.take_turns(competitors(k, qr_every), ROUNDS)
    return [
        {
            "exponents": k,
            "qr_every": qr_every,
            "method": method,
            "networks_per_second": NETWORKS / taken.median,
            "times_the_loop": 1 / timing.ratio(timings, method, "loop"),
            "spread": taken.spread,
            "compile_seconds": taken.compile_seconds,
        }
        for method, taken in timings.items()
    ]


def competitors(k: int, qr_every: int | str) -> dict[str, Callable[[], Any]]:
    """Name -> function that measures all networks."""
    keys = jax.random.split(jax.random.key(0), NETWORKS)
    systems = jax.vmap(_network)(keys)
    each = [jax.tree.map(lambda leaf, number=number: leaf[number], systems) for number in range(NETWORKS)]

    def spectrum(system: DrivenSystem) -> Array:
        return lyapunov_spectrum(system, steps=STEPS, k=k, qr_every=qr_every).exponents

    together = jax.jit(jax.vmap(spectrum))
    return {"loop": lambda: [spectrum(system) for system in each], "vmap": lambda: together(systems)}


def _network(key: Array) -> DrivenSystem:
    weights_key, state_key = jax.random.split(key)
    weights = 2 / np.sqrt(STATE_SIZE) * jax.random.normal(weights_key, (STATE_SIZE, STATE_SIZE))
    return DrivenSystem.from_step(_step, weights, jax.random.normal(state_key, (STATE_SIZE,)))


def _step(weights: Array, state: Array, _: None) -> Array:
    return jnp.tanh(weights @ state)


if __name__ == "__main__":
    main()
