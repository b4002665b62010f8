"""Does flossing extend the delay that a plain network learns?

    python -m experiments flossing --preset laptop

Gradient flossing (Engelken, NeurIPS 2023) brings Lyapunov exponents to 0 by gradient descent on their squares. Elman
networks (tanh) learn the delayed XOR as they are drawn, after flossing, and after flossing with more of it in between.
All make the same number of updates by the loss, interrupted after one fifth and after two fifths of them, where Adam
starts anew. Before and after flossing and after training their spectra are measured in float64 along bits that they
have not seen, and the leading exponent while they learn.

The author's code has N = 80, k = 75, Adam at 1e-3, 500 steps of flossing before and 500 more at two of 3000 updates by
the loss, on sequences of 300 steps. There the first state is learned too, the readout sees the preactivations, and
the gradient of each parameter is clipped at 0.03. Its sizes, and delays as long as the paper's, are the preset paper.

Time on two cores: 3 minutes (laptop), 15 s (smoke). To expect, of 10 seeds: all learn d = 4, and d = 8 is learnt by 4
as drawn, 9 after flossing and 10 with more of it in between; d = 12 by none, 7 and 7, with accuracies of 0.50, 0.89 and
0.99. d = 16 and 24 are learnt by none within 2000 updates, but flossed networks are on the way (0.70 and 0.79, 0.64 and
0.70), where the others are at chance. Before training, flossing brings the 24 exponents from -0.36 ... -1.45 to
-0.03 ... -0.19 nats per step. One exponent near 0 is not enough: with --gain 1.5 or 2 lambda_1 is -0.11 or 0.03 as
drawn, the 24th -1.6 or -2.1, and of 10 seeds none learns d = 12. What flossing in between adds is 1 to 2 standard
errors at each delay.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from flax import nnx
from jax import Array

from rnn_dynamics.arguments import require_positive, whole_number
from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.dynamics import DrivenSystem, LyapunovSpectrum, lyapunov_spectrum
from rnn_dynamics.models import SequenceModel, make_model
from rnn_dynamics.results import labelled
from rnn_dynamics.tasks.delayed_xor import DelayedXOR
from rnn_dynamics.training import (
    Checkpoints,
    FlossingPenalty,
    LossGradient,
    Recipe,
    TrainingConfig,
    TrainingRecord,
    clip_by_global_norm,
    train_ensemble,
)
from rnn_dynamics.training.probes import Exponents
from rnn_dynamics.training.recipe import Loss
from rnn_dynamics.types import Batch

CONDITIONS = ("none", "before", "before and during")
"""When a network is flossed."""

STAGES = ("drawn", "flossed", "trained")
"""When spectra are measured: at the start, before the first update by the loss, and in the end."""

EVALUATE_EVERY, PROBE_EVERY = 100, 50
BATCH_SIZE = 16
CLIP_THRESHOLD = 1.0
"""Global norm above which the gradient of the loss is shortened."""

LENGTH_IN_DELAYS = 5
TEST_EXAMPLES = 128
"""Sequences; each asks for 3 d bits."""

FLOSSING_STEPS = 55
FLOSSING_TRANSIENT = 16
"""Steps of a sequence behind an exponent that is flossed, and those of them that are thrown away; the author's."""

MEASURED_STEPS, PROBED_STEPS = 1000, 200
"""Length of the runs behind spectra, and behind the leading exponent while a network learns."""

TRANSIENT = 100
"""Steps in which state and tangents forget how they started."""


@dataclass(frozen=True)
class Config:
    """What to compare.

    Attributes:
        conditions: of `CONDITIONS`.
        delays: d of the XOR of the bits d and 2 d ago.
        seeds: number of them, of initial weights and of the order of the examples.
        hidden: H.
        exponents: k, how many are flossed.
        gain: of the recurrent weights.
        training_steps: updates by the loss.
        flossing_before: updates by flossing alone, before the first by the loss.
        flossing_episode: the same, in each of the two episodes.
        learning_rate: of Adam, for the loss.
        flossing_rate: of Adam, for flossing.
    """

    conditions: tuple[str, ...] = CONDITIONS
    delays: tuple[int, ...] = (4, 8, 12, 16, 24)
    seeds: int = 10
    hidden: int = 32
    exponents: int = 24
    gain: float = 1.0
    training_steps: int = 2000
    flossing_before: int = 300
    flossing_episode: int = 100
    learning_rate: float = 1e-3
    flossing_rate: float = 3e-3


PRESETS = {
    "smoke": Config(
        conditions=("before and during",),
        delays=(1,),
        seeds=2,
        hidden=4,
        exponents=2,
        training_steps=5 * EVALUATE_EVERY,
        flossing_before=PROBE_EVERY,
        flossing_episode=PROBE_EVERY,
    ),
    "laptop": Config(),
    "paper": Config(
        delays=(5, 10, 15, 20, 30, 40, 50, 60, 70),
        hidden=80,
        exponents=75,
        training_steps=10_000,
        flossing_before=500,
        flossing_episode=500,
        flossing_rate=1e-3,
    ),
}


@dataclass(frozen=True)
class Point:
    """One delay under one condition, all seeds as one ensemble; the other fields are those of `Config`."""

    condition: str
    delay: int
    seeds: int
    hidden: int
    exponents: int
    gain: float
    training_steps: int
    flossing_before: int
    flossing_episode: int
    learning_rate: float
    flossing_rate: float


def grid(config: Config) -> list[Point]:
    """List every condition at every delay.

    Raises:
        ValueError: an unknown condition, or a number out of range.
    """
    for condition in config.conditions:
        if condition not in CONDITIONS:
            raise ValueError(unknown_name("condition", condition, CONDITIONS))
    for name in ("seeds", "hidden", "flossing_before", "flossing_episode"):
        whole_number(name, getattr(config, name), least=1)
    if config.training_steps < 5 * EVALUATE_EVERY or config.training_steps % (5 * EVALUATE_EVERY):
        raise ValueError(f"training_steps must be a multiple of {5 * EVALUATE_EVERY}, got {config.training_steps}")
    if not 1 <= config.exponents <= config.hidden:
        raise ValueError(f"exponents must be between 1 and hidden = {config.hidden}, got {config.exponents}")
    require_positive("gain", config.gain)
    for delay in config.delays:
        DelayedXOR(delay, LENGTH_IN_DELAYS * delay)
    recipe(config.learning_rate)
    flossing(config.exponents)(config.flossing_rate)
    shared = {name: value for name, value in vars(config).items() if name not in ("conditions", "delays")}
    return [Point(condition, delay, **shared) for delay in config.delays for condition in config.conditions]


def recipe(learning_rate: float | Array) -> Recipe:
    """Clip by the global norm, then Adam."""
    require_positive("learning_rate", learning_rate)
    return Recipe(optax.chain(clip_by_global_norm(CLIP_THRESHOLD), optax.adam(learning_rate)))


@cache  # one function for one k, so that what is compiled for it is found again
def flossing(exponents: int) -> Any:
    """Return what makes the recipe of Adam on the squared exponents alone, from its learning rate."""
    penalty = FlossingPenalty(exponents, FLOSSING_STEPS, FLOSSING_TRANSIENT)

    def floss(learning_rate: float | Array) -> Recipe:
        require_positive("flossing_rate", learning_rate)
        return Recipe(optax.adam(learning_rate), _no_gradient, {"flossing": (1.0, penalty)})

    return floss


def _no_gradient(loss: Loss, model: Any, batch: Batch) -> LossGradient:
    nothing = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    return LossGradient(jnp.zeros(batch.inputs.shape[0]), nothing, {})


class Piece(NamedTuple):
    """A part of a network's course.

    Attributes:
        start: updates by the loss before it, below 0 before the first.
        pace: 0 where no time passes on that axis, as in an episode of flossing; else 1.
        record: what happened.
    """

    start: int
    pace: int
    record: TrainingRecord


def run(point: Point, unfinished: Path) -> xr.Dataset:
    """Floss an ensemble where that is asked for, let it learn, and measure its exponents before, between and after."""
    task, rngs = _task(point.delay), [nnx.Rngs(seed) for seed in range(point.seeds)]
    models = [_model(point, task, own) for own in rngs]
    spectra, pieces = [_spectra(models, point)], []
    if point.condition != "none":
        record = _floss(models, point, point.flossing_before, unfinished / "before", 0)
        pieces.append(Piece(-point.flossing_before, 1, record))
    spectra.append(_spectra(models, point))
    stretch = point.training_steps // 5
    for number, updates in enumerate((stretch, stretch, 3 * stretch)):
        start = number * stretch
        if number and point.condition == "before and during":
            record = _floss(models, point, point.flossing_episode, unfinished / f"episode{number}", number)
            pieces.append(Piece(start, 0, record))
        pieces.append(Piece(start, 1, _train(models, point, updates, unfinished / f"stretch{number}", number)))
    spectra.append(_spectra(models, point))
    stages = xr.concat(spectra, xr.Variable("stage", list(STAGES))).assign_coords(
        stage=labelled("stage", list(STAGES), "1", "stage of training")
    )
    return _course(pieces, task, stages)


def _floss(models: list[SequenceModel], point: Point, updates: int, folder: Path, number: int) -> TrainingRecord:
    """Move exponents towards 0, by one new sequence an update."""
    return train_ensemble(
        models,
        _bits(),
        flossing(point.exponents),
        TrainingConfig(updates, 1),
        seeds=_orders(point, number),
        numbers={"learning_rate": point.flossing_rate},
        probes=[_probe()],
        checkpoints=Checkpoints(folder),
    )


def _train(models: list[SequenceModel], point: Point, updates: int, folder: Path, number: int) -> TrainingRecord:
    return train_ensemble(
        models,
        _task(point.delay),
        recipe,
        TrainingConfig(updates, BATCH_SIZE, evaluate_every=EVALUATE_EVERY),
        seeds=_orders(point, number),
        numbers={"learning_rate": point.learning_rate},
        probes=[_probe()],
        checkpoints=Checkpoints(folder),
    )


def _orders(point: Point, number: int) -> list[int]:
    """Return seeds of the order of examples, so that no stretch of a training reads again what one before it read."""
    return [point.seeds * number + seed for seed in range(point.seeds)]


@cache  # one task for all conditions, so that they share what is compiled
def _task(delay: int) -> DelayedXOR:
    return DelayedXOR(delay, LENGTH_IN_DELAYS * delay, test_size=TEST_EXAMPLES)


@cache
def _bits() -> DelayedXOR:
    """Sequences to floss with, which are the same for all delays."""
    return DelayedXOR(1, FLOSSING_STEPS)


def _model(point: Point, task: DelayedXOR, rngs: nnx.Rngs) -> SequenceModel:
    """Draw a network by the author's laws: input weights N(0, 1), biases U(0, 0.1)."""
    cell = ElmanCell(
        1,
        point.hidden,
        kernel_init=jax.nn.initializers.normal(1.0),
        recurrent_kernel_init=gaussian(point.gain),
        bias_init=jax.nn.initializers.uniform(0.1),
        rngs=rngs,
    )
    return make_model(task, cell, rngs=rngs)


@cache  # one probe for all, so that what is compiled for it is found again
def _probe() -> Exponents:
    bits = jax.random.bernoulli(jax.random.key(1), 0.5, (1, 2 * TRANSIENT + PROBED_STEPS, 1)).astype(jnp.float64)
    return Exponents(bits, transient=TRANSIENT, tangent_transient=TRANSIENT, dtype=jnp.float64, every=PROBE_EVERY)


def _spectra(models: list[SequenceModel], point: Point) -> xr.Dataset:
    """Measure the spectra of all seeds, each along the same bits."""
    systems = [DrivenSystem.from_cell(model.cell, dtype=jnp.float64) for model in models]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *systems)
    shape = (2 * TRANSIENT + MEASURED_STEPS, 1)
    spectrum = _measure(stacked, jax.random.bernoulli(jax.random.key(0), 0.5, shape).astype(jnp.float64))
    rate = "nats per step"
    return xr.Dataset(
        {
            "exponent": labelled(("seed", "index"), spectrum.exponents, rate, "Lyapunov exponent"),
            "log_det_residual": labelled("seed", spectrum.log_det_residual, rate, "determinant check"),
            "first_nonfinite_step": labelled("seed", spectrum.first_nonfinite_step, "steps", "first non-finite step"),
        },
        {
            "seed": labelled("seed", np.arange(point.seeds), "1", "seed"),
            "index": labelled("index", np.arange(point.hidden), "1", "index of the direction"),
        },
    )


@jax.jit
def _measure(systems: DrivenSystem, inputs: Array) -> LyapunovSpectrum:
    def measure(system: DrivenSystem) -> LyapunovSpectrum:
        return lyapunov_spectrum(system, inputs, transient=TRANSIENT, tangent_transient=TRANSIENT)

    return jax.vmap(measure)(systems)


def _course(pieces: list[Piece], task: DelayedXOR, stages: xr.Dataset) -> xr.Dataset:
    """Join what was recorded of all parts of the course to the spectra."""
    broken = np.any([piece.record.broken_step >= 0 for piece in pieces], axis=0)
    learning = [piece for piece in pieces if len(piece.record.metric)]
    update = np.concatenate([piece.start + piece.record.evaluated for piece in learning])
    accuracy = np.where(broken, np.nan, np.concatenate([piece.record.metric for piece in learning]))
    solved = accuracy > task.solved_level
    probed = [piece.record.probes.to_arrays() for piece in pieces]
    measured_at = [piece.start + piece.pace * own["exponents/step"] for piece, own in zip(pieces, probed, strict=True)]
    exponents = np.concatenate([own["exponents/mean"][..., 0] for own in probed])
    return stages.assign(
        accuracy=labelled(("update", "seed"), accuracy, "1", "test accuracy"),
        solved_update=labelled(
            "seed",
            np.where(solved.any(axis=0), update[solved.argmax(axis=0)], -1),
            "updates",
            "updates by the loss until solved, -1 if it never was",
        ),
        broken=labelled("seed", broken, "1", "whether the training broke"),
        chance_level=labelled((), task.chance_level, "1", "accuracy without the inputs"),
        leading_exponent=labelled(
            ("measurement", "seed"), exponents, "nats per step", "leading Lyapunov exponent in training"
        ),
    ).assign_coords(
        update=labelled("update", update, "updates", "updates by the loss"),
        measured_at=labelled(
            "measurement", np.concatenate(measured_at), "updates", "updates by the loss before, < 0 in flossing"
        ),
        measurement=labelled("measurement", np.arange(len(exponents)), "1", "number of the measurement"),
    )
