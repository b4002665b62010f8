"""A task's metric over a whole split."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from rnn_dynamics.training.update import Learned, Network, compiled_question
from rnn_dynamics.types import Batch, Task


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
    graph, *learned = nnx.split(model, nnx.Param, ...)
    network = Network(graph, wrapped=False)
    return float(mean_metric(network, Learned(*learned), task, split, ensemble=False, batch_size=batch_size))


def mean_metric(
    network: Network, learned: Learned, task: Task, split: str, *, ensemble: bool, batch_size: int = 256
) -> np.ndarray:
    """Average the task's metric over a split.

    Args:
        network: the model's form.
        learned: its variables, of an ensemble with a leading axis [E].
        task: gives batches and metric.
        split: e.g. "test".
        ensemble: whether there is that axis.
        batch_size: examples at a time.

    Returns:
        [] or [E], float64.
    """
    ask = compiled_question(network, _metric_of(task.metric), ensemble)
    values = [ask(learned, batch) for batch in task.batches(split, batch_size)]
    return np.asarray(np.concatenate(jax.device_get(values), axis=-1).mean(axis=-1, dtype=np.float64))


@lru_cache(maxsize=8)  # one function for one metric, so that what is compiled for it is found again
def _metric_of(metric: Callable[[Array, Any], Array]) -> Callable[[Any, Batch], Array]:
    return lambda model, batch: metric(model(batch.inputs, batch.lengths), batch.targets)
