"""The minimal gated unit: one gate that both forgets and resets."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.gate_biases import GateBias
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class MGUCell(PackedCell):
    r"""Minimal gated unit (Zhou, Wu, Zhang and Zhou 2016).

    .. math::
        f_t &= \sigma(W_{xf} x_t + W_{hf} h_{t-1} + b_f) \\
        n_t &= \tanh(W_{xn} x_t + W_{hn} (f_t \odot h_{t-1}) + b_n) \\
        h_t &= (1 - f_t) \odot h_{t-1} + f_t \odot n_t

    The carry is h, N = H. It is kept where f is 0. Flax's cell of that name exchanges f and 1 - f in the last equation,
    and resets after the matmul.

    Args:
        in_features: F.
        hidden_features: H.
        forget_bias: added to b_f at initialisation; very negative values keep the state. A number, one per
            unit, or a law, see `cells.gate_biases`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("forget", "candidate")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        forget_bias: GateBias = 0.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.add_to_bias("forget", forget_bias, options["rngs"])

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates f, n under their full names, each [..., H]; n reads f."""
        x_f, x_n = self.split(drive)
        forget = given.get("forget", jax.nn.sigmoid(x_f + self.recur(carry, "forget")))
        return {"forget": forget, "candidate": jnp.tanh(x_n + self.recur(forget * carry, "candidate"))}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the gates."""
        return (1 - gates["forget"]) * carry + gates["forget"] * gates["candidate"]
