"""The minimal long short-term memory cell, whose gates do not see the state."""

from collections.abc import Mapping

import jax
from jax import Array

from rnn_dynamics.cells.linear import InputGatedCell


class MinLSTMCell(InputGatedCell):
    r"""MinLSTM (Feng, Tung, Ahmed, Bengio and Hajimirsadeghi 2024, "Were RNNs all we needed?", section 3.2).

    .. math::
        f_t &= \sigma(W_f x_t + b_f), \qquad i_t = \sigma(W_i x_t + b_i) \\
        \tilde h_t &= \phi(W_h x_t + b_h) \\
        f'_t &= f_t / (f_t + i_t), \qquad i'_t = i_t / (f_t + i_t) \\
        h_t &= f'_t \odot h_{t-1} + i'_t \odot \tilde h_t

    The carry is h, N = H, and the state Jacobian diag(f'_t): the exponents are the means over time of ln f'_t, whatever
    the state is. The gates "forget" and "input" are f' and i', which are what weighs the state.

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi by name, see `cells.activations`: "identity" as in the paper's text, "positive" for the one of
            its log-space form (appendix B), which keeps candidates above 0.
        **options: initialisers, dtypes and keys, see `InputGatedCell`.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    gate_order = ("forget", "input", "candidate")

    def gates_of_drive(self, drive: Array) -> dict[str, Array]:
        """Return the gates f', i' and the candidate under their full names, each [..., H]."""
        f, i, h = self.split(drive)
        log_ratio = jax.nn.log_sigmoid(f) - jax.nn.log_sigmoid(i)  # f / (f + i) itself is 0 / 0 where both are shut
        return {
            "forget": jax.nn.sigmoid(log_ratio),
            "input": jax.nn.sigmoid(-log_ratio),
            "candidate": self.activation(h),
        }

    def weigh(self, gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return f'_t and i'_t times the candidate, each [..., H]."""
        return gates["forget"], gates["input"] * gates["candidate"]
