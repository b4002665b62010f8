"""Which networks learn the adding problem at T = 200, and which copy over a delay?

    python -m experiments long_memory_tasks --preset laptop

Elman networks that start in different places, an orthogonal network, LSTM and GRU make equally many updates, several
seeds of each, and the test metric is followed. The tasks are those of Arjovsky, Shah and Bengio (ICML 2016); that
relu networks learn to add if they start from the identity is from Le, Jaitly and Hinton (arXiv 1504.00941).

Time on two cores: 3 minutes (laptop), 15 s (smoke); the preset `paper`, with lengths and widths near those of Arjovsky
et al., is for an accelerator and has not been run. To expect, with standard errors over five seeds: adding at T = 200
after 1500 updates (mean squared error, chance 0.167): GRU 0.0003 and LSTM 0.0010 +- 0.0002, every seed below 0.01 after
280 +- 12 and 770 +- 56 updates; between them and chance relu from the identity, 0.016 +- 0.003; expRNN, whose weights
stay orthogonal, 0.114 +- 0.023, which is 2.3 standard errors below chance; tanh at chance, 0.172, orthogonal at the
start or not. Copying over 50 steps after 750 updates (nats, chance 0.297): expRNN 0.005 +- 0.001, solved by every seed;
GRU 0.220 +- 0.004, LSTM 0.292 +- 0.001; tanh at chance, 0.299.

So to start from orthogonal weights does not help tanh networks within so few updates, nor at learning rates of 3e-4 and
with 64 units (three seeds), and relu networks need more updates than gated ones. With the input weights of Le et al.,
of deviation 0.001, they stay at chance for 1500 updates at learning rates of 3e-4, 1e-3 and 3e-3 (three seeds each).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import xarray as xr
from flax import nnx

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.cells import make_cell
from rnn_dynamics.cells.initializers import gaussian, identity, orthogonal
from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.models import SequenceModel, make_model
from rnn_dynamics.results import labelled
from rnn_dynamics.tasks.adding import Adding
from rnn_dynamics.tasks.copying_memory import CopyingMemory
from rnn_dynamics.training import (
    Checkpoints,
    TrainingConfig,
    TrainingRecord,
    clipped_adam,
    train_ensemble,
)

TEST_EXAMPLES = 512


@dataclass(frozen=True)
class Network:
    """How a network is made and how fast it is trained.

    Attributes:
        cell: its name for `make_cell`.
        learning_rate: of Adam.
        options: of the cell.
    """

    cell: str
    learning_rate: float
    options: Mapping[str, Any] = field(default_factory=dict)


NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        "elman-tanh": Network("elman-tanh", 1e-3, {"recurrent_kernel_init": gaussian(1.0)}),
        "elman-tanh-orthogonal": Network("elman-tanh", 1e-3, {"recurrent_kernel_init": orthogonal(1.0)}),
        "elman-relu-identity": Network(
            "elman-relu", 1e-3, {"recurrent_kernel_init": identity(1.0), "kernel_init": jax.nn.initializers.normal(0.1)}
        ),
        "exprnn": Network("exprnn", 5e-3),
        "lstm": Network("lstm", 1e-2),
        "gru": Network("gru", 1e-2),
    }
)


@dataclass(frozen=True)
class Config:
    """What to compare.

    Attributes:
        adding: names of `NETWORKS` that learn to add.
        adding_length: T of the adding problem.
        adding_hidden: H there.
        adding_steps: updates there.
        copying: names of `NETWORKS` that learn to copy.
        copying_delay: blanks, of T = delay + 20 steps.
        copying_hidden: H there.
        copying_steps: updates there.
        seeds: number of them, of initial weights and of the order of the examples.
        batch_size: examples per update.
        clip_threshold: global norm above which gradients are shortened.
        evaluate_every: updates between two points of a curve.
    """

    adding: tuple[str, ...] = ("elman-tanh", "elman-tanh-orthogonal", "elman-relu-identity", "exprnn", "lstm", "gru")
    adding_length: int = 200
    adding_hidden: int = 32
    adding_steps: int = 1500
    copying: tuple[str, ...] = ("elman-tanh", "elman-tanh-orthogonal", "exprnn", "lstm", "gru")
    copying_delay: int = 50
    copying_hidden: int = 64
    copying_steps: int = 750
    seeds: int = 5
    batch_size: int = 32
    clip_threshold: float = 1.0
    evaluate_every: int = 50


PRESETS = {
    "smoke": Config(
        adding=("elman-tanh-orthogonal",),
        adding_length=4,
        adding_hidden=4,
        adding_steps=20,
        copying=("gru",),
        copying_delay=2,
        copying_hidden=4,
        copying_steps=20,
        seeds=2,
        batch_size=16,
        evaluate_every=10,
    ),
    "laptop": Config(),
    "paper": Config(
        adding_length=750,
        adding_hidden=128,
        adding_steps=10_000,
        copying_delay=500,
        copying_hidden=128,
        copying_steps=10_000,
        batch_size=128,
        evaluate_every=250,
    ),
}


@dataclass(frozen=True)
class Point:
    """One network and one task, all seeds as one ensemble; the other fields are those of `Config`.

    Attributes:
        task: "adding" or "copying_memory".
        network: a key of `NETWORKS`.
        extent: length of the adding problem, delay of copying, steps.
        learning_rate: of Adam, from `NETWORKS`.
    """

    task: str
    network: str
    extent: int
    hidden: int
    training_steps: int
    learning_rate: float
    seeds: int
    batch_size: int
    clip_threshold: float
    evaluate_every: int


def grid(config: Config) -> list[Point]:
    """List every task with each of its networks.

    Raises:
        ValueError: an unknown network, or a number out of range.
    """
    chosen = {
        "adding": (config.adding, config.adding_length, config.adding_hidden, config.adding_steps),
        "copying_memory": (config.copying, config.copying_delay, config.copying_hidden, config.copying_steps),
    }
    shared = (config.seeds, config.batch_size, config.clip_threshold, config.evaluate_every)
    whole_number("seeds", config.seeds, least=1)
    whole_number("evaluate_every", config.evaluate_every, least=1)
    points = []
    for task, (networks, extent, hidden, steps) in chosen.items():
        name = task.partition("_")[0]
        whole_number(f"{name}_hidden", hidden, least=1)
        whole_number(f"{name}_steps", steps, least=config.evaluate_every)
        TrainingConfig(steps, config.batch_size)
        _task(task, extent)
        for network in networks:
            if network not in NETWORKS:
                raise ValueError(unknown_name("network", network, NETWORKS))
            learning_rate = NETWORKS[network].learning_rate
            clipped_adam(learning_rate, config.clip_threshold)
            points.append(Point(task, network, extent, hidden, steps, learning_rate, *shared))
    return points


def run(point: Point, unfinished: Path) -> xr.Dataset:
    """Train all seeds of a network, and keep how the test metric fell."""
    task = _task(point.task, point.extent)
    record = train_ensemble(
        [_model(task, point, seed) for seed in range(point.seeds)],
        task,
        clipped_adam,
        TrainingConfig(point.training_steps, point.batch_size, evaluate_every=point.evaluate_every),
        seeds=range(point.seeds),
        numbers={"learning_rate": point.learning_rate, "clip_threshold": point.clip_threshold},
        checkpoints=Checkpoints(unfinished, every=10 * point.evaluate_every),
    )
    updates = point.evaluate_every * (1 + np.arange(point.training_steps // point.evaluate_every))
    return xr.Dataset(
        {
            "metric": labelled(
                ("update", "seed"), metric_of(record, len(updates)), _UNITS[point.task], task.metric_name
            ),
            "broken_update": labelled("seed", record.broken_step, "updates", "update at which training broke, or -1"),
            "chance_level": labelled((), task.chance_level, _UNITS[point.task], "without memory"),
            "solved_level": labelled((), task.solved_level, _UNITS[point.task], "below it the task is solved"),
        },
        {
            "update": labelled("update", updates, "updates", "updates made"),
            "seed": labelled("seed", np.arange(point.seeds), "1", "seed"),
        },
    )


_UNITS = {"adding": "squared units", "copying_memory": "nats"}


def metric_of(record: TrainingRecord, evaluations: int) -> np.ndarray:
    """Return the metric at all evaluations that were due.

    Args:
        record: of an ensemble.
        evaluations: n.

    Returns:
        [n, E]; NaN where a member had broken by then.
    """
    metric = np.full((evaluations, len(record.broken_step)), np.nan)
    metric[: len(record.evaluated)] = record.metric
    updates = record.evaluated[:, None]
    metric[: len(updates)][(record.broken_step >= 0) & (updates > record.broken_step)] = np.nan
    return metric


def _task(name: str, extent: int) -> Adding | CopyingMemory:
    if name == "adding":
        return Adding(extent, test_size=TEST_EXAMPLES)
    return CopyingMemory(extent, test_size=TEST_EXAMPLES)


def _model(task: Adding | CopyingMemory, point: Point, seed: int) -> SequenceModel:
    network, rngs = NETWORKS[point.network], nnx.Rngs(seed)
    assert task.input_features is not None
    cell = make_cell(network.cell, task.input_features, point.hidden, rngs=rngs, **network.options)
    return make_model(task, cell, rngs=rngs)
