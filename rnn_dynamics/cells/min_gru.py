"""The minimal gated recurrent unit, whose gates do not see the state."""

from collections.abc import Mapping

import jax
from jax import Array

from rnn_dynamics.cells.linear import InputGatedCell


class MinGRUCell(InputGatedCell):
    r"""MinGRU (Feng, Tung, Ahmed, Bengio and Hajimirsadeghi 2024, "Were RNNs all we needed?", section 3.1).

    .. math::
        z_t &= \sigma(W_z x_t + b_z) \\
        \tilde h_t &= \phi(W_h x_t + b_h) \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot \tilde h_t

    The carry is h, N = H, and the state Jacobian diag(1 - z_t): the exponents are the means over time of ln(1 - z_t),
    whatever the state is. It is the candidate's share that z gives here, where `GRUCell`'s gives the state's.

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi by name, see `cells.activations`: "identity" as in the paper's text, "positive" for the one of
            its log-space form (appendix B), which keeps candidates above 0.
        **options: initialisers, dtypes and keys, see `InputGatedCell`.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    gate_order = ("update", "candidate")

    def gates_of_drive(self, drive: Array) -> dict[str, Array]:
        """Return the gate z and the candidate under their full names, each [..., H]."""
        z, h = self.split(drive)
        return {"update": jax.nn.sigmoid(z), "candidate": self.activation(h)}

    def weigh(self, gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return 1 - z_t and z_t times the candidate, each [..., H]."""
        return 1 - gates["update"], gates["update"] * gates["candidate"]
