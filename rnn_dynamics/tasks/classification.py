"""What tasks share that ask for one class per sequence in memory: a majority to beat."""

from collections.abc import Mapping

import numpy as np

from rnn_dynamics.tasks.examples import Examples
from rnn_dynamics.tasks.objectives import Classification
from rnn_dynamics.tasks.splits import InSplits


class SequenceClassification(Classification, InSplits):
    """A `Task` over examples in memory. A subclass has a `name` and a constructor that reads them, nothing more.

    Attributes:
        name: the module's name, given by the subclass.
        splits: the examples by split, "train" and "test" among them.
        chance_level: accuracy of always answering the most frequent class of the test split.
        output_features: number of classes C.
        input_features: F of float inputs, or None where inputs are token numbers.
        vocabulary_size: V, or None where inputs are floats.
    """

    name: str

    def __init__(self, splits: Mapping[str, Examples], *, classes: int, vocabulary_size: int | None = None):
        self.splits = splits
        self.output_features = classes
        self.vocabulary_size = vocabulary_size
        self.input_features: int | None = None if vocabulary_size is not None else splits["train"].inputs.shape[-1]
        self.chance_level = float(np.bincount(splits["test"].targets).max() / len(splits["test"]))
