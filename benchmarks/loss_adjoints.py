"""What listening costs: `loss_adjoints` and `gradient_tails` over the loss and its gradient alone, in float32.

`ManyToOne` with an LSTM or a GRU, batch 64, 200 steps, 64 -> 128 features, 10 classes.

Who listens must see what each step adds to the gradient, which can then not be gathered from many steps at once, as
`Recurrence` does on CPUs by default (see `benchmarks.backpropagation`). So times are given over both: the gradient as
it is by default, and the gradient by the same scan.

Targets, over value and gradient by the same scan: taps and `loss_adjoints` at most 1.10, `gradient_tails` at most 2.2.
"""

import dataclasses
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
from rnn_dynamics.models import ManyToOne
from rnn_dynamics.taps import Listener, run_tapped, tap

BATCH, STEPS, IN_FEATURES, HIDDEN_FEATURES, CLASSES = 64, 200, 64, 128, 10
ROUNDS = 21
CELLS = {"LSTM": LSTMCell, "GRU": GRUCell}
BY_DEFAULT = "value and gradient"
BY_THE_SAME_SCAN = "value and gradient, gather_gradients=False"
TAPPED = "the same, with taps on the states"


def main() -> None:
    """Measure and publish."""
    report.publish("loss_adjoints", [row for name in CELLS for row in measure(name)])


def measure(name: str) -> list[dict[str, Any]]:
    """Time the competitors with one cell; one row for each."""
    timings = timing.take_turns(competitors(name), ROUNDS)
    return timing.rows(timings, {"over_gradient": BY_DEFAULT, "over_same_scan": BY_THE_SAME_SCAN}, cell=name)


def competitors(name: str) -> dict[str, Callable[[], Any]]:
    """Name -> function that computes the gradient, or what listens to it."""
    model = ManyToOne(CELLS[name](IN_FEATURES, HIDDEN_FEATURES, rngs=nnx.Rngs(0)), CLASSES, rngs=nnx.Rngs(1))
    inputs = jax.random.normal(jax.random.key(1), (BATCH, STEPS, IN_FEATURES))
    same_scan = nnx.clone(model)
    same_scan.recurrence.gather_gradients = False
    return {
        BY_DEFAULT: value_and_gradient(model, inputs),
        BY_THE_SAME_SCAN: value_and_gradient(same_scan, inputs),
        TAPPED: value_gradient_and_norms(model, inputs),
        "loss_adjoints": partial(loss_adjoints, model, losses, inputs),
        "gradient_tails": partial(gradient_tails, model, losses, inputs),
    }


def value_and_gradient(model: ManyToOne, inputs: Array) -> Callable[[], Any]:
    """Return a compiled function of nothing: the mean loss and its gradient by the parameters."""
    graph, params = nnx.split(model)
    compiled = jax.jit(jax.value_and_grad(lambda params: jnp.mean(losses(nnx.merge(graph, params), inputs))))
    return partial(compiled, params)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StateListener(Listener):
    """Hears the norms of the states' cotangents alone."""

    def make_probes(self, steps: int, batch: int, weights: Any) -> Array:
        """Return zeros [T, B]."""
        return jnp.zeros((steps, batch))

    def after(self, state: Any, probes: Array) -> Any:
        """Tap the state."""
        return tap(state, probes)


def value_gradient_and_norms(model: ManyToOne, inputs: Array) -> Callable[[], Any]:
    """Return a compiled function of nothing: the mean loss, its gradient, and the norms [T, B] of the states'."""
    graph, params = nnx.split(model)

    def loss(params: Any, probes: Array) -> Array:
        copy = nnx.merge(graph, params)
        return jnp.mean(run_tapped(copy, losses, inputs, lambda _: StateListener(), {"recurrence": probes})[0])

    return partial(jax.jit(jax.value_and_grad(loss, argnums=(0, 1))), params, jnp.zeros((STEPS, BATCH)))


def losses(model: Any, inputs: Array) -> Array:
    """Return the cross entropy of each example with class 0, [B]."""
    return -jax.nn.log_softmax(model(inputs))[:, 0]


if __name__ == "__main__":
    main()
