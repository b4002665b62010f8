"""In which order two or three symbols came, far apart in a stream of others.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), experiments 6a and 6b; in the form of
Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML (2013), and their code.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.generated import GeneratedOptions, GeneratedTask
from rnn_dynamics.tasks.objectives import Classification

WINDOWS_START = {2: (1, 5), 3: (1, 3, 6)}
"""Where the windows of the relevant symbols start, in tenths of the sequence; each is a tenth long."""

SYMBOLS = 6


class TemporalOrder(Classification, GeneratedTask):
    """Two or three symbols, each A or B, in windows of a stream of c, d, e, f; the class says which came where.

    Inputs [T, 6]: one-hot symbols A, B, c, d, e, f. With w = floor(T / 10), the relevant symbols are at any of the w
    steps from w and floor(T / 2) on, or, of three, from w, floor(3 T / 10) and floor(6 T / 10) on. Targets: class
    numbers, whose lowest bit is 1 where the first of them is B, the next bit where the second is, and so on.

    These are the windows of Pascanu et al.'s code. In Hochreiter and Schmidhuber (1997) T is 100 to 110, the symbols
    come at 10-20 and 50-60, or 10-20, 33-43 and 66-76, and two symbols more mark start and end.

    Chance: 1/4 or 1/8. Solved: above 0.99, for a run succeeds if fewer than 1 % of 10,000 sequences are misclassified
    (Pascanu et al. 2013). Known by: tanh networks with clipping and a regulariser, of which all runs succeed up to
    T = 200, and one still has no errors at 5000 (the same paper); an LSTM at T = 100, with 1 or 2 in 2560 misclassified
    (Hochreiter and Schmidhuber 1997, table 9).

    Args:
        length: T >= 10.
        symbols: 2 or 3, how many are relevant.
        **options: seed and sizes, see `GeneratedTask`.

    Raises:
        ValueError: a number out of range.
    """

    name = "temporal_order"
    input_features: int | None = SYMBOLS
    solved_level = 0.99

    def __init__(self, length: int = 100, symbols: int = 2, **options: Unpack[GeneratedOptions]):
        self.length = whole_number("length", length, least=10)
        if symbols not in WINDOWS_START:
            raise ValueError(f"symbols must be 2 or 3, got {symbols!r}")
        self.symbols = symbols
        self.output_features = 2**symbols
        self.chance_level = 2.0**-symbols
        super().__init__(**options)

    @property
    def windows(self) -> tuple[range, ...]:
        """The steps at which each of the relevant symbols may be."""
        starts = (tenths * self.length // 10 for tenths in WINDOWS_START[self.symbols])
        return tuple(range(start, start + self.length // 10) for start in starts)

    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example: inputs [T, 6] and a class number []."""
        for_stream, for_relevant = jax.random.split(key)
        stream = jax.random.randint(for_stream, (self.length,), 2, SYMBOLS, jnp.int32)
        least = jnp.array([[window.start, 0] for window in self.windows])
        beyond = jnp.array([[window.stop, 2] for window in self.windows])
        steps, relevant = jax.random.randint(for_relevant, least.shape, least, beyond, jnp.int32).T
        inputs = jax.nn.one_hot(stream.at[steps].set(relevant), SYMBOLS, dtype=jnp.float32)
        return inputs, jnp.sum(relevant << jnp.arange(self.symbols, dtype=jnp.int32), dtype=jnp.int32)
