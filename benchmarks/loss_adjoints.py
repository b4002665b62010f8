"""What listening costs: `loss_adjoints` and `gradient_tails` over the loss and its gradient alone, in float32.

A sequence classifier with an LSTM or a GRU, batch 64, 200 steps, 64 -> 128 features, 10 classes.

Targets: `loss_adjoints` at most 1.10 of value and gradient, `gradient_tails` at most 2.2.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from benchmarks import report, timing
from rnn_dynamics.cells import GRUCell, LSTMCell
from rnn_dynamics.dynamics import gradient_tails, loss_adjoints
from rnn_dynamics.models import SequenceClassifier

BATCH, STEPS, IN_FEATURES, HIDDEN_FEATURES, CLASSES = 64, 200, 64, 128, 10
ROUNDS = 21
CELLS = {"LSTM": LSTMCell, "GRU": GRUCell}
ALONE = "value and gradient"


def main() -> None:
    """Measure and publish."""
    report.publish("loss_adjoints", [row for name in CELLS for row in measure(name)])


def measure(name: str) -> list[dict[str, Any]]:
    """Time the competitors with one cell; one row for each."""
    timings = timing.take_turns(competitors(name), ROUNDS)
    return timing.rows(timings, {"over_gradient": ALONE}, cell=name)


def competitors(name: str) -> dict[str, Callable[[], Any]]:
    """Name -> function that computes the gradient, or what listens to it."""
    model = SequenceClassifier(CELLS[name](IN_FEATURES, HIDDEN_FEATURES, rngs=nnx.Rngs(0)), CLASSES, rngs=nnx.Rngs(1))
    inputs = jax.random.normal(jax.random.key(1), (BATCH, STEPS, IN_FEATURES))
    graph, params = nnx.split(model)
    value_and_grad = jax.jit(jax.value_and_grad(lambda params: jnp.mean(losses(nnx.merge(graph, params), inputs))))
    return {
        ALONE: partial(value_and_grad, params),
        "loss_adjoints": partial(loss_adjoints, model, losses, inputs),
        "gradient_tails": partial(gradient_tails, model, losses, inputs),
    }


def losses(model: Any, inputs: Array) -> Array:
    """Return the cross entropy of each example with class 0, [B]."""
    return -jax.nn.log_softmax(model(inputs))[:, 0]


if __name__ == "__main__":
    main()
