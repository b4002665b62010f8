"""Peak memory and time of `lyapunov_spectrum` against the number of steps: flat the one, linear the other.

Eight exponents of a tanh network with N = 64 in float64, undriven, and driven by a function of the step. Every point
is a process of its own, for the peak is one of its process. This process loads nothing large, since on Linux a child's
peak starts at that of its parent.

Target: the peak at 1,000,000 steps within 1.10 of that at 100,000.
"""

import json
import sys
from typing import Any

from benchmarks import report
from benchmarks.peak_memory import measured_in_a_process, one_run

STATE_SIZE, EXPONENTS, IN_FEATURES = 64, 8, 4
STEPS = (100_000, 1_000_000)
SOURCES = ("undriven", "function of the step")


def main() -> None:
    """Measure and publish; with a source and a number of steps, measure that point alone and print it as JSON."""
    if sys.argv[1:]:
        print(json.dumps(peak(sys.argv[1], int(sys.argv[2]))))
        return
    rows: list[dict[str, Any]] = []
    for source in SOURCES:
        points = [measured_in_a_process("memory", source, steps) for steps in STEPS]
        rows += [
            {**point, "peak_over_shortest": point["peak_mebibytes"] / points[0]["peak_mebibytes"]} for point in points
        ]
    report.publish("memory", rows)


def peak(source: str, steps: int) -> dict[str, Any]:
    """Run once: peak memory and time."""
    import jax
    import jax.numpy as jnp

    from rnn_dynamics.dynamics import DrivenSystem, lyapunov_spectrum

    jax.config.update("jax_enable_x64", True)
    weights = 2 / jnp.sqrt(STATE_SIZE) * jax.random.normal(jax.random.key(0), (STATE_SIZE, STATE_SIZE))

    def step(weights: Any, state: Any, inputs_t: Any) -> Any:
        drive = 0.0 if inputs_t is None else jnp.tile(inputs_t, STATE_SIZE // IN_FEATURES)
        return jnp.tanh(weights @ state + drive)

    def noise(t: Any) -> Any:
        return 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(1), t), (IN_FEATURES,))

    system = DrivenSystem.from_step(step, weights, jnp.ones(STATE_SIZE))
    inputs = None if source == "undriven" else noise
    measure = jax.jit(lambda system: lyapunov_spectrum(system, inputs, steps=steps, k=EXPONENTS).exponents)
    measured = one_run(measure, system)
    return {"inputs": source, "steps": steps, **measured, "microseconds_per_step": measured["seconds"] / steps * 1e6}


if __name__ == "__main__":
    main()
