"""Copy ten symbols after a long delay, judged by cross-entropy: the task of unitary networks.

Arjovsky, Shah and Bengio, "Unitary evolution recurrent neural networks", ICML (2016); after experiment 2 of
Hochreiter and Schmidhuber (1997).
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.tasks.pattern_recall import PatternRecall


class CopyingMemory(PatternRecall):
    """Ten symbols, each one of eight; inputs, targets and arguments are those of `PatternRecall`, K = 10, S = 8.

    The `delay` is the paper's T, so that sequences have T + 20 steps. The metric is the loss, the mean cross-entropy
    over all of them, in nats.

    Chance: who knows the time and no symbol says blanks, then each symbol with probability 1/8: 10 ln 8 / (T + 20).
    Solved: below a tenth of that. (The paper shows curves and no limit; a tenth is ours.) Known by: except at the
    shortest delay tanh networks and LSTMs get stuck at chance, and the uRNN does not (the same paper).
    """

    name = "copying_memory"
    metric_name = "cross-entropy"
    larger_is_better = False
    pattern_symbols = 8
    pattern_length = 10

    def levels(self) -> tuple[float, float]:
        """Return `chance_level` and `solved_level`, nats."""
        chance = self.pattern_length * math.log(self.pattern_symbols) / (self.delay + 2 * self.pattern_length)
        return chance, chance / 10

    def metric(
        self, outputs: Float[Array | np.ndarray, "B T C"], targets: Int[Array | np.ndarray, "B T"]
    ) -> Float[Array, "B"]:
        """Return the loss of each example, [B]."""
        return self.loss(jnp.asarray(outputs), targets)
