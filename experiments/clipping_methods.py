"""What does clipping do, and does it matter how gradients are clipped?

    python -m experiments clipping_methods --preset laptop

Two networks learn by gradient descent with momentum, at a rate at which unclipped gradients throw them off: an Elman
network (tanh) in the chaotic phase to recall a symbol, and an LSTM to add two numbers. Each does so with every way of
clipping at several thresholds, and without at lower rates too; beside who succeeds it is recorded how many updates were
clipped until then, by how much and how far sideways.

Time on two cores: 4 minutes (laptop), 10 s (smoke). To expect, of 8 seeds: without clipping none succeeds, and every
LSTM breaks. At its best threshold every method brings 8 of 8 Elman networks through, but for AGC (7) and AutoClip (5),
whose limit rises with what it is to hold. Of the LSTMs the global norm, each parameter's norm, AGC and normalising
bring 8 through, clipping by value 6, AutoClip none, and neither does clipping each step, which leaves the head's own
gradient free. For the Elman network it matters less how many updates are clipped than by how much: those succeed whose
clipped updates keep a third of their norm or less. Turned by 40 to 60 degrees on average, networks of both kinds still
succeed. A rate lower by 10 or 3 without clipping brings 7 of 8 through, in as many updates: that clipping is better is
not shown at 8 seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from flax import nnx
from jax import Array

from rnn_dynamics.arguments import require_positive, whole_number
from rnn_dynamics.cells import Cell, ElmanCell, LSTMCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.models import make_model
from rnn_dynamics.results import labelled
from rnn_dynamics.tasks.adding import Adding
from rnn_dynamics.tasks.delayed_recall import DelayedRecall
from rnn_dynamics.training import (
    Checkpoints,
    LossGradient,
    Recipe,
    TrainingConfig,
    TrainingRecord,
    backpropagate,
    clip_each_step,
    make_clipping,
    train_ensemble,
)
from rnn_dynamics.training.clipping import angle_between, global_norm
from rnn_dynamics.training.recipe import GradientRule, Loss
from rnn_dynamics.types import Batch

EVALUATE_EVERY = 25
MOMENTUM = 0.9
TEST_EXAMPLES = 512

RATES = {"elman-tanh": 0.1, "lstm": 1.0}
"""Network -> learning rate, one at which it succeeds with some clipping and fails without."""

METHODS = ("none", "global_norm", "value", "parameter_norm", "unit_ratio", "percentile", "normalising", "each_step")
"""What is compared: keys of `rnn_dynamics.training.CLIPPINGS`, and `clip_each_step`."""


@dataclass(frozen=True)
class Config:
    """What to compare. The fields that are called by a way of clipping are its thresholds, in its own unit.

    Attributes:
        networks: keys of `RATES`.
        none: factors on the learning rate, of descents without clipping: what a lower rate would do as well.
        global_norm: norms.
        value: sizes of an entry.
        parameter_norm: norms.
        unit_ratio: norm over norm of the weights.
        percentile: percentiles of the norms so far.
        normalising: norms.
        each_step: norms of an example's adjoint at a step.
        seeds: number of them, of initial weights and of the order of the examples.
        hidden: H.
        gain: of the Elman network.
        lag: to recall a symbol over.
        length: of the sequences whose numbers are added.
        training_steps: updates at most; a network that has solved its task makes no more.
        batch_size: examples per update.
    """

    networks: tuple[str, ...] = ("elman-tanh", "lstm")
    none: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03)
    global_norm: tuple[float, ...] = (0.03, 0.3, 1.0, 3.0, 10.0)
    value: tuple[float, ...] = (0.003, 0.03, 0.1, 0.3)
    parameter_norm: tuple[float, ...] = (0.03, 0.3, 1.0, 3.0)
    unit_ratio: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    percentile: tuple[float, ...] = (1.0, 10.0, 50.0, 90.0)
    normalising: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0)
    each_step: tuple[float, ...] = (0.01, 0.1, 0.3, 1.0)
    seeds: int = 8
    hidden: int = 24
    gain: float = 1.5
    lag: int = 20
    length: int = 30
    training_steps: int = 600
    batch_size: int = 32


PRESETS = {
    "smoke": Config(
        networks=("elman-tanh",),
        none=(1.0,),
        global_norm=(1.0,),
        value=(),
        parameter_norm=(),
        unit_ratio=(),
        percentile=(),
        normalising=(),
        each_step=(0.1,),
        seeds=2,
        hidden=4,
        lag=3,
        training_steps=EVALUATE_EVERY,
        batch_size=16,
    ),
    "laptop": Config(),
    "paper": Config(seeds=20, hidden=128, lag=50, length=200, training_steps=5000),
}


@dataclass(frozen=True)
class Point:
    """One network with one way of clipping, all seeds as one ensemble; the other fields are those of `Config`.

    Attributes:
        network: one of the networks.
        method: one of `METHODS`.
        threshold: of the method; of none the factor that is in the learning rate.
        delay: lag or length of the network's task.
        learning_rate: of its descent.
        gain: not looked at by the LSTM, whose recurrent weights are orthogonal.
    """

    network: str
    method: str
    threshold: float
    delay: int
    learning_rate: float
    gain: float
    seeds: int
    hidden: int
    training_steps: int
    batch_size: int


def grid(config: Config) -> list[Point]:
    """List every network without clipping, and with every way of it at each threshold.

    Raises:
        ValueError: an unknown network, or a number out of range.
    """
    for network in config.networks:
        if network not in RATES:
            raise ValueError(unknown_name("network", network, RATES))
    for name, least in {"seeds": 1, "hidden": 1, "training_steps": EVALUATE_EVERY}.items():
        whole_number(name, getattr(config, name), least=least)
    require_positive("gain", config.gain)
    TrainingConfig(config.training_steps, config.batch_size)
    thresholds = [(method, threshold) for method in METHODS for threshold in getattr(config, method)]
    for method, threshold in thresholds:
        require_positive("none", threshold) if method == "none" else recipe_of(method)(threshold, 1.0)
    delays = {"elman-tanh": DelayedRecall(config.lag).lag, "lstm": Adding(config.length).length}
    sizes = (config.gain, config.seeds, config.hidden, config.training_steps, config.batch_size)
    return [
        Point(
            network, method, threshold, delays[network], RATES[network] * (threshold if method == "none" else 1), *sizes
        )
        for network in config.networks
        for method, threshold in thresholds
    ]


@cache  # one function for one method, so that what is compiled for it is found again
def recipe_of(method: str) -> Callable[..., Recipe]:
    """Return what makes the recipe of a method from its threshold and the learning rate."""

    def recipe(threshold: float | Array, learning_rate: float | Array) -> Recipe:
        require_positive("learning_rate", learning_rate)
        descent = optax.sgd(learning_rate, MOMENTUM)
        if method == "each_step":
            return Recipe(descent, _beside_the_gradient(clip_each_step(threshold)))
        return Recipe(optax.chain(make_clipping(method, threshold), descent))

    return recipe


def _beside_the_gradient(clipped_rule: GradientRule) -> GradientRule:
    """Report of clipping within the backward pass what is reported of every other: share, factor and angle.

    The share is that of the pairs of step and example whose signal was shortened.
    """

    def rule(loss: Loss, model: Any, batch: Batch) -> LossGradient:
        raw = backpropagate(loss, nnx.clone(model), batch).gradient
        made = clipped_rule(loss, model, batch)
        told = {
            "clipped": made.report["step_clipped_share"],
            "clip_factor": global_norm(made.gradient) / global_norm(raw),
            "clip_angle": angle_between(made.gradient, raw),
        }
        return made._replace(report={name: value.astype(jnp.float32) for name, value in told.items()})

    return rule


def run(point: Point, unfinished: Path) -> xr.Dataset:
    """Train an ensemble until it has solved its task, has broken, or the updates are used up."""
    task = _task(point.network, point.delay)
    rngs = [nnx.Rngs(seed) for seed in range(point.seeds)]
    models = [make_model(task, _cell(point, task.input_features, own), rngs=own) for own in rngs]
    config = TrainingConfig(
        point.training_steps, point.batch_size, evaluate_every=EVALUATE_EVERY, stop_when_solved=True
    )
    record = train_ensemble(
        models,
        task,
        recipe_of(point.method),
        config,
        seeds=range(point.seeds),
        numbers={"threshold": point.threshold, "learning_rate": point.learning_rate},
        checkpoints=Checkpoints(unfinished, every=20 * EVALUATE_EVERY),
    )
    metric = record.metric[-1] if len(record.metric) else np.full(point.seeds, np.nan)
    return xr.Dataset(
        {
            "metric": labelled("seed", np.where(record.broken_step < 0, metric, np.nan), "1", task.metric_name),
            "chance_level": labelled((), task.chance_level, "1", f"{task.metric_name} without the inputs"),
            "solved_update": labelled(
                "seed", record.solved_step, "updates", "updates until solved, -1 if it never was"
            ),
            "first_nonfinite_step": labelled(
                "seed", record.broken_step, "updates", "update at which the training broke, -1 if none"
            ),
            **_clipping(record, point.seeds),
        },
        {"seed": labelled("seed", np.arange(point.seeds), "1", "seed")},
    )


def _clipping(record: TrainingRecord, seeds: int) -> dict[str, xr.Variable]:
    """Sum up what clipping did to the updates until each network was done; without any clipping it did nothing."""
    nothing = np.zeros((1, seeds))
    share, factor, angle = (record.series.get(name, nothing) for name in ("clipped", "clip_factor", "clip_angle"))
    # An update that breaks, and all after a network has stopped, are told as NaN; factor and angle are of clipped ones.
    changed = (share > 0) & np.isfinite(factor) & np.isfinite(angle) & (factor > 0)
    log_factor = np.log(np.where(changed, factor, 1))
    norm = np.where(np.isfinite(record.gradient_norm), record.gradient_norm, np.nan)
    median, largest = np.nanmedian(norm, axis=0), np.nanmax(norm, axis=0)
    count = np.maximum(changed.sum(axis=0), 1)
    return {
        "clip_share": labelled("seed", np.nanmean(share, axis=0), "1", "share of clipped updates"),
        "clip_log_factor": labelled(
            "seed", log_factor.sum(axis=0) / count, "nats", "mean ln of norm after / before of clipped updates"
        ),
        "clip_angle": labelled(
            "seed",
            np.where(changed, angle, 0).sum(axis=0) / count,
            "rad",
            "mean angle that clipped updates are turned by",
        ),
        "median_gradient_norm": labelled(
            "seed", median, "loss per unit weight", "median norm, of each_step after clipping"
        ),
        "largest_gradient_norm": labelled(
            "seed", largest, "loss per unit weight", "largest norm, of each_step after clipping"
        ),
    }


@cache  # one task for all ways of clipping, so that they share what is compiled
def _task(network: str, delay: int) -> Adding | DelayedRecall:
    return (Adding if network == "lstm" else DelayedRecall)(delay, test_size=TEST_EXAMPLES)


def _cell(point: Point, features: int | None, rngs: nnx.Rngs) -> Cell:
    assert features is not None  # neither task has tokens
    if point.network == "lstm":
        return LSTMCell(features, point.hidden, rngs=rngs)
    return ElmanCell(features, point.hidden, recurrent_kernel_init=gaussian(point.gain), rngs=rngs)
