"""The long short-term memory cell with forget gate."""

from collections.abc import Mapping
from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN, PackedCell, PackedOptions
from rnn_dynamics.cells.gate_biases import GateBias


class LSTMCell(PackedCell):
    r"""LSTM with forget gate (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000).

    .. math::
        i_t &= \sigma(W_{xi} x_t + W_{hi} h_{t-1} + b_i) \\
        f_t &= \sigma(W_{xf} x_t + W_{hf} h_{t-1} + b_f) \\
        g_t &= \tanh(W_{xg} x_t + W_{hg} h_{t-1} + b_g) \\
        o_t &= \sigma(W_{xo} x_t + W_{ho} h_{t-1} + b_o) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    The carry is (c, h), so the state has N = 2H entries.

    Args:
        in_features: F.
        hidden_features: H.
        forget_bias: added to b_f at initialisation (Jozefowicz, Zaremba and Sutskever 2015); a number, one per unit,
            or a law such as chrono's, see `cells.gate_biases`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("input", "forget", "candidate", "output")
    carry_structure: ClassVar[tuple[int, int]] = (0, 0)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        forget_bias: GateBias = 1.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.add_to_bias("forget", forget_bias, options["rngs"])

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the gates i, f, g, o under their full names, each [..., H]."""
        _, h = carry
        i, f, g, o = self.split(drive + self.recur(h))
        return {
            "input": jax.nn.sigmoid(i),
            "forget": jax.nn.sigmoid(f),
            "candidate": jnp.tanh(g),
            "output": jax.nn.sigmoid(o),
        }

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (c_t, h_t) from (c_{t-1}, h_{t-1}) and the gates."""
        c = gates["forget"] * carry[0] + gates["input"] * gates["candidate"]
        return c, gates["output"] * jnp.tanh(c)
