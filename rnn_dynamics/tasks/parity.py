"""Whether a sequence held an odd number of ones.

Bengio, Simard and Frasconi, "Learning long-term dependencies with gradient descent is difficult", IEEE Transactions on
Neural Networks 5 (1994).
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.generated import GeneratedOptions, GeneratedTask
from rnn_dynamics.tasks.objectives import Classification


class Parity(Classification, GeneratedTask):
    """The parity of T bits: every input matters, and no subset of them says anything.

    Inputs [T, 1]: 1 or -1, equally likely. Targets: class 1 where the number of 1s is odd, else 0. Bengio et al. (1994)
    also have a form with noise on the inputs, and sequences of unequal length; here is neither.

    Chance: 1/2. Solved: above 0.99 (the limit is ours). Known by: of six methods only simulated annealing came to no
    errors at 25 to 50 steps (Bengio et al. 1994); guessing weights at random finds networks that do it, above 500 steps
    too (Schmidhuber, Hochreiter and Bengio, "Evaluating benchmark problems by random guessing", 2001).

    Args:
        length: T >= 2.
        **options: seed and sizes, see `GeneratedTask`.

    Raises:
        ValueError: a number out of range.
    """

    name = "parity"
    input_features: int | None = 1
    output_features = 2
    chance_level = 0.5
    solved_level = 0.99

    def __init__(self, length: int = 50, **options: Unpack[GeneratedOptions]):
        self.length = whole_number("length", length, least=2)
        super().__init__(**options)

    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example: inputs [T, 1] and a class number []."""
        bits = jax.random.randint(key, (self.length,), 0, 2, jnp.int32)
        return (2 * bits[:, None] - 1).astype(jnp.float32), jnp.sum(bits, dtype=jnp.int32) % 2
