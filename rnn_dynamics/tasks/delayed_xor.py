"""At every step: whether the inputs one and two delays ago differ.

Engelken, "Gradient flossing: improving gradient descent through dynamic control of Jacobians", NeurIPS (2023), and the
code that comes with it.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.generated import GeneratedOptions, GeneratedTask
from rnn_dynamics.tasks.objectives import NOT_ASKED, StepClassification


class DelayedXOR(StepClassification, GeneratedTask):
    r"""The exclusive or of two bits of the past, as a stream.

    .. math:: y_t = |x_{t-d} - x_{t-2d}|, \qquad x_t \in \{0, 1\} \text{ independent, equally likely}

    Inputs [T, 1]: the bits. Targets [T]: the class y_t from step 2 d on, counted from 0; before it, where there is no
    x, nothing is asked. Neither bit alone says anything about y, so that no gradient leads halfway to a solution. The
    lags are those of the author's code, where `delay` is d. Two outputs with a softmax take the place of one with a
    logistic function there: its argument is their difference.

    Chance: 1/2. Solved: above 0.99 (the limit is ours). Known by: networks that were trained to Lyapunov exponents
    near 0 before ("flossing") learn longer delays, and more often, than others.

    Args:
        delay: d >= 1.
        length: T > 2 d.
        **options: seed and sizes, see `GeneratedTask`.

    Raises:
        ValueError: a number out of range.
    """

    name = "delayed_xor"
    input_features: int | None = 1
    output_features = 2
    chance_level = 0.5
    solved_level = 0.99

    def __init__(self, delay: int = 10, length: int = 300, **options: Unpack[GeneratedOptions]):
        self.delay = whole_number("delay", delay, least=1)
        self.length = whole_number("length", length, least=2 * self.delay + 1)
        super().__init__(**options)

    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example: inputs [T, 1] and class numbers [T]."""
        bits = jax.random.randint(key, (self.length,), 0, 2, jnp.int32)
        classes = bits[self.delay : -self.delay] ^ bits[: -2 * self.delay]
        not_asked = jnp.full(2 * self.delay, NOT_ASKED, jnp.int32)
        return bits[:, None].astype(jnp.float32), jnp.concatenate([not_asked, classes])
