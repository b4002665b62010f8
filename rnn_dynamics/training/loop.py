"""The training loop: any model, task and recipe, one network or an ensemble, with a record of what gradients did."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rnn_dynamics.arguments import require_positive, whole_number
from rnn_dynamics.training.checkpoints import Checkpoints
from rnn_dynamics.training.config import TrainingConfig
from rnn_dynamics.training.probe_history import ProbeHistory
from rnn_dynamics.training.probes import Probe
from rnn_dynamics.training.program import Program
from rnn_dynamics.training.recipe import Recipe
from rnn_dynamics.training.record import TrainingBroke, TrainingRecord
from rnn_dynamics.training.run import Watcher, run
from rnn_dynamics.training.truncation import truncated
from rnn_dynamics.training.update import Learned, MakeRecipe, Method, Network, TrainState, initial_state
from rnn_dynamics.types import PyTree, Task


@dataclass(frozen=True)
class Given:
    """A recipe that no number changes, as a function of none; equal for the same recipe."""

    recipe: Recipe

    def __call__(self) -> Recipe:
        """Return it."""
        return self.recipe


def train(
    model: nnx.Module,
    task: Task,
    recipe: Recipe | MakeRecipe,
    config: TrainingConfig,
    *,
    numbers: Mapping[str, float] | None = None,
    probes: Sequence[Probe] = (),
    checkpoints: Checkpoints | Path | str | None = None,
    watchers: Sequence[Watcher] = (),
) -> TrainingRecord:
    """Train a model in place.

    Programs are compiled once for equal architectures, tasks, recipe functions and shapes, whatever the `numbers` are.
    With checkpoints the training goes on from the latest one; killed at any batch and begun again it ends with the same
    bits as one that was never interrupted.

    Args:
        model: (inputs, lengths) -> outputs; its parameters are updated.
        task: gives batches, loss and metric.
        recipe: what an update does; or a function that makes it from `numbers`, best one of a module, for what is
            compiled is found again by its identity.
        config: how long, on which batches, and when to stop.
        numbers: arguments of `recipe`, such as its learning rate; cast to the parameters' dtype.
        probes: what is measured while the model learns.
        checkpoints: where and how often to save, or only the folder.
        watchers: called with what is new every `CHECK_EVERY` batches, and whenever something is evaluated, probed or
            saved; for progress.

    Returns:
        The record.

    Raises:
        TrainingBroke: when the loss or the norm of its gradient is not finite, with step, value and the record until
            then; the model then holds the parameters, all finite, that gave it.
        CheckpointError: a checkpoint that cannot be written or read, or that belongs to another training.
        UnwritableFolder: a folder of checkpoints that cannot be written in.
        ValueError: a number out of range, one that `recipe` does not take, a truncation beyond T, or a probe of
            something that the model does not have.
    """
    _check_task(task, config)
    _check_shapes({name: np.asarray(value) for name, value in (numbers or {}).items()}, "one number", {()})
    module, make_recipe = _module(model, task, config), _made(recipe, [numbers or {}])
    graph, *learned = nnx.split(module, nnx.Param, ...)
    method = Method(Network(graph, module is not model), task.loss, make_recipe, config.accumulate)
    values = {name: jnp.asarray(value, _dtype(learned[0])) for name, value in (numbers or {}).items()}
    state = initial_state(method, Learned(*learned), values, jax.random.key(config.seed))
    program = Program(method, values, task, config)
    state, record = run(program, _copied(state), ProbeHistory(probes, model), _checkpoints(checkpoints), watchers)
    nnx.update(module, *state.learned)
    if record.broken_step >= 0:
        raise TrainingBroke(record)
    return record


def train_ensemble(
    models: Sequence[nnx.Module],
    task: Task,
    recipe: Recipe | MakeRecipe,
    config: TrainingConfig,
    *,
    seeds: Sequence[int] | None = None,
    numbers: Mapping[str, float | Sequence[float]] | None = None,
    probes: Sequence[Probe] = (),
    checkpoints: Checkpoints | Path | str | None = None,
    watchers: Sequence[Watcher] = (),
) -> TrainingRecord:
    """Train many models of one architecture in place, as one vectorised program.

    Each member makes the updates that `train` would make alone. One whose loss breaks, or that has solved the task
    where that stops the training, is frozen as it is then and recorded; the others go on.

    Args:
        models: E of them, of the same architecture; initial weights, so gains and seeds, are theirs.
        task: gives batches, loss and metric.
        recipe: what an update does, or a function that makes it from `numbers`.
        config: how long, on which batches, and when to stop.
        seeds: of each member's order of batches and weight noise (default: `config.seed` for all, which then share
            their batches).
        numbers: arguments of `recipe`: one number for all, or E.
        probes: what is measured in every member while it learns.
        checkpoints: where and how often to save, or only the folder.
        watchers: called with what is new, as those of `train`.

    Returns:
        The record, its arrays with a last axis [E].

    Raises:
        CheckpointError: a checkpoint that cannot be written or read, or that belongs to another training.
        UnwritableFolder: a folder of checkpoints that cannot be written in.
        ValueError: no models or models that differ in more than their weights, lists of other lengths, and what `train`
            refuses.
    """
    _check_task(task, config)
    count = len(models)
    if isinstance(seeds, int):
        raise ValueError(f"seeds must be one for each of the {count} models, got the number {seeds}")
    seeds = [config.seed] * count if seeds is None else [whole_number("seeds", seed, least=0) for seed in seeds]
    given = {name: np.asarray(value) for name, value in (numbers or {}).items()}
    _check_members(models, seeds)
    _check_shapes(given, f"one, or one for each of the {count} models", {(), (count,)})
    each = {name: np.broadcast_to(value, (count,)) for name, value in given.items()}
    make_recipe = _made(recipe, [{name: float(value[i]) for name, value in each.items()} for i in range(count)])
    modules = [_module(model, task, config) for model in models]
    graph, learned = _stacked(modules)
    method = Method(Network(graph, modules[0] is not models[0]), task.loss, make_recipe, config.accumulate)
    values = {name: jnp.asarray(value, _dtype(learned.params)) for name, value in each.items()}
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    state = jax.jit(jax.vmap(lambda *own: initial_state(method, *own)))(learned, values, keys)
    program = Program(method, values, task, config, tuple(seeds))
    state, record = run(program, state, ProbeHistory(probes, models[0]), _checkpoints(checkpoints), watchers)
    for number, module in enumerate(modules):
        nnx.update(module, *jax.tree.map(lambda leaf, number=number: leaf[number], state.learned))
    return record


def _module(model: nnx.Module, task: Task, config: TrainingConfig) -> nnx.Module:
    """Return what is trained: the model, or a wrapper that shares its parameters and truncates their gradients."""
    if config.truncation is None:
        return model
    example = next(iter(task.batches("train", config.batch_size, seed=config.seed, epochs=None)))
    return truncated(model, task.regime, config.truncation, example)


def _made(recipe: Recipe | MakeRecipe, numbers: Sequence[Mapping[str, float]]) -> MakeRecipe:
    """Return a function that makes the recipe, having tried it with the numbers of every member.

    Raises:
        ValueError: numbers that it does not take, or that what it makes refuses.
        TypeError: what is no recipe, and makes none.
    """
    make_recipe = Given(recipe) if isinstance(recipe, Recipe) else recipe
    if not callable(make_recipe):
        came = type(recipe).__name__
        raise TypeError(f"recipe must be a Recipe, or a function that makes one, got {came}; write Recipe(optimizer)")
    takes = inspect.signature(make_recipe)
    try:
        takes.bind(**numbers[0])
    except TypeError as error:
        allowed = ", ".join(takes.parameters) or "none, for it is no function of any"
        raise ValueError(f"numbers must be those that the recipe takes ({allowed}), got {list(numbers[0])}") from error
    for own in numbers:
        # Optax takes any rate, and a negative one climbs.
        for name in (name for name in own if name.endswith("learning_rate")):
            require_positive(name, own[name])
        made: Any = make_recipe(**own)
        if not isinstance(made, Recipe):
            raise TypeError(f"recipe must make a Recipe, got {type(made).__name__}; write Recipe(optimizer)")
    return make_recipe


def _check_task(task: Task, config: TrainingConfig) -> None:
    if config.stop_when_solved and not hasattr(task, "solved"):
        raise ValueError(f"stop_when_solved needs a task that says when it is solved, {task.name} does not")
    if config.evaluate_every is not None:
        task.batches(config.evaluation_split, 1)  # which refuses an unknown split now and not after an hour


def _check_members(models: Sequence[nnx.Module], seeds: Sequence[int]) -> None:
    if not models:
        raise ValueError("models must hold at least one model, got none")
    if len({id(model) for model in models}) < len(models):
        raise ValueError("models must be one object for each member, got one of them twice")
    if len(seeds) != len(models):
        raise ValueError(f"seeds must be one for each of the {len(models)} models, got {len(seeds)}")


def _check_shapes(numbers: Mapping[str, np.ndarray], allowed: str, shapes: set[tuple[int, ...]]) -> None:
    for name, value in numbers.items():
        if value.dtype.kind not in "iuf":
            raise ValueError(f"numbers must be real numbers, {name} is {value}")
        if value.shape not in shapes:
            raise ValueError(f"numbers must be {allowed}; {name} has shape {value.shape}")


def _stacked(modules: Sequence[nnx.Module]) -> tuple[Any, Learned]:
    graphs, params, rests = zip(*(nnx.split(module, nnx.Param, ...) for module in modules), strict=True)
    shapes = [jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), own) for own in params]
    for number, (graph, shape) in enumerate(zip(graphs, shapes, strict=True)):
        if graph != graphs[0] or shape != shapes[0]:
            raise ValueError(f"models must differ in their weights alone, but model {number} is not built as model 0")
    return graphs[0], Learned(*(jax.tree.map(lambda *leaves: jnp.stack(leaves), *own) for own in (params, rests)))


def _dtype(params: PyTree) -> Any:
    """Return the real dtype of the parameters, in which no number makes updates wider; float32 at least."""
    return jnp.promote_types(jnp.finfo(jnp.result_type(*jax.tree.leaves(params))).dtype, jnp.float32)


def _copied(state: TrainState) -> TrainState:
    # An update takes its state's memory over, and the model's own must stay.
    return jax.tree.map(jnp.copy, state)


def _checkpoints(checkpoints: Checkpoints | Path | str | None) -> Checkpoints | None:
    return Checkpoints(checkpoints) if isinstance(checkpoints, str | Path) else checkpoints
