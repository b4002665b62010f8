"""Many to one: a recurrence reads a sequence, and the head answers once, at its last step."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.models.sequence_model import SequenceModel


class ManyToOne(SequenceModel):
    """One answer for a sequence, of C numbers: logits of classes, or values.

    The parts and arguments are those of `SequenceModel`.
    """

    def answer(
        self, hidden: Float[Array, "B T H"], lengths: Int[Array | np.ndarray, " B"] | None = None
    ) -> Float[Array, "B C"]:
        """Answer at the last valid step, [B, C]."""
        last = hidden[:, -1] if lengths is None else hidden[jnp.arange(len(hidden)), jnp.asarray(lengths) - 1]
        return self.head(last)
