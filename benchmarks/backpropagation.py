"""Forward and backward pass of an LSTM and a GRU over sequences in float32: `nnx.RNN` and our `Recurrence`.

Batch 64, 200 steps, 64 -> 128 features; the loss is the mean square of all outputs, differentiated by the parameters.
The floor is the five matmuls of each step (two forward, three backward) in one scan each way, with nothing between.

Target: not slower than `nnx.RNN`. What taps cost is told by `benchmarks.loss_adjoints`.
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
from rnn_dynamics.layers import Recurrence

BATCH, STEPS, IN_FEATURES, HIDDEN_FEATURES = 64, 200, 64, 128
ROUNDS = 21
CELLS = {"LSTM": (LSTMCell, nnx.OptimizedLSTMCell), "GRU": (GRUCell, nnx.GRUCell)}
"""Name -> our cell, Flax's."""


def main() -> None:
    """Measure and publish."""
    report.publish("backpropagation", [row for name in CELLS for row in measure(name)])


def measure(name: str) -> list[dict[str, Any]]:
    """Time the competitors with one cell; one row for each."""
    timings = timing.take_turns(competitors(name), ROUNDS)
    return [
        {
            "cell": name,
            "method": method,
            "milliseconds": taken.median * 1e3,
            "over_nnx_RNN": timing.ratio(timings, method, "nnx.RNN"),
            "over_floor": timing.ratio(timings, method, "floor"),
            "spread": taken.spread,
            "compile_seconds": taken.compile_seconds,
        }
        for method, taken in timings.items()
    ]


def competitors(name: str) -> dict[str, Callable[[], Any]]:
    """Name -> function that computes the loss and its gradient, or that many matmuls."""
    our_cell, their_cell = CELLS[name]
    inputs = jax.random.normal(jax.random.key(1), (BATCH, STEPS, IN_FEATURES))
    theirs = nnx.RNN(their_cell(IN_FEATURES, HIDDEN_FEATURES, rngs=nnx.Rngs(0)))
    zeros = theirs.cell.initialize_carry((BATCH, IN_FEATURES), nnx.Rngs(0))
    ours = our_cell(IN_FEATURES, HIDDEN_FEATURES, rngs=nnx.Rngs(0))

    calls = {"nnx.RNN": partial(_gradient(theirs, lambda rnn, inputs: rnn(inputs, initial_carry=zeros)), inputs)}
    for ahead in (False, True):
        layer = Recurrence(ours, project_ahead=ahead)
        method = f"Recurrence, project_ahead={ahead}"
        calls[method] = partial(_gradient(layer, lambda layer, inputs: layer(inputs)[1]), inputs)
    kernel, recurrent_kernel = ours.kernel[...], ours.recurrent_kernel[...]
    calls["floor"] = partial(_floor, jnp.swapaxes(inputs, 0, 1), kernel, recurrent_kernel)
    return calls


def _gradient(layer: nnx.Module, run: Callable[[Any, Array], Array]) -> Callable[[Array], Any]:
    """Compile inputs -> loss and its gradient by the parameters."""
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params: Any, inputs: Array) -> Array:
        return jnp.mean(run(nnx.merge(graph, params, rest), inputs) ** 2)

    return partial(jax.jit(jax.value_and_grad(loss)), params)


@jax.jit
def _floor(inputs: Array, kernel: Array, recurrent_kernel: Array) -> tuple[Array, Array, Array]:
    def forward(h: Array, x: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        packed = x @ kernel + h @ recurrent_kernel
        return packed[:, : h.shape[1]], (x, h, packed)

    def backward(carry: tuple[Array, Array, Array], step: tuple[Array, Array, Array]) -> tuple[Any, None]:
        by_h, by_kernel, by_recurrent_kernel = carry
        x, h, packed = step
        return (
            by_h + packed @ recurrent_kernel.T,
            by_kernel + x.T @ packed,
            by_recurrent_kernel + h.T @ packed,
        ), None

    h = jnp.zeros((inputs.shape[1], recurrent_kernel.shape[0]))
    h, visited = jax.lax.scan(forward, h, inputs)
    start = (h, jnp.zeros_like(kernel), jnp.zeros_like(recurrent_kernel))
    return jax.lax.scan(backward, start, visited, reverse=True)[0]


if __name__ == "__main__":
    main()
