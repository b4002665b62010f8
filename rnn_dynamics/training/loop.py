"""The training loop: optax on any model and task, and a record of what the gradients did."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.training.clipping import ClipReport, clip_by_global_norm, clip_report, global_norm
from rnn_dynamics.types import Batch, PyTree, Task

CHECK_EVERY = 50
"""Steps between two looks at the loss by the host: often enough to stop soon, rarely enough not to wait for it."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: number of updates.
        batch_size: examples per update.
        learning_rate: of Adam.
        clip_threshold: global norm above which gradients are shortened; None to leave them.
        seed: of the order of the batches.

    Raises:
        ValueError: a number out of range.
    """

    steps: int
    batch_size: int
    learning_rate: float
    clip_threshold: float | None
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("seed", 0)):
            whole_number(name, getattr(self, name), least=least)
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be > 0 and finite, got {self.learning_rate}")
        if self.clip_threshold is not None and not self.clip_threshold > 0:
            raise ValueError(f"clip_threshold must be > 0 or None, got {self.clip_threshold}")


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """What happened.

    Attributes:
        loss: [steps], batch mean before each update.
        gradient_norm: [steps], global norm before clipping.
        clipping: how often and by how much; None without clipping.
    """

    loss: np.ndarray
    gradient_norm: np.ndarray
    clipping: ClipReport | None


class TrainingBroke(FloatingPointError):
    """The loss, or the norm of its gradient, was no longer finite; the message says at which step, and its value.

    Attributes:
        record: what happened until then: the last loss and gradient norm are those that broke; clipping counts the
            updates before.
        step: of the update that broke, from 0; the updates before it were made.
        value: the loss that broke; the gradient norm where the loss was finite still.
    """

    def __init__(self, record: TrainingRecord):
        loss, norm = float(record.loss[-1]), float(record.gradient_norm[-1])
        what, value = ("gradient norm", norm) if np.isfinite(loss) else ("loss", loss)
        self.record = record
        self.step = len(record.loss) - 1
        self.value = value
        super().__init__(f"the {what} became {value} at training step {self.step}")


class _Learned(NamedTuple):
    """What an update changes in a model: its parameters, and what else it keeps (a dropout's keys, running means)."""

    params: PyTree
    rest: PyTree


class _TrainState(NamedTuple):
    learned: _Learned
    optimizer_state: PyTree
    step: Array
    first_nonfinite_step: Array


def train(
    model: nnx.Module, task: Task, config: TrainingConfig, on_check: Callable[[int, float], None] | None = None
) -> TrainingRecord:
    """Train a model in place.

    Trainings of one architecture on one task with one learning rate, threshold and batch size are compiled once.

    Args:
        model: (inputs, lengths) -> outputs; its parameters are updated.
        task: gives batches and loss.
        config: how.
        on_check: called with (steps made, loss) every `CHECK_EVERY` steps, for progress.

    Returns:
        The record.

    Raises:
        TrainingBroke: when the loss or the norm of its gradient is not finite, with step, value and the record until
            then; the model then holds the parameters, all finite, that gave it.
    """
    optimizer = _optimizer(config.learning_rate, config.clip_threshold)
    graph, *learned = nnx.split(model, nnx.Param, ...)
    state = _TrainState(_Learned(*learned), optimizer.init(learned[0]), jnp.int32(0), jnp.int32(-1))
    state = jax.tree.map(jnp.copy, state)  # an update takes its state's memory over, and the model's own must stay
    update = _compiled_update(graph, task.loss, optimizer)
    batches = task.batches("train", config.batch_size, seed=config.seed, epochs=None)

    measured: list[Any] = []
    for made in range(1, config.steps + 1):
        state, loss, norm = update(state, next(batches))
        measured.append((loss, norm))
        if made % CHECK_EVERY == 0 or made == config.steps:
            measured[-CHECK_EVERY:] = jax.device_get(measured[-CHECK_EVERY:])
            broken = int(state.first_nonfinite_step)
            if broken >= 0:
                nnx.update(model, *state.learned)
                raise TrainingBroke(_record(measured[: broken + 1], state, config))
            if on_check is not None:
                on_check(made, float(loss))
    nnx.update(model, *state.learned)
    return _record(measured, state, config)


def _record(measured: list[Any], state: _TrainState, config: TrainingConfig) -> TrainingRecord:
    losses, norms = map(np.array, zip(*measured, strict=True))
    return TrainingRecord(losses, norms, None if config.clip_threshold is None else clip_report(state.optimizer_state))


@lru_cache  # one object for equal numbers, so that what is compiled for it is found again
def _optimizer(learning_rate: float, clip_threshold: float | None) -> optax.GradientTransformation:
    clip = [] if clip_threshold is None else [clip_by_global_norm(clip_threshold)]
    return optax.chain(*clip, optax.adam(learning_rate))


@lru_cache(maxsize=8)  # few, because a task's loss keeps its data alive
def _compiled_update(
    graph: Any, loss: Callable[[Array, Array], Array], optimizer: optax.GradientTransformation
) -> Callable[[_TrainState, Batch], tuple[_TrainState, Array, Array]]:
    return jax.jit(partial(_update, graph, loss, optimizer), donate_argnums=0)


def _update(
    graph: Any,
    loss: Callable[[Array, Array], Array],
    optimizer: optax.GradientTransformation,
    state: _TrainState,
    batch: Batch,
) -> tuple[_TrainState, Array, Array]:
    def mean_loss(model: Any) -> Array:
        return jnp.mean(loss(model(batch.inputs, batch.lengths), batch.targets))

    model = nnx.merge(graph, *state.learned, copy=True)  # else what the model changes would change in the state too
    value, gradient = nnx.value_and_grad(mean_loss)(model)
    norm = global_norm(gradient)
    _, params, rest = nnx.split(model, nnx.Param, ...)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, params)
    learned = _Learned(optax.apply_updates(params, updates), rest)
    broke_before = state.first_nonfinite_step >= 0
    broken = broke_before | ~(jnp.isfinite(value) & jnp.isfinite(norm))
    first = jnp.where(broken & ~broke_before, state.step, state.first_nonfinite_step)
    # Once something has broken nothing moves any more, so that the parameters that broke it can be looked at, and the
    # optimiser has counted nothing since.
    before, after = (state.learned, state.optimizer_state), (learned, optimizer_state)
    learned, optimizer_state = jax.tree.map(partial(jnp.where, broken), before, after)
    return _TrainState(learned, optimizer_state, state.step + 1, first), value, norm


def evaluate(model: nnx.Module, task: Task, split: str = "test", batch_size: int = 256) -> float:
    """Return the task's metric over a whole split.

    Args:
        model: (inputs, lengths) -> outputs; it is asked as one that is not trained any more, without dropout, and is
            not changed.
        task: gives batches and metric.
        split: e.g. "test".
        batch_size: examples at a time.

    Returns:
        The mean of the metric over all examples.
    """
    model = nnx.clone(model)
    model.eval()
    values = [
        task.metric(_outputs(model, batch.inputs, batch.lengths), batch.targets)
        for batch in task.batches(split, batch_size)
    ]
    return float(np.concatenate(jax.device_get(values)).mean(dtype=np.float64))


@nnx.jit
def _outputs(model: Any, inputs: Array, lengths: Array) -> Array:
    return model(inputs, lengths)
