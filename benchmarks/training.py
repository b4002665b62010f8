"""Training beside a loop written by hand: what `train`, its probes and ensembles cost.

The adding problem over 200 steps, 64 units, batches of 32, float32, Adam behind clipping by the global norm. The loops
by hand are `nnx.RNN` with a linear layer behind it, updated within one `nnx.jit`, around the same cell and around
Flax's; they read the same batches. The probes are `standard_probes` at their default interval.

Then 32 networks of 32 units by `train_ensemble`, beside 32 calls of `train`, over 100 steps with batches of 8 and 32.

Targets: `train` no slower than the loop around the same cell; an ensemble at 5 times the throughput of single
trainings.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from benchmarks import report, timing
from rnn_dynamics.cells import ElmanCell, GRUCell, LSTMCell
from rnn_dynamics.models import make_model
from rnn_dynamics.tasks import make_task
from rnn_dynamics.training import Recipe, TrainingConfig, clip_by_global_norm, standard_probes, train, train_ensemble
from rnn_dynamics.types import Batch, Task


class Size(NamedTuple):
    """What is trained: T, H, B, and how many updates are made in a call."""

    steps: int
    hidden: int
    batch: int
    updates: int


SINGLE = Size(steps=200, hidden=64, batch=32, updates=200)
MANY = tuple(Size(steps=100, hidden=32, batch=batch, updates=100) for batch in (8, 32))
NETWORKS = 32
ROUNDS = 5
PROBE_EVERY = 100
THRESHOLD, RATE = 1.0, 1e-3

CELLS = {
    "LSTM": (LSTMCell, nnx.OptimizedLSTMCell),
    "GRU": (GRUCell, nnx.GRUCell),
    "Elman": (ElmanCell, nnx.SimpleCell),
}
"""Name -> our cell, Flax's."""


def main() -> None:
    """Measure and publish."""
    report.publish("training", [row for name in CELLS for row in single(name, SINGLE)])
    report.publish("training_ensembles", [row for size in MANY for row in ensembles(size, NETWORKS)])


def recipe() -> Recipe:
    """Clip by the global norm, then Adam."""
    return Recipe(optax.chain(clip_by_global_norm(THRESHOLD), optax.adam(RATE)))


def single(name: str, size: Size) -> list[dict[str, Any]]:
    """Time the ways to train one network with one cell; one row for each."""
    timings = timing.take_turns(competitors(name, size), ROUNDS)
    measurements = 1 + size.updates // PROBE_EVERY  # one before the first update
    over_train = timing.ratio(timings, "train with probes", "train") - 1
    # What a long training would measure: no more than one for each interval.
    of_probes = over_train * (measurements - 1) / measurements
    return [
        {
            "cell": name,
            **size._asdict(),
            "method": method,
            "updates_per_second": size.updates / taken.median,
            "over_same_cell": timing.ratio(timings, method, "loop, same cell"),
            "over_flax_cell": timing.ratio(timings, method, "loop, Flax's cell"),
            "probe_share": of_probes / (1 + of_probes) if method == "train with probes" else 0.0,
            "spread": taken.spread,
            "compile_seconds": taken.compile_seconds,
        }
        for method, taken in timings.items()
    ]


def competitors(name: str, size: Size) -> dict[str, Callable[[], Any]]:
    """Name -> function that makes the updates."""
    task = make_task("adding", length=size.steps)
    ours, theirs = CELLS[name]
    model = make_model(task, ours(2, size.hidden, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    config = TrainingConfig(size.updates, size.batch)
    probes = standard_probes(model, task, seed=0, every=PROBE_EVERY)
    return {
        "train": lambda: train(model, task, recipe, config).loss,
        "train with probes": lambda: train(model, task, recipe, config, probes=probes).loss,
        "loop, same cell": loop(ours(2, size.hidden, rngs=nnx.Rngs(0)), task, size),
        "loop, Flax's cell": loop(theirs(2, size.hidden, rngs=nnx.Rngs(0)), task, size),
    }


class ByHand(nnx.Module):
    """What one writes for a task like this: Flax's scan over a cell, and a linear layer on its last output."""

    def __init__(self, cell: nnx.RNNCellBase, batch: int):
        self.rnn = nnx.RNN(cell)
        self.head = nnx.Linear(cell.hidden_features, 1, rngs=nnx.Rngs(0))  # pyright: ignore[reportAttributeAccessIssue]
        self.batch = batch

    def __call__(self, inputs: Array) -> Array:
        """Map inputs [B, T, F] to answers [B, 1]."""
        carry = self.rnn.cell.initialize_carry((self.batch, inputs.shape[-1]), nnx.Rngs(0))
        outputs: Any = self.rnn(inputs, initial_carry=carry)
        return self.head(outputs[:, -1])


def loop(cell: nnx.RNNCellBase, task: Task, size: Size) -> Callable[[], list[Array]]:
    """Return a training written by hand, which collects its losses."""
    model = ByHand(cell, size.batch)
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(THRESHOLD), optax.adam(RATE)), wrt=nnx.Param)

    @nnx.jit
    def update(model: ByHand, optimizer: nnx.Optimizer, batch: Batch) -> Array:
        def mean_loss(model: ByHand) -> Array:
            return jnp.mean(task.loss(model(batch.inputs), batch.targets))

        loss, gradient = nnx.value_and_grad(mean_loss)(model)
        optimizer.update(model, gradient)
        return loss

    def train_by_hand() -> list[Array]:
        batches = task.batches("train", size.batch, seed=0, epochs=None)
        return [update(model, optimizer, next(batches)) for _ in range(size.updates)]

    return train_by_hand


def ensembles(size: Size, networks: int) -> list[dict[str, Any]]:
    """Time an ensemble and single trainings; one row for each."""
    task = make_task("adding", length=size.steps)
    config = TrainingConfig(size.updates, size.batch)
    seeds = range(networks)
    models = [make_model(task, GRUCell(2, size.hidden, rngs=nnx.Rngs(seed)), rngs=nnx.Rngs(seed)) for seed in seeds]
    timings = timing.take_turns(
        {
            "train, one by one": lambda: [train(model, task, recipe, config).loss for model in models],
            "train_ensemble": lambda: train_ensemble(models, task, recipe, config, seeds=seeds).loss,
        },
        ROUNDS,
    )
    return [
        {
            "networks": networks,
            **size._asdict(),
            "method": method,
            "updates_of_networks_per_second": networks * size.updates / taken.median,
            "times_one_by_one": 1 / timing.ratio(timings, method, "train, one by one"),
            "spread": taken.spread,
            "compile_seconds": taken.compile_seconds,
        }
        for method, taken in timings.items()
    ]


if __name__ == "__main__":
    main()
