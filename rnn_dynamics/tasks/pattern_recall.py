"""What the tasks share that ask for a pattern again, symbol by symbol, after a delay in which nothing happens."""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.generated import GeneratedOptions, GeneratedTask
from rnn_dynamics.tasks.objectives import StepClassification


class PatternRecall(StepClassification, GeneratedTask):
    """K symbols, each one of S, are read, and are to be said again after a delay of D steps, the last of which cues.

    Inputs [2 K + D, S + 2]: one-hot symbols; the pattern at the first K steps, then blanks (number S), and the cue
    (S + 1) at step K + D - 1, counted from 0, the one before the first answer. Targets [2 K + D]: the pattern at the
    last K steps, a blank (S) at all others. A symbol is to be kept for K + D steps. All steps count in the loss.

    The metric is that of sequences, as in Pascanu, Mikolov and Bengio (2013): one is right if the answers at all its
    steps are.

    Args:
        delay: D >= 1.
        **options: seed and sizes, see `GeneratedTask`.

    Attributes:
        pattern_symbols: S, given by the subclass.
        pattern_length: K, given by the subclass.

    Raises:
        ValueError: a number out of range.
    """

    pattern_symbols: int
    pattern_length: int

    def __init__(self, delay: int = 100, **options: Unpack[GeneratedOptions]):
        self.delay = whole_number("delay", delay, least=1)
        self.input_features: int | None = self.pattern_symbols + 2
        self.output_features = self.pattern_symbols + 1
        self.chance_level, self.solved_level = self.levels()
        super().__init__(**options)

    def levels(self) -> tuple[float, float]:
        """Return `chance_level` and `solved_level`."""
        return float(self.pattern_symbols) ** -self.pattern_length, 0.99

    def metric(
        self, outputs: Float[Array | np.ndarray, "B T C"], targets: Int[Array | np.ndarray, "B T"]
    ) -> Float[Array, "B"]:
        """Return whether the largest output is the target's at every step.

        Args:
            outputs: [B, T, C], any monotone function of the log-probabilities.
            targets: [B, T] class numbers.

        Returns:
            [B], 1.0 where it is and 0.0 elsewhere.
        """
        right = jnp.argmax(outputs, axis=-1).astype(targets.dtype) == targets
        return jnp.all(right, axis=-1).astype(jnp.float32)

    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example: inputs [2 K + D, S + 2] and class numbers [2 K + D]."""
        blank, cue = self.pattern_symbols, self.pattern_symbols + 1
        pattern = jax.random.randint(key, (self.pattern_length,), 0, self.pattern_symbols, jnp.int32)
        blanks = jnp.full(self.pattern_length + self.delay, blank, jnp.int32)
        symbols = jnp.concatenate([pattern, blanks.at[self.delay - 1].set(cue)])
        return jax.nn.one_hot(symbols, self.pattern_symbols + 2, dtype=jnp.float32), jnp.concatenate([blanks, pattern])
