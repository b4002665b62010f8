"""What the gradient at every lag costs: `gradient_norm_by_lag` beside one back-propagation through the same steps.

An LSTM of 128 units, T = 1000 steps, one sequence, float64. One back-propagation is `jax.grad` of a loss at the last
step by the first state: the gradient at the longest lag alone.

Target: all lags along a loss's gradient, or with one probe, at most 2 back-propagations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from benchmarks import report, timing
from rnn_dynamics.cells import LSTMCell
from rnn_dynamics.dynamics import DrivenSystem, gradient_norm_by_lag

STEPS, IN_FEATURES, HIDDEN_FEATURES = 1000, 16, 128
ROUNDS = 11
ONE = "one back-propagation"


def main() -> None:
    """Measure and publish."""
    jax.config.update("jax_enable_x64", True)
    timings = timing.take_turns(competitors(), ROUNDS)
    report.publish("gradient_norms", timing.rows(timings, {"over_one": ONE}))


def competitors() -> dict[str, Callable[[], Any]]:
    """Name -> function that computes one gradient, or the norms at all lags."""
    system = DrivenSystem.from_cell(LSTMCell(IN_FEATURES, HIDDEN_FEATURES, rngs=nnx.Rngs(0)), dtype=jnp.float64)
    inputs = jax.random.normal(jax.random.key(1), (STEPS, IN_FEATURES))

    def loss(state: Array) -> Array:
        return 0.5 * jnp.sum(state**2)

    @jax.jit
    def back_propagation(system: DrivenSystem, inputs: Array) -> Array:
        def final_loss(state: Array) -> Array:
            return loss(jax.lax.scan(lambda state, x: (system.step(state, x), None), state, inputs)[0])

        return jax.grad(final_loss)(system.initial_state)

    lags = partial(gradient_norm_by_lag, system, inputs, max_lag=STEPS)
    return {
        ONE: partial(back_propagation, system, inputs),
        "all lags, along the loss's gradient": partial(lags, along=jax.grad(loss)),
        "all lags, 1 probe": partial(lags, probes=1),
        "all lags, 16 probes": partial(lags, probes=16),
        "all lags, exact (256 cotangents)": lags,
    }


if __name__ == "__main__":
    main()
