"""What all tasks share that ask for one class per sequence: cross-entropy, accuracy, and a majority to beat."""

from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.tasks.examples import Examples
from rnn_dynamics.types import Batch


class SequenceClassification:
    """A `Task` over examples in memory. A subclass has a `name` and a constructor that reads them, nothing more.

    Attributes:
        name: the module's name, given by the subclass.
        metric_name: "accuracy".
        splits: the examples by split, "train" and "test" among them.
        chance_level: accuracy of always answering the most frequent class of the test split.
        output_features: number of classes C.
        input_features: F of float inputs, or None where inputs are token numbers.
        vocabulary_size: V, or None where inputs are floats.
    """

    name: str
    metric_name = "accuracy"

    def __init__(self, splits: Mapping[str, Examples], *, classes: int, vocabulary_size: int | None = None):
        self.splits = splits
        self.output_features = classes
        self.vocabulary_size = vocabulary_size
        self.input_features: int | None = None if vocabulary_size is not None else splits["train"].inputs.shape[-1]
        self.chance_level = float(np.bincount(splits["test"].targets).max() / len(splits["test"]))

    def batches(
        self, split: str, batch_size: int, *, seed: int | None = None, epochs: int | None = 1
    ) -> Iterator[Batch]:
        """Yield batches of a split; `Examples.batches` says how.

        Args:
            split: "train" or "test".
            batch_size: B.
            seed: shuffles; None keeps the stored order and every example.
            epochs: passes over the split; None never ends.

        Returns:
            A Grain iterator over batches, whose state can be saved and restored.

        Raises:
            ValueError: if there is no such split, or training would not see a single batch.
        """
        if split not in self.splits:
            raise ValueError(unknown_name("split", split, self.splits))
        return self.splits[split].batches(batch_size, seed=seed, epochs=epochs)

    def loss(self, outputs: Float[Array, "B C"], targets: Int[Array | np.ndarray, "B"]) -> Float[Array, "B"]:
        """Return the cross-entropy of each example.

        Args:
            outputs: [B, C] unnormalised log-probabilities.
            targets: [B] class numbers.

        Returns:
            [B], in nats.
        """
        return optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.asarray(targets))

    def metric(
        self, outputs: Float[Array | np.ndarray, "B C"], targets: Int[Array | np.ndarray, "B"]
    ) -> Float[Array, "B"]:
        """Return whether the largest output is the target's.

        Args:
            outputs: [B, C], any monotone function of the log-probabilities.
            targets: [B] class numbers.

        Returns:
            [B], 1.0 where it is and 0.0 elsewhere; the mean is the accuracy.
        """
        return (jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets).astype(jnp.float32)
