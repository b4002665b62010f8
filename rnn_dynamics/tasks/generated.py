"""Tasks whose examples are drawn when they are asked for: data sets of any size that take no memory.

Example i of a split is a function of the task's seed, the split and i alone. So it is the same in every batch, order
and run, and yet nothing is stored: a million examples take no more memory than ten.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.examples import ExampleSource
from rnn_dynamics.tasks.splits import InSplits
from rnn_dynamics.types import Batch, Regime

DRAWN_AT_ONCE = 16
"""Examples are drawn in multiples of so many: compiling a program for every size takes longer than drawing too many."""

DrawExample = Callable[[Array], tuple[Array, Array]]
"""`draw(key) -> (inputs [T, F] float32, target)`: one example from one random key."""


@dataclass(frozen=True, eq=False)
class GeneratedExamples(ExampleSource):
    """One split of examples that are drawn on the device, all of one length.

    Attributes:
        draw: makes one example from its key.
        size: how many there are.
        key: of the split; example i is drawn from `jax.random.fold_in(key, i)`.
    """

    draw: DrawExample
    size: int
    key: Array

    def __len__(self) -> int:
        return self.size

    def take(self, indices: np.ndarray) -> Batch:
        """Draw a batch in one program, which is compiled for each multiple of `DRAWN_AT_ONCE` examples.

        Args:
            indices: [B] which examples, in the order wanted.

        Returns:
            The batch: on the device where B is such a multiple, else cut to size on the host.
        """
        size = len(indices)
        drawn = -(-size // DRAWN_AT_ONCE) * DRAWN_AT_ONCE
        batch = _draw_batch(self.draw, self.key, np.resize(np.asarray(indices, np.uint32), drawn))
        # To cut on the device would be a program for every size, and most sizes occur once, at the end of a split.
        return batch if size == drawn else jax.tree.map(lambda leaf: np.asarray(leaf)[:size], batch)


@partial(jax.jit, static_argnums=0)
def _draw_batch(draw: DrawExample, key: Array, indices: Array) -> Batch:
    inputs, targets = jax.vmap(lambda index: draw(jax.random.fold_in(key, index)))(indices)
    return Batch(inputs, targets, jnp.full(inputs.shape[:1], inputs.shape[1], jnp.int32))


class GeneratedOptions(TypedDict, total=False):
    """What every `GeneratedTask` takes besides its sizes; see there."""

    seed: int
    train_size: int
    test_size: int


class GeneratedTask(InSplits, abc.ABC):
    """A `Task` that draws its examples. A subclass has a `name`, an objective of `tasks.objectives`, and `example`.

    Args:
        seed: of the task's own data; another seed is another data set.
        train_size: examples to train on.
        test_size: examples to test on. They are drawn from other keys than those to train on.

    Attributes:
        name: the module's name, given by the subclass.
        chance_level: expected metric of the best answer that has not seen the inputs.
        solved_level: metric beyond which the task counts as solved; the subclass's docstring says by whom.
        output_features: width C of the outputs.
        input_features: F.
        vocabulary_size: None, for tokens come as one-hot vectors.
        splits: the examples by split, "train" and "test".
        seed: as given, and so `train_size` and `test_size`.

    Raises:
        ValueError: a number out of range.
    """

    name: str
    regime: Regime
    metric_name: str
    larger_is_better: bool
    chance_level: float
    solved_level: float
    output_features: int
    input_features: int | None
    vocabulary_size: int | None = None

    def __init__(self, *, seed: int = 0, train_size: int = 1_000_000, test_size: int = 10_000):
        key = jax.random.key(whole_number("seed", seed, least=0))
        self.seed, self.train_size, self.test_size = seed, train_size, test_size
        sizes = {"train": train_size, "test": test_size}
        self.splits = {
            split: GeneratedExamples(
                self.example, whole_number(f"{split}_size", size, least=1), jax.random.fold_in(key, number)
            )
            for number, (split, size) in enumerate(sizes.items())
        }

    @abc.abstractmethod
    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example.

        Args:
            key: a random key.

        Returns:
            Inputs [T, F], float32, and the target: a class number [] or [T], int32, or numbers [C], float32.
        """

    def solved(self, metric: float) -> bool:
        """Say whether a metric, the mean over a split, is better than `solved_level`."""
        return bool(metric > self.solved_level if self.larger_is_better else metric < self.solved_level)
