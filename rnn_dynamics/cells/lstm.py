"""The long short-term memory cell with forget gate."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax.nnx import rnglib
from jax import Array

from rnn_dynamics.cells.base import DEFAULT_KERNEL_INIT, DEFAULT_RECURRENT_KERNEL_INIT, NONE_GIVEN, Cell, zeros
from rnn_dynamics.types import Initializer


class LSTMCell(Cell):
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
        forget_bias: added to b_f at initialisation (Jozefowicz, Zaremba and Sutskever 2015); a number, or one per unit.
        kernel_init: initialiser of the four W_x side by side, [F, 4H].
        recurrent_kernel_init: initialiser of the four W_h side by side, [H, 4H].
        bias_init: initialiser of the four b, [4H].
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.
        rngs: keys for the initialisers.

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
        forget_bias: float | Array = 1.0,
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        recurrent_kernel_init: Initializer = DEFAULT_RECURRENT_KERNEL_INIT,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: rnglib.Rngs,
    ):
        super().__init__(
            in_features,
            hidden_features,
            kernel_init=kernel_init,
            recurrent_kernel_init=recurrent_kernel_init,
            bias_init=bias_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        forget = slice(hidden_features, 2 * hidden_features)
        self.bias[...] = self.bias[...].at[forget].add(jnp.asarray(forget_bias, param_dtype))

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

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[tuple[Array, Array], Array]:
        """Return ((c_t, h_t), h_t) from (c_{t-1}, h_{t-1}) and the gates."""
        c = gates["forget"] * carry[0] + gates["input"] * gates["candidate"]
        h = gates["output"] * jnp.tanh(c)
        return (c, h), h
