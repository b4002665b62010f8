"""Which symbol came first, so many steps ago, in noise of a given strength.

The latching problem of Bengio, Simard and Frasconi, "Learning long-term dependencies with gradient descent is
difficult", IEEE Transactions on Neural Networks 5 (1994), with as many classes, a lag and a noise that are free: to lay
the lag that a network learns beside the reach of its gradients.
"""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.generated import GeneratedOptions, GeneratedTask
from rnn_dynamics.tasks.objectives import Classification


class DelayedRecall(Classification, GeneratedTask):
    """A one-hot symbol at the first step, then noise in the same channels; the class is the symbol.

    Inputs [lag + 1, S]: the symbol, then independent draws from N(0, noise^2). Targets: the symbol's number. All that
    the loss knows of the symbol is `lag` steps back, neither more nor less, and how much the inputs drive the network
    meanwhile is up to `noise`. In Bengio et al. (1994) the class is in several of the first inputs, which are learned.

    Chance: 1 / S. Solved: above 0.99 (the limit is ours). Known by: Bengio et al. (1994), in whose form gradient
    descent fails ever more often as the lag grows.

    Args:
        lag: steps from the symbol to the answer, >= 1.
        noise: standard deviation of the inputs after the symbol, >= 0 and finite.
        symbols: S >= 2.
        **options: seed and sizes, see `GeneratedTask`.

    Raises:
        ValueError: a number out of range.
    """

    name = "delayed_recall"
    solved_level = 0.99

    def __init__(self, lag: int = 100, noise: float = 0.1, symbols: int = 4, **options: Unpack[GeneratedOptions]):
        self.lag = whole_number("lag", lag, least=1)
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise must be >= 0 and finite, got {noise}")
        self.noise = noise
        self.symbols = whole_number("symbols", symbols, least=2)
        self.input_features: int | None = self.symbols
        self.output_features = self.symbols
        self.chance_level = 1 / self.symbols
        super().__init__(**options)

    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example: inputs [lag + 1, S] and a class number []."""
        for_symbol, for_noise = jax.random.split(key)
        symbol = jax.random.randint(for_symbol, (), 0, self.symbols, jnp.int32)
        noise = self.noise * jax.random.normal(for_noise, (self.lag, self.symbols), jnp.float32)
        return jnp.concatenate([jax.nn.one_hot(symbol, self.symbols, dtype=jnp.float32)[None], noise]), symbol
