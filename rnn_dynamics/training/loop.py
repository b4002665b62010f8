"""The training loop: optax on any model and task, and a record of what the gradients did."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from rnn_dynamics.training.clipping import ClipReport, clip_by_global_norm, clip_report
from rnn_dynamics.types import Batch, PyTree, Task

CHECK_EVERY = 50
"""Steps between two looks at the loss by the host: often enough to stop soon, rarely enough not to wait on the device."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: number of updates.
        batch_size: examples per update.
        learning_rate: of Adam.
        clip_threshold: global norm above which gradients are shortened; None to leave them.
        seed: of the order of the batches.
    """

    steps: int
    batch_size: int
    learning_rate: float
    clip_threshold: float | None
    seed: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
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


class _TrainState(NamedTuple):
    params: PyTree
    optimizer_state: PyTree
    step: Array
    first_nonfinite_step: Array


def train(
    model: nnx.Module, task: Task, config: TrainingConfig, on_check: Callable[[int, float], None] | None = None
) -> TrainingRecord:
    """Train a model in place.

    Args:
        model: (inputs, lengths) -> outputs; its parameters are updated.
        task: gives batches and loss.
        config: how.
        on_check: called with (steps made, loss) every `CHECK_EVERY` steps, for progress.

    Returns:
        The record.

    Raises:
        FloatingPointError: when the loss is not finite, with step and value; the model then holds the parameters that gave
            that loss.
    """
    clip = [] if config.clip_threshold is None else [clip_by_global_norm(config.clip_threshold)]
    optimizer = optax.chain(*clip, optax.adam(config.learning_rate))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    state = _TrainState(params, optimizer.init(params), jnp.int32(0), jnp.int32(-1))
    update = jax.jit(partial(_update, graph, rest, task, optimizer), donate_argnums=0)
    batches = task.batches("train", config.batch_size, seed=config.seed, epochs=None)

    losses, norms = [], []
    for step in range(config.steps):
        state, loss, norm = update(_owned(state) if step == 0 else state, next(batches))
        losses.append(loss)
        norms.append(norm)
        if step % CHECK_EVERY == CHECK_EVERY - 1 or step == config.steps - 1:
            first = int(state.first_nonfinite_step)
            if first >= 0:
                nnx.update(model, state.params)
                raise FloatingPointError(f"the loss became {float(losses[first])} at training step {first}")
            if on_check is not None:
                on_check(step + 1, float(loss))
    nnx.update(model, state.params)
    report = clip_report(state.optimizer_state) if clip else None
    return TrainingRecord(np.array(jax.device_get(losses)), np.array(jax.device_get(norms)), report)


def _owned(state: _TrainState) -> _TrainState:
    """Copy, so that the first donated update does not take the model's own arrays away."""
    return jax.tree.map(jnp.copy, state)


def _update(
    graph: Any, rest: PyTree, task: Task, optimizer: optax.GradientTransformation, state: _TrainState, batch: Batch
) -> tuple[_TrainState, Array, Array]:
    def mean_loss(params: PyTree) -> Array:
        model: Any = nnx.merge(graph, params, rest)
        return jnp.mean(task.loss(model(batch.inputs, batch.lengths), batch.targets))

    loss, gradient = jax.value_and_grad(mean_loss)(state.params)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    broken = ~jnp.isfinite(loss) | (state.first_nonfinite_step >= 0)
    first = jnp.where(broken & (state.first_nonfinite_step < 0), state.step, state.first_nonfinite_step)
    # Once the loss has broken nothing moves any more, so the parameters that broke it can be looked at.
    params = jax.tree.map(
        lambda old, new: jnp.where(broken, old, new), state.params, optax.apply_updates(state.params, updates)
    )
    return _TrainState(params, optimizer_state, state.step + 1, first), loss, optax.global_norm(gradient)


def evaluate(model: nnx.Module, task: Task, split: str = "test", batch_size: int = 256) -> float:
    """Return the task's metric over a whole split.

    Args:
        model: (inputs, lengths) -> outputs.
        task: gives batches and metric.
        split: e.g. "test".
        batch_size: examples at a time.

    Returns:
        The mean of the metric over all examples.
    """
    outputs = nnx.jit(lambda model, inputs, lengths: model(inputs, lengths))
    values = [
        np.asarray(task.metric(outputs(model, batch.inputs, batch.lengths), batch.targets))
        for batch in task.batches(split, batch_size)
    ]
    return float(np.concatenate(values).mean())
