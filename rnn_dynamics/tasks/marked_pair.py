"""What the tasks share that combine two marked numbers of a long sequence: Hochreiter and Schmidhuber's 4 and 5."""

import abc
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.generated import GeneratedOptions, GeneratedTask
from rnn_dynamics.tasks.objectives import Regression


class MarkedPair(Regression, GeneratedTask):
    """Two of T numbers are marked, one in each half; the target is made of the two.

    Inputs [T, 2]: numbers from U(0, 1), and marks, 1 at two steps and 0 elsewhere. The first mark is at a step of the
    first half, floor(T / 2) steps, the second at one of the others, all equally likely. Targets: one number.

    This is the form of Arjovsky, Shah and Bengio (2016). Hochreiter and Schmidhuber (1997) draw the length of each
    sequence, put the first mark among the first ten steps and the second before the middle, mark both ends with -1, and
    scale the sum; Pascanu, Mikolov and Bengio (2013) put both marks into the first half.

    Args:
        length: T >= 2.
        **options: seed and sizes, see `GeneratedTask`.

    Raises:
        ValueError: a number out of range.
    """

    output_features = 1
    input_features: int | None = 2

    def __init__(self, length: int = 100, **options: Unpack[GeneratedOptions]):
        self.length = whole_number("length", length, least=2)
        super().__init__(**options)

    @abc.abstractmethod
    def combine(self, first: Array, second: Array) -> Array:
        """Make the target from the marked numbers."""

    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example: inputs [T, 2] and a target [1]."""
        for_values, for_steps = jax.random.split(key)
        values = jax.random.uniform(for_values, (self.length,), jnp.float32)
        half = self.length // 2
        steps = jax.random.randint(for_steps, (2,), jnp.array([0, half]), jnp.array([half, self.length]), jnp.int32)
        marks = jnp.zeros(self.length, jnp.float32).at[steps].set(1)
        return jnp.stack([values, marks], axis=-1), self.combine(*values[steps])[None]
