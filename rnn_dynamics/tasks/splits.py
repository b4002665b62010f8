"""What all tasks share: examples in splits, handed out in batches."""

from collections.abc import Iterator, Mapping

from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.tasks.examples import ExampleSource
from rnn_dynamics.types import Batch


class InSplits:
    """A task over the splits of a data set.

    Attributes:
        splits: the examples by split, "train" and "test" among them.
    """

    splits: Mapping[str, ExampleSource]

    def batches(
        self, split: str, batch_size: int, *, seed: int | tuple[int, ...] | None = None, epochs: int | None = 1
    ) -> Iterator[Batch]:
        """Yield batches of a split; `ExampleSource.batches` says how.

        Args:
            split: "train" or "test".
            batch_size: B.
            seed: shuffles; None keeps the stored order and every example; several give batches with a leading axis.
            epochs: passes over the split; None never ends.

        Returns:
            A Grain iterator over batches, whose state can be saved and restored.

        Raises:
            ValueError: if there is no such split, or training would not see a single batch.
        """
        if split not in self.splits:
            raise ValueError(unknown_name("split", split, self.splits))
        return self.splits[split].batches(batch_size, seed=seed, epochs=epochs)
