"""Which model answers in which regime."""

from collections.abc import Mapping
from types import MappingProxyType

from flax import nnx
from flax.nnx import rnglib

from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.models.many_to_many import ManyToMany
from rnn_dynamics.models.many_to_one import ManyToOne
from rnn_dynamics.models.sequence_model import SequenceModel
from rnn_dynamics.types import Task

REGIMES: Mapping[str, type[SequenceModel]] = MappingProxyType({"many_to_one": ManyToOne, "many_to_many": ManyToMany})
"""The model of each `types.Regime`."""


def make_model(task: Task, cell: nnx.RNNCellBase, *, rngs: rnglib.Rngs) -> SequenceModel:
    """Make the model that a task asks for: of its regime, with its width of outputs and its vocabulary.

    Args:
        task: what is to be learned; only its sizes are used.
        cell: of the task's `input_features`, or of any width where the task has a vocabulary.
        rngs: keys of the embedding and the head.

    Returns:
        The model.

    Raises:
        ValueError: an unknown regime, or a cell that does not tell its sizes.
    """
    if task.regime not in REGIMES:
        raise ValueError(unknown_name("regime", task.regime, REGIMES))
    return REGIMES[task.regime](cell, task.output_features, vocabulary_size=task.vocabulary_size, rngs=rngs)
