"""Peak memory and time of an LSTM's gradient against the number of steps, with and without checkpoints.

Batch 4, 1 -> 32 features in float32; the loss is the mean square of the last state, so that no outputs are kept. Every
point is a process of its own, for the peak is one of its process.

Target: with checkpoint_every="sqrt", what the run adds to the peak grows like sqrt(T), from 10,000 to 100,000 steps by
at most 3.2 though the inputs grow by 10; in at most twice the time that it takes without checkpoints.
"""

import json
import sys
from typing import Any

from benchmarks import report
from benchmarks.peak_memory import measured_in_a_process, one_run

BATCH, IN_FEATURES, HIDDEN_FEATURES = 4, 1, 32
STEPS = (10_000, 100_000)
CHECKPOINTS = ("none", "sqrt")


def main() -> None:
    """Measure and publish; with checkpoints and a number of steps, measure that point alone and print it as JSON."""
    if sys.argv[1:]:
        print(json.dumps(peak(sys.argv[1], int(sys.argv[2]))))
        return
    rows: list[dict[str, Any]] = []
    for checkpoints in CHECKPOINTS:
        points = [measured_in_a_process("checkpointing", checkpoints, steps) for steps in STEPS]
        shortest = points[0]["grown_in_the_run"]
        rows += [{**point, "grown_over_shortest": point["grown_in_the_run"] / shortest} for point in points]
    report.publish("checkpointing", rows)


def peak(checkpoints: str, steps: int) -> dict[str, Any]:
    """Differentiate once: peak memory and time."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from rnn_dynamics.cells import LSTMCell
    from rnn_dynamics.layers import Recurrence

    every = "sqrt" if checkpoints == "sqrt" else None
    layer = Recurrence(LSTMCell(IN_FEATURES, HIDDEN_FEATURES, rngs=nnx.Rngs(0)), checkpoint_every=every)
    graph, params = nnx.split(layer)
    inputs = jax.random.normal(jax.random.key(1), (BATCH, steps, IN_FEATURES))

    @jax.jit
    def gradient(params: Any, inputs: Any) -> Any:
        return jax.grad(lambda params: jnp.mean(nnx.merge(graph, params)(inputs)[0][1] ** 2))(params)

    measured = one_run(gradient, params, inputs)
    return {
        "checkpoints": checkpoints,
        "steps": steps,
        **measured,
        "microseconds_per_step": measured["seconds"] / steps * 1e6,
    }


if __name__ == "__main__":
    main()
