"""The update gate network: a plain network whose every unit may keep its state."""

from collections.abc import Mapping
from typing import Unpack

import jax
from jax import Array

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.gate_biases import GateBias
from rnn_dynamics.cells.packed import PackedOptions
from rnn_dynamics.cells.update_gated import UpdateGatedCell


class UGRNNCell(UpdateGatedCell):
    r"""UGRNN (Collins, Sohl-Dickstein and Sussillo 2017).

    .. math::
        g_t &= \sigma(W_{xg} x_t + W_{hg} h_{t-1} + b_g) \\
        c_t &= \phi(W_{xc} x_t + W_{hc} h_{t-1} + b_c) \\
        h_t &= g_t \odot h_{t-1} + (1 - g_t) \odot c_t

    The carry is h, N = H.

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi by name, see `cells.activations`; the paper's are tanh and relu.
        update_bias: added to b_g at initialisation, the paper's b^fg, see `UpdateGatedCell`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    gate_order = ("update", "candidate")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str = "tanh",
        update_bias: GateBias = 1.0,
        **options: Unpack[PackedOptions],
    ):
        self.activation = find_activation(activation)
        super().__init__(in_features, hidden_features, update_bias=update_bias, **options)

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates g, c under their full names, each [..., H]."""
        g, c = self.split(drive + self.recur(carry))
        return {"update": jax.nn.sigmoid(g), "candidate": self.activation(c)}
