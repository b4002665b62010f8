"""What a training computes, seen from the loop: updates, evaluations and probes of one network or an ensemble."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.training.config import TrainingConfig
from rnn_dynamics.training.evaluation import mean_metric
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

    def advance(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        """Make one update, which takes the memory of the state over."""
        if self.seeds is None:
            return compiled_update(self.method)(self.numbers, state, batch)
        distinct = list(dict.fromkeys(self.seeds))
        orders = jnp.array([distinct.index(seed) for seed in self.seeds])
        return compiled_ensemble_update(self.method)(self.numbers, state, batch, orders)

    def evaluate(self, state: TrainState) -> np.ndarray:
        """Return the task's metric over the evaluation split, [] or [E]."""
        network, split = self.method.network, self.config.evaluation_split
        return mean_metric(network, state.learned, self.task, split, ensemble=self.ensemble)

    def ask(self, state: TrainState, question: Callable[[Any], Any]) -> Any:
        """Return what a pure function of the model says, on the host."""
        return jax.device_get(compiled_question(self.method.network, question, self.ensemble)(state.learned))

    def settings(self) -> dict[str, Any]:
        """Tell what makes this training another one than others, but for how long it is; fits into JSON."""
        config = {name: value for name, value in dataclasses.asdict(self.config).items() if name != "steps"}
        plain = {name: value for name, value in vars(self.task).items() if _is_plain(name, value)}
        recipe = self.method.make_recipe
        return {
            "task": self.task.name,
            **{f"task.{name}": value for name, value in plain.items()},
            **config,
            **({} if self.seeds is None else {"seeds": list(self.seeds)}),
            "recipe": getattr(recipe, "__qualname__", type(recipe).__qualname__),
            **{name: _legible(value) for name, value in self.numbers.items()},
        }


def _is_plain(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, bool | int | float | str | None)


def _legible(value: Array) -> Any:
    """Return float32 numbers as a person would have written them."""
    digits = np.finfo(value.dtype).precision
    return np.vectorize(lambda number: float(f"{number:.{digits}g}"), otypes=[float])(np.asarray(value)).tolist()
