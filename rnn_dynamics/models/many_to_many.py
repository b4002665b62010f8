"""Many to many: a recurrence reads a sequence, and the head answers at every step."""

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.models.sequence_model import SequenceModel


class ManyToMany(SequenceModel):
    """An answer of C numbers at every step, from what was read until then.

    The parts and arguments are those of `SequenceModel`.
    """

    def answer(
        self, hidden: Float[Array, "B T H"], lengths: Int[Array | np.ndarray, " B"] | None = None
    ) -> Float[Array, "B T C"]:
        """Answer at every step, [B, T, C]; after a sequence's end that is the head's bias."""
        return self.head(hidden)
