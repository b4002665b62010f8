"""Add two numbers that were marked in a long sequence of numbers.

Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), experiment 4; in the form of
Arjovsky, Shah and Bengio, "Unitary evolution recurrent neural networks", ICML (2016).
"""

from jax import Array

from rnn_dynamics.tasks.marked_pair import MarkedPair


class Adding(MarkedPair):
    """The sum of the two marked numbers; inputs and arguments are those of `MarkedPair`.

    Chance: the answer 1 has the mean squared error 2 var U(0, 1) = 1/6. Solved: below 0.01, a limit in common use.
    Known by: an LSTM at T = 1000, with one wrong answer in 2560 (Hochreiter and Schmidhuber 1997, table 7); curves of
    the uRNN and others for T = 100 to 750 (Arjovsky et al. 2016).
    """

    name = "adding"
    chance_level = 1 / 6
    solved_level = 0.01

    def combine(self, first: Array, second: Array) -> Array:
        """Add."""
        return first + second
