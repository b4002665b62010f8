r"""How long may sequences be for gradient descent to learn, without clipping, with it, and with Omega besides?

    python -m experiments temporal_order_length --preset laptop

Plain tanh networks learn the temporal order of two symbols by stochastic gradient descent of constant rate, as in
figure 7 of Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks" (ICML 2013): alone,
with the gradient clipped by its norm, and with the regulariser Omega added. Initial weights and batches of 20 are
theirs (`INITIALISERS`). The preset `paper` has their sizes and was not run; it clips at 1 throughout, where they clip
sigmoid networks at 6. A network has succeeded when an evaluation finds fewer than 1 % errors.

The paper trains 50 units for up to 5 million updates of rate 0.001, or 0.01 with clipping. `laptop` has 32 units, 2,000
updates, and rates ten times as large; without clipping the larger one as well, so that it is not the rate that differs.

Time on two cores: 4 to 7 minutes (laptop), 10 s (smoke). To expect: all succeed at T = 10. Of the 60 networks on 20, 30
and 40 steps, of both initialisers, 1 (rate 0.1) and 2 (rate 0.01) succeed without clipping, 21 with it, and 47 with
Omega too. On 30 and 40 steps no network that starts from Gaussian weights learns anything with clipping alone, and with
Omega 13 of 20 succeed.

At the rate of 0.01 with clipping as well, on 20 steps from sparse weights, 3 of 10 succeed, and with Omega 7 (2 without
either): the order is the same, but what clipping alone adds there is within the errors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax
import xarray as xr
from flax import nnx

from rnn_dynamics.arguments import require_positive, whole_number
from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import sparse
from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.models import SequenceModel, make_model
from rnn_dynamics.results import labelled
from rnn_dynamics.tasks import make_task
from rnn_dynamics.training import (
    Checkpoints,
    Recipe,
    TaskLoss,
    TrainingConfig,
    TrainingRecord,
    VanishingGradientPenalty,
    clip_by_global_norm,
    train_ensemble,
)
from rnn_dynamics.types import Initializer, Task

SAVE_EVERY = 1000
"""Updates between two checkpoints."""


class InitialWeights(NamedTuple):
    """What a network starts from.

    Attributes:
        activation: of the units.
        recurrent: initialiser of the recurrent weights.
        deviation: standard deviation of input and output weights.
    """

    activation: str
    recurrent: Initializer
    deviation: float


_normal = jax.nn.initializers.normal

INITIALISERS: Mapping[str, InitialWeights] = {
    "sigmoid": InitialWeights("sigmoid", _normal(0.01), 0.01),
    "basic_tanh": InitialWeights("tanh", _normal(0.1), 0.1),
    "smart_tanh": InitialWeights("tanh", sparse(gain=0.95, nonzeros=15), 0.01),
}
"""Those of the paper, with the numbers of the authors' code (pascanur/trainingRNNs); biases start from 0.

Sparse weights are 15 into every unit here, and 15 out of every unit there."""

METHODS = ("plain", "clipped", "clipped_omega")


@dataclass(frozen=True)
class Config:
    """What to compare.

    Attributes:
        initialisers: of `INITIALISERS`.
        methods: of `METHODS`.
        lengths: T.
        plain_learning_rates: rates without clipping.
        learning_rate: rate with clipping.
        clip_threshold: norm above which gradients are shortened.
        omega_weight: of the regulariser. Near its minimum ours is a fourth of that of the authors' code, so that 8 here
            is 2 there.
        hidden: H.
        batch_size: sequences per update.
        updates: after which a network has failed.
        evaluate_every: updates between two evaluations.
        test_size: sequences of an evaluation.
        seeds: networks of each kind, with seeds 0, 1, ... of weights and batches.
    """

    initialisers: tuple[str, ...] = ("smart_tanh", "basic_tanh")
    methods: tuple[str, ...] = METHODS
    lengths: tuple[int, ...] = (10, 20, 30, 40)
    plain_learning_rates: tuple[float, ...] = (0.01, 0.1)
    learning_rate: float = 0.1
    clip_threshold: float = 1.0
    omega_weight: float = 8.0
    hidden: int = 32
    batch_size: int = 20
    updates: int = 2000
    evaluate_every: int = 250
    test_size: int = 2000
    seeds: int = 10


PRESETS = {
    "smoke": Config(
        initialisers=("basic_tanh",),
        methods=("clipped_omega",),
        lengths=(10,),
        hidden=8,
        updates=20,
        evaluate_every=10,
        test_size=64,
        seeds=2,
    ),
    "laptop": Config(),
    "paper": Config(
        initialisers=tuple(INITIALISERS),
        lengths=(20, 50, 100, 150, 200, 250),
        plain_learning_rates=(0.001,),
        learning_rate=0.01,
        hidden=50,
        updates=5_000_000,
        evaluate_every=1000,
        test_size=10_000,
        seeds=5,
    ),
}


@dataclass(frozen=True)
class Point:
    """One kind of network, trained with several seeds; the fields are those of `Config`, one of each."""

    initialiser: str
    method: str
    length: int
    learning_rate: float
    clip_threshold: float
    omega_weight: float
    hidden: int
    batch_size: int
    updates: int
    evaluate_every: int
    test_size: int
    seeds: int


def grid(config: Config) -> list[Point]:
    """List every initialiser with every length and method, and without clipping with every rate.

    Raises:
        ValueError: an unknown initialiser or method, or a number out of range.
    """
    for what, names, known in (
        ("initialiser", config.initialisers, INITIALISERS),
        ("method", config.methods, METHODS),
    ):
        for name in names:
            if name not in known:
                raise ValueError(unknown_name(what, name, known))
    for name, least in (("hidden", 1), ("updates", 1), ("evaluate_every", 1), ("test_size", 1), ("seeds", 1)):
        whole_number(name, getattr(config, name), least=least)
    TrainingConfig(config.updates, config.batch_size)
    for length in config.lengths:
        make_task("temporal_order", length=length)
    for rate in (config.learning_rate, *config.plain_learning_rates):
        require_positive("learning_rate", rate)
    require_positive("clip_threshold", config.clip_threshold)
    require_positive("omega_weight", config.omega_weight)
    shared = (
        config.clip_threshold,
        config.omega_weight,
        config.hidden,
        config.batch_size,
        config.updates,
        config.evaluate_every,
        config.test_size,
        config.seeds,
    )
    return [
        Point(initialiser, method, length, rate, *shared)
        for initialiser in config.initialisers
        for length in config.lengths
        for method in config.methods
        for rate in (config.plain_learning_rates if method == "plain" else (config.learning_rate,))
    ]


def run(point: Point, unfinished: Path) -> xr.Dataset:
    """Train the networks of a point; what one that has stopped would have done since is NaN."""
    task = make_task("temporal_order", length=point.length, test_size=point.test_size)
    models = [_model(point, task, seed) for seed in range(point.seeds)]
    record = train_ensemble(
        models,
        task,
        _recipe(point, task),
        TrainingConfig(point.updates, point.batch_size, evaluate_every=point.evaluate_every, stop_when_solved=True),
        seeds=range(point.seeds),
        numbers={"learning_rate": point.learning_rate},
        checkpoints=Checkpoints(unfinished, every=SAVE_EVERY),
    )
    return _dataset(point, task, record)


def _model(point: Point, task: Task, seed: int) -> SequenceModel:
    rngs = nnx.Rngs(seed)
    weights = INITIALISERS[point.initialiser]
    small = _normal(weights.deviation)
    cell = ElmanCell(
        task.input_features or 0,
        point.hidden,
        activation=weights.activation,
        kernel_init=small,
        recurrent_kernel_init=weights.recurrent,
        rngs=rngs,
    )
    model = make_model(task, cell, rngs=rngs)
    model.head.kernel[...] = small(rngs.params(), model.head.kernel.shape, model.head.kernel.dtype)
    return model


def _recipe(point: Point, task: Task) -> Callable[..., Recipe]:
    """Return learning_rate -> recipe."""
    threshold = np.inf if point.method == "plain" else point.clip_threshold
    omega = {"omega": (point.omega_weight, VanishingGradientPenalty(TaskLoss(task.loss)))}
    penalties = omega if point.method == "clipped_omega" else {}

    def recipe(learning_rate: float | jax.Array) -> Recipe:
        return Recipe(optax.chain(clip_by_global_norm(threshold), optax.sgd(learning_rate)), penalties=penalties)

    return recipe


def _dataset(point: Point, task: Task, record: TrainingRecord) -> xr.Dataset:
    blocks = -(-point.updates // point.evaluate_every)
    assert record.clipping is not None
    last = record.metric[-1] if len(record.metric) else np.full(point.seeds, np.nan)
    return xr.Dataset(
        {
            "succeeded": labelled("seed", record.solved_step >= 0, "1", "whether fewer than 1 % errors were reached"),
            "solved_update": labelled("seed", record.solved_step, "updates", "updates until then, -1 if never"),
            "last_accuracy": labelled("seed", last, "1", "accuracy at the last evaluation"),
            "training_loss": labelled(
                ("update", "seed"),
                _blockwise(np.nanmean, record.loss, blocks, point.evaluate_every),
                "nats",
                "mean training loss since the last evaluation",
            ),
            "largest_gradient_norm": labelled(
                ("update", "seed"),
                _blockwise(np.nanmax, record.gradient_norm, blocks, point.evaluate_every),
                "nats per unit weight",
                "largest norm of a gradient, before clipping, since the last evaluation",
            ),
            "clip_share": labelled("seed", record.clipping.share, "1", "share of clipped updates"),
            "chance_level": labelled((), task.chance_level, "1", "accuracy by chance"),
            "first_nonfinite_step": labelled(
                "seed", record.broken_step, "updates", "update at which the training broke, -1 if none"
            ),
        },
        {
            "seed": labelled("seed", np.arange(point.seeds), "1", "seed"),
            "update": labelled("update", point.evaluate_every * (1 + np.arange(blocks)), "updates", "training update"),
        },
    )


def _blockwise(reduce: Callable[..., np.ndarray], series: np.ndarray, blocks: int, size: int) -> np.ndarray:
    """Reduce a series [steps, E] to [blocks, E]; NaN where a member had stopped before a block began."""
    missing = blocks * size - len(series)
    padded = np.pad(series, ((0, missing), (0, 0)), constant_values=np.nan).reshape(blocks, size, -1)
    alive = np.any(np.isfinite(padded), axis=1, keepdims=True)
    return np.where(alive[:, 0], reduce(np.where(alive, padded, 0), axis=1), np.nan)
