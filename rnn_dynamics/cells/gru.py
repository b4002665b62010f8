"""The gated recurrent unit, in the form of cuDNN, torch and Flax."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx import rnglib
from jax import Array

from rnn_dynamics.cells.base import DEFAULT_KERNEL_INIT, DEFAULT_RECURRENT_KERNEL_INIT, NONE_GIVEN, Cell, zeros
from rnn_dynamics.types import Initializer


class GRUCell(Cell):
    r"""GRU with the reset gate after the matmul (Cho et al. 2014, in the form of Chetlur et al. 2014, cuDNN).

    .. math::
        r_t &= \sigma(W_{xr} x_t + W_{hr} h_{t-1} + b_r) \\
        z_t &= \sigma(W_{xz} x_t + W_{hz} h_{t-1} + b_z) \\
        n_t &= \tanh(W_{xn} x_t + b_n + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    Args:
        in_features: F.
        hidden_features: H.
        update_bias: added to b_z at initialisation; large values keep the state (cf. the LSTM's forget bias).
        kernel_init: initialiser of the three W_x side by side, [F, 3H].
        recurrent_kernel_init: initialiser of the three W_h side by side, [H, 3H].
        bias_init: initialiser of b_r, b_z, b_n, [3H], and of b_hn, [H].
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.
        rngs: keys for the initialisers.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("reset", "update", "candidate")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        update_bias: float | Array = 0.0,
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
        update = slice(hidden_features, 2 * hidden_features)
        self.bias[...] = self.bias[...].at[update].add(jnp.asarray(update_bias, param_dtype))
        self.recurrent_bias = nnx.Param(bias_init(rngs.params(), (hidden_features,), param_dtype))

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates r, z, n under their full names, each [..., H]; n reads r."""
        x_r, x_z, x_n = self.split(drive)
        h_r, h_z, h_n = self.split(self.recur(carry))
        reset = given.get("reset", jax.nn.sigmoid(x_r + h_r))
        return {
            "reset": reset,
            "update": jax.nn.sigmoid(x_z + h_z),
            "candidate": jnp.tanh(x_n + reset * self.add_bias(h_n, self.recurrent_bias[...])),
        }

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (h_t, h_t) from h_{t-1} [..., H] and the gates."""
        h = (1 - gates["update"]) * gates["candidate"] + gates["update"] * carry
        return h, h
