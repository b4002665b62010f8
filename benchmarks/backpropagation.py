"""Forward and backward pass of an LSTM and a GRU over sequences in float32: torch, `nnx.RNN` and our `Recurrence`.

Batch 64, 200 steps, 64 -> 128 features, and batch 16, 1024 steps, 128 -> 256; two threads for each. The loss is the
mean square of all outputs, differentiated by the parameters. The floor is the matmuls of each step, two forward and
three backward, in one scan each way, with nothing between.

Targets for both passes: at most 0.85 of `nnx.RNN`, and 1.2 of torch. What taps cost: `benchmarks.loss_adjoints`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from benchmarks import report, timing, torch_layers
from rnn_dynamics.cells import GRUCell, LSTMCell
from rnn_dynamics.layers import Recurrence


class Shape(NamedTuple):
    """What is run over: B, T, F, H."""

    batch: int
    steps: int
    in_features: int
    hidden_features: int


ROUNDS = {Shape(64, 200, 64, 128): 21, Shape(16, 1024, 128, 256): 11}
"""Calls of each competitor."""

CELLS = {"LSTM": (LSTMCell, nnx.OptimizedLSTMCell), "GRU": (GRUCell, nnx.GRUCell)}
"""Name -> our cell, Flax's."""

OURS = {
    "Recurrence": {},
    "Recurrence, gather_gradients=False": {"gather_gradients": False},
    "Recurrence, project_ahead=True": {"project_ahead": True},
}
"""Method -> options."""

PASSES = ("forward", "forward and backward")


def main() -> None:
    """Measure and publish."""
    rows = [row for shape in ROUNDS for name in CELLS for which in PASSES for row in measure(name, shape, which)]
    report.publish("backpropagation", rows)


def measure(name: str, shape: Shape, which: str) -> list[dict[str, Any]]:
    """Time the competitors with one cell, one shape and one of the passes; one row for each."""
    with torch_layers.serve(name, *shape) as passes:
        timings = timing.take_turns({"torch": passes[which], **competitors(name, shape, which)}, ROUNDS[shape])
    over = {"over_nnx_RNN": "nnx.RNN", "over_torch": "torch", "over_floor": "floor"}
    return timing.rows(timings, over, **{"cell": name, **shape._asdict(), "pass": which})


def competitors(name: str, shape: Shape, which: str) -> dict[str, Callable[[], Any]]:
    """Name -> function that makes the pass, or that many matmuls; all but torch."""
    our_cell, their_cell = CELLS[name]
    inputs = jax.random.normal(jax.random.key(1), shape[:3])
    theirs = nnx.RNN(their_cell(*shape[2:], rngs=nnx.Rngs(0)))
    zeros = theirs.cell.initialize_carry((shape.batch, shape.in_features), nnx.Rngs(0))
    ours = our_cell(*shape[2:], rngs=nnx.Rngs(0))

    compiled = _forward if which == "forward" else _forward_and_backward
    calls = {"nnx.RNN": partial(compiled(theirs, lambda rnn, inputs: rnn(inputs, initial_carry=zeros)), inputs)}
    for method, options in OURS.items():
        layer = Recurrence(ours, **options)
        calls[method] = partial(compiled(layer, lambda layer, inputs: layer(inputs)[1]), inputs)
    weights = ours.kernel[...], ours.recurrent_kernel[...]
    calls["floor"] = partial(_floor, jnp.swapaxes(inputs, 0, 1), *weights, backward=which != "forward")
    return calls


def _forward(layer: nnx.Module, run: Callable[[Any, Array], Array]) -> Callable[[Array], Any]:
    """Compile inputs -> outputs."""
    graph, state = nnx.split(layer)
    return partial(jax.jit(lambda state, inputs: run(nnx.merge(graph, state), inputs)), state)


def _forward_and_backward(layer: nnx.Module, run: Callable[[Any, Array], Array]) -> Callable[[Array], Any]:
    """Compile inputs -> loss and its gradient by the parameters."""
    graph, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params: Any, inputs: Array) -> Array:
        return jnp.mean(run(nnx.merge(graph, params, rest), inputs) ** 2)

    return partial(jax.jit(jax.value_and_grad(loss)), params)


@partial(jax.jit, static_argnames="backward")
def _floor(inputs: Array, kernel: Array, recurrent_kernel: Array, *, backward: bool) -> Any:
    def forward_step(h: Array, x: Array) -> tuple[Array, Any]:
        packed = x @ kernel + h @ recurrent_kernel
        return packed[:, : h.shape[1]], (x, h, packed) if backward else None

    def backward_step(carry: tuple[Array, Array, Array], step: tuple[Array, Array, Array]) -> tuple[Any, None]:
        by_h, by_kernel, by_recurrent_kernel = carry
        x, h, packed = step
        return (
            by_h + packed @ recurrent_kernel.T,
            by_kernel + x.T @ packed,
            by_recurrent_kernel + h.T @ packed,
        ), None

    h = jnp.zeros((inputs.shape[1], recurrent_kernel.shape[0]))
    h, visited = jax.lax.scan(forward_step, h, inputs)
    if not backward:
        return h
    start = (h, jnp.zeros_like(kernel), jnp.zeros_like(recurrent_kernel))
    return jax.lax.scan(backward_step, start, visited, reverse=True)[0]


if __name__ == "__main__":
    main()
