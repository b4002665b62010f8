"""Which of two symbols came first, after a long stream of a hundred others that say nothing.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), experiment 2, as the random
permutation problem of Martens and Sutskever, "Learning recurrent neural networks with Hessian-free optimization", ICML
(2011); in the form of Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML
(2013), and their code.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.tasks.generated import GeneratedOptions, GeneratedTask
from rnn_dynamics.tasks.objectives import Classification

SYMBOLS = 100


class RandomPermutation(Classification, GeneratedTask):
    """The first symbol, one of two, is to be repeated at the end; the others are drawn from 98 more, with repetition.

    Inputs [T, 100]: one-hot symbols; the first step's is 0 or 1, all others' 2 ... 99, equally likely. (It is no
    permutation; the name is theirs.) Targets: the first symbol, out of 100 classes; that 98 of them never occur is to
    be learned too. Martens and Sutskever ask at every step for the next symbol, and count the last answer alone;
    Pascanu et al., as here, ask for it alone.

    Chance: 1/2. Solved: above 0.99, for a run succeeds if fewer than 1 % of 10,000 sequences are misclassified (Pascanu
    et al. 2013). Known by: the hardest task there, on which most runs failed.

    Args:
        length: T >= 2.
        **options: seed and sizes, see `GeneratedTask`.

    Raises:
        ValueError: a number out of range.
    """

    name = "random_permutation"
    input_features: int | None = SYMBOLS
    output_features = SYMBOLS
    chance_level = 0.5
    solved_level = 0.99

    def __init__(self, length: int = 100, **options: Unpack[GeneratedOptions]):
        self.length = whole_number("length", length, least=2)
        super().__init__(**options)

    def example(self, key: Array) -> tuple[Array, Array]:
        """Draw one example: inputs [T, 100] and a class number []."""
        for_first, for_others = jax.random.split(key)
        first = jax.random.randint(for_first, (), 0, 2, jnp.int32)
        others = jax.random.randint(for_others, (self.length - 1,), 2, SYMBOLS, jnp.int32)
        return jax.nn.one_hot(jnp.append(first, others), SYMBOLS, dtype=jnp.float32), first
