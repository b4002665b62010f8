"""What a training computes, seen from the loop: updates, evaluations and probes of one network or an ensemble."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.training.config import TrainingConfig
from rnn_dynamics.training.evaluation import mean_metric
from rnn_dynamics.training.recipe import Recipe
from rnn_dynamics.training.truncation import Windows
from rnn_dynamics.training.update import (
    Method,
    TrainState,
    compiled_ensemble_update,
    compiled_question,
    compiled_update,
)
from rnn_dynamics.types import Batch, Task


@dataclasses.dataclass(frozen=True)
class Program:
    """One training.

    Attributes:
        method: how updates are made.
        numbers: of the recipe, [] each; of an ensemble [E].
        task: gives batches, loss and metric.
        config: how long, on which batches, and when to stop.
        seeds: of the members of an ensemble; None is one network.
    """

    method: Method
    numbers: Mapping[str, Array]
    task: Task
    config: TrainingConfig
    seeds: tuple[int, ...] | None = None

    @property
    def ensemble(self) -> bool:
        """Whether arrays have an axis [E]."""
        return self.seeds is not None

    def batches(self) -> Iterator[Batch]:
        """Return the batches of the training, of an ensemble one for each of the distinct seeds at once."""
        seed = self.config.seed if self.seeds is None else tuple(dict.fromkeys(self.seeds))
        batches = self.task.batches("train", self.config.batch_size, seed=seed, epochs=None)
        if self.config.truncation is None or self.task.regime == "many_to_one":
            return batches
        return Windows(batches, self.config.truncation, time_axis=2 if self.ensemble else 1)

    @cached_property
    def _update(self) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
        # Looked up once, for the caches of compiled programs are small, and a look takes longer than it should.
        if self.seeds is None:
            return partial(compiled_update(self.method), self.numbers)
        distinct = {seed: number for number, seed in enumerate(dict.fromkeys(self.seeds))}
        orders = jnp.array([distinct[seed] for seed in self.seeds])
        update = compiled_ensemble_update(self.method)
        return lambda state, batch: update(self.numbers, state, batch, orders)

    @cached_property
    def _first_recipe(self) -> Recipe:
        """The recipe of the one network, or of an ensemble's first."""
        return self.method.make_recipe(**{name: value.ravel()[0] for name, value in self.numbers.items()})

    @cached_property
    def _questions(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        return {}

    def advance(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        """Make one update, which takes the memory of the state over."""
        return self._update(state, batch)

    def evaluate(self, state: TrainState) -> np.ndarray:
        """Return the task's metric over the evaluation split, [] or [E]."""
        network, split = self.method.network, self.config.evaluation_split
        return mean_metric(network, state.learned, self.task, split, ensemble=self.ensemble)

    def ask(self, state: TrainState, question: Callable[[Any], Any]) -> Any:
        """Return what a pure function of the model says, on the host."""
        if question not in self._questions:
            self._questions[question] = compiled_question(self.method.network, question, self.ensemble)
        return jax.device_get(self._questions[question](state.learned))

    def first_step(self, state: TrainState) -> list[float]:
        """Tell a recipe by what it makes of gradients that look like the parameters: norms, in four digits."""
        params = jax.tree.map(lambda leaf: leaf[0] if self.ensemble else leaf, state.learned.params)
        optimizer = self._first_recipe.optimizer
        gradient = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), params)
        made = optimizer.update(gradient, optimizer.init(params), params)
        leaves = [jnp.abs(leaf) for leaf in jax.tree.leaves(made) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        return [float(f"{np.nansum(np.asarray(leaf, np.float64)):.4g}") for leaf in leaves]

    def settings(self) -> dict[str, Any]:
        """Tell what makes this training another one than others, but for how long it is; fits into JSON."""
        config = {name: value for name, value in dataclasses.asdict(self.config).items() if name != "steps"}
        plain = {name: value for name, value in vars(self.task).items() if _is_plain(name, value)}
        recipe, made = self.method.make_recipe, self._first_recipe
        return {
            "task": self.task.name,
            **{f"task.{name}": _fit_for_json(value) for name, value in plain.items()},
            **{name: _fit_for_json(value) for name, value in config.items()},
            **({} if self.seeds is None else {"seeds": [int(seed) for seed in self.seeds]}),
            "recipe": f"{recipe.__module__}.{getattr(recipe, '__qualname__', type(recipe).__qualname__)}",
            "penalties": {name: _fit_for_json(weight) for name, (weight, _) in made.penalties.items()},
            "weight_noise": _fit_for_json(made.weight_noise),
            **{f"numbers.{name}": _fit_for_json(value) for name, value in self.numbers.items()},
        }


def _is_plain(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, bool | int | float | str | np.generic | None)


def _fit_for_json(value: Any) -> Any:
    """Return plain numbers; float32 ones as a person would have written them, in the fewest digits that tell them."""
    if isinstance(value, Array | np.ndarray | np.generic):
        text = np.asarray(value).astype(str) if jnp.issubdtype(value.dtype, jnp.floating) else None
        return np.asarray(value).tolist() if text is None else text.astype(float).tolist()
    return value
