"""Time: one recurrence from the first step to the last, and one from the last to the first."""

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.layers.recurrence import Recurrence
from rnn_dynamics.types import Carry


class Bidirectional(nnx.Module):
    """Read sequences in both directions (Schuster and Paliwal 1997); outputs of each step lie side by side.

    The way back starts at each sequence's last valid step, so the outputs of a padded sequence are those it would have
    alone. Each direction may be tapped (see `taps`), and starts from what its own `Recurrence` starts from.

    Args:
        forward: scans forward in time.
        backward: made with `reverse=True`.

    Raises:
        ValueError: a direction that is scanned the other way.
    """

    def __init__(self, forward: Recurrence, backward: Recurrence):
        if forward.reverse or not backward.reverse:
            came = f"{forward.reverse} and {backward.reverse}"
            raise ValueError(f"forward must have reverse=False and backward reverse=True, got {came}")
        self.forward = forward
        self.backward = backward

    def __call__(
        self,
        inputs: Float[Array, "B T F"],
        *,
        lengths: Int[Array, " B"] | None = None,
        initial_carry: tuple[Carry, Carry] | None = None,
    ) -> tuple[tuple[Carry, Carry], Float[Array, "B T H"]]:
        """Run over the sequences.

        Args:
            inputs: [B, T, F].
            lengths: valid steps of each sequence, 1 ... T (default: all T).
            initial_carry: of the forward and of the backward direction (default: their own).

        Returns:
            The carries of both directions, the forward one after each sequence's last step and the backward one after
            its first; and the outputs [B, T, H], H those of forward and backward together, zeros beyond the lengths.
        """
        forward_carry, backward_carry = (None, None) if initial_carry is None else initial_carry
        forward_carry, forward = self.forward(inputs, lengths=lengths, initial_carry=forward_carry)
        backward_carry, backward = self.backward(inputs, lengths=lengths, initial_carry=backward_carry)
        return (forward_carry, backward_carry), jnp.concatenate([forward, backward], axis=-1)
