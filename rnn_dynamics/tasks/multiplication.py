"""Multiply two numbers that were marked in a long sequence of numbers.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), experiment 5: as adding, but nothing
that only integrates its inputs can do it.
"""

from jax import Array

from rnn_dynamics.tasks.marked_pair import MarkedPair


class Multiplication(MarkedPair):
    """The product of the two marked numbers; inputs and arguments are those of `MarkedPair`.

    Chance: the answer 1/4 has the mean squared error 1/9 - 1/16 = 7/144. Solved: below 0.04^2, for up to an error of
    0.04 an answer is right (Hochreiter and Schmidhuber 1997). Known by: an LSTM at T = 100, with 14 wrong answers in
    2560 (the same paper, table 8), and tanh networks with clipping and a regulariser at T = 200 (Pascanu, Mikolov and
    Bengio 2013).
    """

    name = "multiplication"
    chance_level = 7 / 144
    solved_level = 0.04**2

    def combine(self, first: Array, second: Array) -> Array:
        """Multiply."""
        return first * second
