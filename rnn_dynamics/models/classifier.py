"""Many to one: a recurrence reads a sequence, its last state is classified."""

import jax.numpy as jnp
from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.layers import Recurrence


class SequenceClassifier(nnx.Module):
    """Encoder (an embedding of tokens, or nothing for real-valued inputs), recurrence, linear head on the last output.

    Args:
        cell: any `nnx.RNNCellBase` with `in_features` and `hidden_features`.
        output_features: C.
        vocabulary_size: V where inputs are token numbers; the embedding's width is the cell's `in_features`.
        rngs: keys of the embedding and the head.
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        output_features: int,
        *,
        vocabulary_size: int | None = None,
        rngs: rnglib.Rngs,
    ):
        width, hidden = cell.in_features, cell.hidden_features  # pyright: ignore[reportAttributeAccessIssue]
        embedding = None if vocabulary_size is None else nnx.Embed(vocabulary_size, width, rngs=rngs)
        self.embedding = nnx.data(embedding)
        self.recurrence = Recurrence(cell)
        self.head = nnx.Linear(hidden, output_features, rngs=rngs)

    @property
    def cell(self) -> nnx.RNNCellBase:
        """The recurrent cell."""
        return self.recurrence.cell

    def encode(self, inputs: Array) -> Array:
        """Map tokens [B, T] to features [B, T, F]; features pass."""
        return inputs if self.embedding is None else self.embedding(inputs)

    def __call__(
        self, inputs: Array, lengths: Int[Array, " B"] | None = None, *, taps: Float[Array, "T B"] | None = None
    ) -> Float[Array, "B C"]:
        """Classify sequences.

        Args:
            inputs: features [B, T, F], or tokens [B, T].
            lengths: valid steps of each sequence (default: all T).
            taps: zeros [T, B]; their gradient is the norm of the loss gradient by each step's state.

        Returns:
            Logits [B, C].
        """
        _, outputs = self.recurrence(self.encode(inputs), lengths=lengths, taps=taps)
        last = outputs[:, -1] if lengths is None else outputs[jnp.arange(outputs.shape[0]), lengths - 1]
        return self.head(last)
