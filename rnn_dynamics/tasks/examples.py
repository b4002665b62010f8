"""Examples by number, and the one way in which they are shuffled and batched; here are those that fit in memory."""

import abc
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from rnn_dynamics.types import Batch


class ExampleSource(abc.ABC):
    """One split of a data set: so many examples, each the same whenever it is asked for.

    Arrays in memory are one (`Examples`), drawing each example anew is another (`tasks.generated.GeneratedExamples`).
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return how many examples there are."""

    @abc.abstractmethod
    def take(self, indices: np.ndarray) -> Batch:
        """Gather a batch.

        Args:
            indices: [B] which examples, 0 ... len - 1, in the order wanted.

        Returns:
            The batch; no example of it depends on which others are in it.
        """

    def take_each(self, orders: tuple[np.ndarray, ...]) -> Batch:
        """Gather the batches of several orders at once.

        Args:
            orders: S of them, each [B].

        Returns:
            One batch whose arrays have a leading axis S.
        """
        several = self.take(np.concatenate(orders))
        return jax.tree.map(lambda leaf: leaf.reshape(len(orders), -1, *leaf.shape[1:]), several)

    def batches(
        self, batch_size: int, *, seed: int | tuple[int, ...] | None = None, epochs: int | None = 1
    ) -> Iterator[Batch]:
        """Shuffle and batch with Grain.

        Epochs follow one another without a seam: a batch may hold the end of one and the start of the next, so that
        all batches have one shape. What then remains at the very end, less than a batch, is dropped in training (a
        seed, or no end) and yielded as a smaller batch in evaluation (no seed), which so sees every example.

        Args:
            batch_size: B.
            seed: non-negative; orders the examples, differently in each epoch. None keeps the stored order. Of several
                seeds each has its own order: arrays get a leading axis, and entry i of it is what seed i alone gives.
            epochs: passes over the examples; None never ends.

        Returns:
            A Grain `DatasetIterator`: `get_state()` and `set_state(state)` stop and resume it at any batch.

        Raises:
            ValueError: if training would drop everything because one batch takes more than all epochs hold.
        """
        import grain

        training = seed is not None or epochs is None
        if training and epochs is not None and batch_size > epochs * len(self):
            raise ValueError(
                f"batch_size {batch_size} exceeds the {epochs * len(self)} examples that epochs={epochs} holds, "
                "so training would not see a single batch"
            )

        def in_order(seed: int | None) -> grain.MapDataset:
            # Grain moves numbers only. Gathering a whole batch at once is what makes this fast.
            indices = grain.MapDataset.range(len(self))
            if seed is not None:
                # Not shuffle(seed): that adds the epoch to it, so epoch 1 of seed 0 would be epoch 0 of seed 1.
                indices = indices.seed(seed).shuffle()
            return indices.repeat(epochs).batch(batch_size, drop_remainder=training)

        if isinstance(seed, tuple):
            batches = grain.experimental.ZipMapDataset([in_order(each) for each in seed]).map(self.take_each)
        else:
            batches = in_order(seed).map(self.take)
        # Nothing is read from disk: reading threads would only wait for one another, and hold 500 batches meanwhile.
        in_this_thread = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        return iter(batches.to_iter_dataset(in_this_thread))


@dataclass(frozen=True, eq=False)
class Examples(ExampleSource):
    """One split of a data set, held as arrays.

    Attributes:
        inputs: [n, T, F] numbers, or [n, T] int32 token numbers; post-padded.
        targets: [n, ...] int32, whatever the task's loss takes.
        lengths: [n] int32, valid steps of each example, 1 <= lengths <= T.
        full_scale: the largest value that `inputs` can hold, which becomes 1.0 in a batch, so that images stay bytes
            in memory; None hands `inputs` out as they are.
    """

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray
    full_scale: int | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: np.ndarray) -> Batch:
        """Gather a batch.

        Args:
            indices: [B] which examples, in the order wanted.

        Returns:
            The batch; its inputs are float32 in [0, 1] where there is a `full_scale`.
        """
        inputs = self.inputs[indices]
        if self.full_scale is not None:
            inputs = inputs / np.float32(self.full_scale)
        return Batch(inputs, self.targets[indices], self.lengths[indices])
