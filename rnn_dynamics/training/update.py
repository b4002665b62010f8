"""One update of one network, or of an ensemble at once: the compiled half of training."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from rnn_dynamics.training.clipping import clip_states, global_norm
from rnn_dynamics.training.recipe import Penalty, Recipe, TaskLoss
from rnn_dynamics.types import Batch, PyTree

MakeRecipe: TypeAlias = Callable[..., Recipe]
"""`make_recipe(**numbers)`; called with numbers to be checked, and with traced ones."""


class Learned(NamedTuple):
    """What an update changes in a model: its parameters, and what else it keeps (a dropout's keys, running means)."""

    params: PyTree
    rest: PyTree


class TrainState(NamedTuple):
    """All that a training's next update depends on, besides its batch; of an ensemble every leaf has an axis [E].

    Attributes:
        learned: the model's variables.
        optimizer_state: of the recipe's optimiser.
        key: of the weight noise.
        step: batches seen.
        broken_step: the one at which loss or gradient was not finite any more; -1 while they are.
        solved_step: batches seen when an evaluation called the task solved; -1 before.
    """

    learned: Learned
    optimizer_state: PyTree
    key: Array
    step: Array
    broken_step: Array
    solved_step: Array

    @property
    def stopped(self) -> Array:
        """Whether nothing moves any more."""
        return (self.broken_step >= 0) | (self.solved_step >= 0)


class Network(NamedTuple):
    """How a model is put together from its variables.

    Attributes:
        graph: of the module that is trained.
        wrapped: whether that is a wrapper around the model, its attribute `model`.
    """

    graph: Any
    wrapped: bool

    def trained(self, learned: Learned) -> Any:
        """Return the module that is trained, a copy that can change without changing what it is made from."""
        return nnx.merge(self.graph, *learned, copy=True)

    def inner(self, module: Any) -> Any:
        """Return the model within the module that is trained."""
        return module.model if self.wrapped else module


class Method(NamedTuple):
    """What an update's program is compiled for: equal methods share it.

    Attributes:
        network: the model's form.
        loss: of the task, (outputs, targets) -> [B].
        make_recipe: numbers -> recipe.
        accumulate: batches to an update.
    """

    network: Network
    loss: Callable[[Array, Array], Array]
    make_recipe: MakeRecipe
    accumulate: int


def optimizer_of(recipe: Recipe, accumulate: int, params: PyTree) -> optax.GradientTransformation:
    """Return the recipe's optimiser, which waits for `accumulate` gradients before each update of the parameters."""
    if accumulate == 1:
        return recipe.optimizer
    dtype = jnp.result_type(*jax.tree.leaves(params))  # MultiSteps would add up in float32
    return optax.MultiSteps(recipe.optimizer, accumulate, accumulator_dtype=dtype).gradient_transformation()


def initial_state(method: Method, learned: Learned, numbers: Mapping[str, Array], key: Array) -> TrainState:
    """Return the state before the first update.

    Args:
        method: how updates are made.
        learned: the model's variables.
        numbers: of the recipe.
        key: of the weight noise.

    Returns:
        The state, which shares the memory of `learned`.
    """
    optimizer = optimizer_of(method.make_recipe(**numbers), method.accumulate, learned.params)
    never = jnp.int32(-1)
    return TrainState(learned, optimizer.init(learned.params), key, jnp.int32(0), never, never)


@lru_cache(maxsize=8)  # few, because a task's loss keeps its data alive
def compiled_update(method: Method) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Return `update(numbers, state, batch) -> (state, measured)`, which takes the memory of its state over."""
    return jax.jit(partial(update, method), donate_argnums=1)


def over_members(function: Callable[[Any], Any], members: Any) -> Any:
    """Apply a function to every member of an ensemble, within one program.

    On accelerators all at once. On CPUs one after the other: batched small matrix products are no faster there than one
    by one (benchmarks/training.py), and what every member computes stays the same to the last bit.

    Args:
        function: of one member.
        members: pytree of arrays with a leading axis [E].

    Returns:
        What it returns, with a leading axis [E].
    """
    return jax.lax.map(function, members) if jax.default_backend() == "cpu" else jax.vmap(function)(members)


@lru_cache(maxsize=16)
def compiled_question(network: Network, question: Callable[..., Any], ensemble: bool) -> Callable[..., Any]:
    """Return `ask(learned, *arguments)`, the answer of `question(model, *arguments)` of a model in evaluation mode.

    Args:
        network: the model's form.
        question: a pure function, which may be traced; compiled in by its identity.
        ensemble: whether `learned`, and then the answer, has a leading axis [E].
    """

    def ask(learned: Learned, *arguments: Any) -> Any:
        model = network.inner(network.trained(learned))
        model.eval()
        return question(model, *arguments)

    if not ensemble:
        return jax.jit(ask)
    return jax.jit(lambda learned, *arguments: over_members(lambda one: ask(one, *arguments), learned))


@lru_cache(maxsize=8)
def compiled_ensemble_update(method: Method) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Return `update(numbers, state, batches, orders)` of E networks.

    Numbers and state have a leading axis [E]; batches one of distinct orders, of which `orders` [E] says which is
    whose.
    """

    def every(
        numbers: Mapping[str, Array], state: TrainState, batches: Batch, orders: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        def one(own: tuple[Mapping[str, Array], TrainState, Array]) -> Any:
            numbers, state, order = own

            def moved() -> Any:
                return update(method, numbers, state, jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], batches))

            def left() -> Any:
                shapes = jax.eval_shape(moved)[1]
                return state, jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), shapes)

            # Saves the work where members go one after the other; at once, all are updated and these forget it.
            return jax.lax.cond(state.stopped, left, moved)

        return over_members(one, (numbers, state, orders))

    return jax.jit(every, donate_argnums=1)


def update(
    method: Method, numbers: Mapping[str, Array], state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, Array]]:
    """Make one update from one batch.

    Args:
        method: how.
        numbers: of the recipe.
        state: before.
        batch: the batch.

    Returns:
        The state after; what was measured, by name: "loss" and "gradient_norm" before the update, each penalty, what
        the gradient's rule reports, and whether, by which factor and at which angle the gradient was clipped; NaN once
        the training has stopped.
    """
    recipe = method.make_recipe(**numbers)
    model, gradient, measured = _gradient(method, recipe, state, batch)
    norm = global_norm(gradient)
    _, _, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optimizer_of(recipe, method.accumulate, state.learned.params)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.learned.params)
    learned = Learned(optax.apply_updates(state.learned.params, updates), rest)
    measured = {"gradient_norm": norm, **measured, **_clipping_of(state.optimizer_state, optimizer_state)}

    broken = ~state.stopped & ~(jnp.isfinite(measured["loss"]) & jnp.isfinite(norm))
    # Once something has broken nothing moves any more, so that the parameters that broke it can be looked at, and the
    # optimiser has counted nothing since.
    kept = state.stopped | broken
    before, after = (state.learned, state.optimizer_state), (learned, optimizer_state)
    learned, optimizer_state = jax.tree.map(partial(jnp.where, kept), before, after)
    measured = {name: jnp.where(state.stopped, jnp.nan, value) for name, value in measured.items()}
    broken_step = jnp.where(broken, state.step, state.broken_step)
    step = state.step + jnp.where(state.stopped, 0, 1)
    return TrainState(learned, optimizer_state, state.key, step, broken_step, state.solved_step), measured


def _gradient(method: Method, recipe: Recipe, state: TrainState, batch: Batch) -> tuple[Any, PyTree, dict[str, Array]]:
    """Return the model with all that it keeps moved on, the gradient with penalties, and what there is to tell."""
    params = _noisy(recipe.weight_noise, state)
    model = method.network.trained(state.learned._replace(params=params))
    made = recipe.gradient_rule(TaskLoss(method.loss), model, batch)
    gradient, measured = made.gradient, {"loss": jnp.mean(made.losses), **made.report}
    for name, (weight, penalty) in recipe.penalties.items():

        def penalised(model: Any, penalty: Penalty = penalty) -> Array:
            return penalty(method.network.inner(model), batch)

        # Of a copy, because what the model keeps moves on with the loss alone.
        value, slope = nnx.value_and_grad(penalised)(nnx.clone(model))
        weighted = jax.tree.map(lambda part, weight=weight: (weight * part).astype(part.dtype), slope)
        gradient = jax.tree.map(jnp.add, gradient, weighted)
        measured[f"penalty_{name}"] = value
    # Of a complex parameter jax gives the conjugate of the direction in which the loss rises.
    return model, jax.tree.map(jnp.conj, gradient), measured


def _clipping_of(before: PyTree, after: PyTree) -> dict[str, Array]:
    """Tell what became of the gradient in each clipping of the optimiser's chain, the first one without a number.

    NaN where there was no update, but a gradient put by.
    """
    told = {}
    for number, (old, new) in enumerate(zip(clip_states(before), clip_states(after), strict=True)):
        suffix = f"_{number + 1}" if number else ""
        for name, value in zip(("clipped", "clip_factor", "clip_angle"), new.latest, strict=True):
            told[name + suffix] = jnp.where(new.updates > old.updates, value.astype(jnp.float32), jnp.nan)
    return told


def _noisy(deviation: float | Array, state: TrainState) -> PyTree:
    if isinstance(deviation, float | int) and deviation == 0:
        return state.learned.params
    leaves, structure = jax.tree.flatten(state.learned.params)
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), len(leaves))

    def noisy(leaf: Array, key: Array) -> Array:
        return leaf + (deviation * jax.random.normal(key, leaf.shape, leaf.dtype)).astype(leaf.dtype)

    return jax.tree.unflatten(structure, map(noisy, leaves, keys))
