"""What the models of all regimes share: encoder, recurrence and head, and the checks of what they read."""

import abc
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import rnglib
from jax import Array
from jax.core import Tracer
from jaxtyping import Float, Int

from rnn_dynamics.layers import Recurrence
from rnn_dynamics.types import Carry


class SequenceModel(nnx.Module, abc.ABC):
    """Encoder (an embedding of tokens, or nothing for real-valued inputs), recurrence, linear head.

    A subclass says to which of the recurrence's outputs the head is applied. The embedding and the head have the cell's
    `param_dtype`.

    Args:
        cell: any `nnx.RNNCellBase` with `in_features` and `hidden_features`.
        output_features: C.
        vocabulary_size: V where inputs are token numbers; the embedding's width is the cell's `in_features`.
        rngs: keys of the embedding and the head.

    Raises:
        ValueError: a size below 1, or a cell that does not tell its own.
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        output_features: int,
        *,
        vocabulary_size: int | None = None,
        rngs: rnglib.Rngs,
    ):
        _check_sizes(cell, output_features, vocabulary_size)
        width: int = cell.in_features  # pyright: ignore[reportAttributeAccessIssue]
        hidden: int = cell.hidden_features  # pyright: ignore[reportAttributeAccessIssue]
        param_dtype = getattr(cell, "param_dtype", jnp.float32)
        embedding = None
        if vocabulary_size is not None:
            embedding = nnx.Embed(vocabulary_size, width, param_dtype=param_dtype, rngs=rngs)
        self.embedding = nnx.data(embedding)
        self.recurrence = Recurrence(cell)
        self.head = nnx.Linear(hidden, output_features, param_dtype=param_dtype, rngs=rngs)

    @property
    def cell(self) -> nnx.RNNCellBase:
        """The recurrent cell."""
        return self.recurrence.cell

    def encode(self, inputs: Array | np.ndarray) -> Array:
        """Map inputs to what the recurrence reads.

        Features where tokens are due, the reverse, and a token outside the vocabulary are refused.

        Args:
            inputs: tokens [B, T], or features [B, T, F], which pass as they are.

        Returns:
            Features [B, T, F].
        """
        inputs = jnp.asarray(inputs)
        _check_inputs(inputs, None if self.embedding is None else self.embedding.num_embeddings)
        return inputs if self.embedding is None else self.embedding(inputs)

    def read(
        self,
        inputs: Array | np.ndarray,
        lengths: Int[Array | np.ndarray, " B"] | None = None,
        initial_carry: Carry | None = None,
    ) -> tuple[Carry, Float[Array, "B T H"]]:
        """Run the recurrence over encoded inputs.

        Args:
            inputs: features [B, T, F], or tokens [B, T].
            lengths: valid steps of each sequence, 1 ... T (default: all T).
            initial_carry: leaves [B, H] (default: the recurrence's own).

        Returns:
            The carry after each sequence's last step; what the recurrence puts out at every step, [B, T, H], zeros
            after a sequence's end.
        """
        lengths = None if lengths is None else jnp.asarray(lengths)
        return self.recurrence(self.encode(inputs), lengths=lengths, initial_carry=initial_carry)

    @abc.abstractmethod
    def answer(
        self, hidden: Float[Array, "B T H"], lengths: Int[Array | np.ndarray, " B"] | None = None
    ) -> Float[Array, "B ..."]:
        """Apply the head to what the recurrence put out.

        Args:
            hidden: [B, T, H], as `read` returns it.
            lengths: valid steps of each sequence, 1 ... T (default: all T).

        Returns:
            Outputs [B, C] or [B, T, C]; in the latter a step after a sequence's end holds the head's bias.
        """

    def __call__(
        self, inputs: Array | np.ndarray, lengths: Int[Array | np.ndarray, " B"] | None = None
    ) -> Float[Array, "B ..."]:
        """Read sequences and answer.

        Args:
            inputs: features [B, T, F], or tokens [B, T].
            lengths: valid steps of each sequence, 1 ... T (default: all T).

        Returns:
            Outputs [B, C] or [B, T, C].
        """
        return self.answer(self.read(inputs, lengths)[1], lengths)


def _check_sizes(cell: Any, output_features: int, vocabulary_size: int | None) -> None:
    for name in ("in_features", "hidden_features"):
        if not hasattr(cell, name):
            raise ValueError(f"cell must have an attribute {name}, {type(cell).__name__} has none")
    if output_features < 1:
        raise ValueError(f"output_features must be >= 1, got {output_features}")
    if vocabulary_size is not None and vocabulary_size < 1:
        raise ValueError(f"vocabulary_size must be >= 1, or None for inputs that are no tokens, got {vocabulary_size}")


def _check_inputs(inputs: Array, vocabulary_size: int | None) -> None:
    came = f"{inputs.dtype} of shape {inputs.shape}"
    if vocabulary_size is None:
        if inputs.ndim != 3 or not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise ValueError(f"inputs must be floats [batch, time, feature] without a vocabulary_size, got {came}")
        return
    if inputs.ndim != 2 or not jnp.issubdtype(inputs.dtype, jnp.integer):
        raise ValueError(f"inputs must be token numbers [batch, time] with a vocabulary_size, got {came}")
    if inputs.size and not isinstance(inputs, Tracer):
        least, most = np.min(np.asarray(inputs)), np.max(np.asarray(inputs))
        if least < 0 or most >= vocabulary_size:
            raise ValueError(f"tokens must lie in 0 ... {vocabulary_size - 1}, got {least} ... {most}")
