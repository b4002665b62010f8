"""All states of linear cells at once and one after the other: `Recurrence` with parallel=True and parallel=False.

16,384 steps of 16 -> 64 features in float32; forward, and the gradient of the mean square of all outputs by the
parameters. Both read the same inputs and store all outputs.

Target: on CPUs, where the scan is the default, all states at once in at most twice the time of the gradient's scan.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import report, timing
from rnn_dynamics.cells import make_cell
from rnn_dynamics.layers import Recurrence

STEPS, IN_FEATURES, HIDDEN_FEATURES = 16_384, 16, 64
CELLS = ("lru", "mingru", "minlstm")
BATCHES = (1, 8)
ROUNDS = 9
METHODS = {"one after the other": False, "all at once": True}
"""Name -> `Recurrence`'s option parallel."""


def main() -> None:
    """Measure and publish."""
    report.publish("parallel_scan", [row for name in CELLS for batch in BATCHES for row in measure(name, batch)])


def measure(name: str, batch: int) -> list[dict[str, Any]]:
    """Time both methods on one cell, forward and backward; one row for each."""
    graph, params = nnx.split(make_cell(name, IN_FEATURES, HIDDEN_FEATURES, rngs=nnx.Rngs(0)))
    inputs = jax.random.normal(jax.random.key(1), (batch, STEPS, IN_FEATURES))

    def loss(params: Any, parallel: bool) -> jax.Array:
        return jnp.mean(Recurrence(nnx.merge(graph, params), parallel=parallel)(inputs)[1] ** 2)

    rows = []
    for what, made in {"forward": loss, "gradient": jax.grad(loss)}.items():
        calls: dict[str, Callable[[], Any]] = {
            method: partial(jax.jit(made, static_argnums=1), params, parallel) for method, parallel in METHODS.items()
        }
        timings = timing.take_turns(calls, ROUNDS)
        rows += [
            {
                "cell": name,
                "batch": batch,
                "pass": what,
                "method": method,
                "milliseconds": taken.median * 1e3,
                "over_scan": timing.ratio(timings, method, "one after the other"),
                "spread": taken.spread,
                "compile_seconds": taken.compile_seconds,
            }
            for method, taken in timings.items()
        ]
    return rows


if __name__ == "__main__":
    main()
