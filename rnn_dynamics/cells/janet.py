"""The LSTM reduced to its forget gate."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.gate_biases import GateBias
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class JANETCell(PackedCell):
    r"""JANET, just another network: an LSTM with nothing but a forget gate (van der Westhuizen and Lasenby 2018).

    .. math::
        s_t &= W_{xf} x_t + W_{hf} h_{t-1} + b_f \\
        g_t &= \tanh(W_{xg} x_t + W_{hg} h_{t-1} + b_g) \\
        h_t &= \sigma(s_t) \odot h_{t-1} + (1 - \sigma(s_t - \beta)) \odot g_t

    The carry is h, which is the paper's c, so the state has N = H entries. What is kept and what is written are two
    gates here, f and i, of one and the same s.

    Args:
        in_features: F.
        hidden_features: H.
        beta: how far writing outweighs forgetting, [] or one per unit [H]; not trained. At 0 what is forgotten is
            written, as in `CoupledLSTMCell`.
        forget_bias: added to b_f at initialisation; a number, one per unit, or a law, see
            `cells.gate_biases`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1, a beta that is not finite.
    """

    gate_order = ("forget", "candidate", "input")
    derived = ("input",)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        beta: float | Array = 1.0,
        forget_bias: GateBias = 1.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.add_to_bias("forget", forget_bias, options["rngs"])
        self.beta = self.setting("beta", beta, "finite", np.isfinite)

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates f, g, i under their full names, each [..., H]."""
        s, g = self.split(drive + self.recur(carry))
        return {
            "forget": jax.nn.sigmoid(s),
            "candidate": jnp.tanh(g),
            "input": jax.nn.sigmoid(self.per_unit(self.beta, s) - s),  # 1 - sigmoid(s - beta), with all its digits
        }

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the gates."""
        return gates["forget"] * carry + gates["input"] * gates["candidate"]
