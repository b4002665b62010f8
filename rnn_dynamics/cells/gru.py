"""The gated recurrent unit: in the form of cuDNN, torch and Flax, and as it was published."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.packed import zeros
from rnn_dynamics.cells.update_gated import UpdateGatedCell, UpdateGatedOptions


class GRUCell(UpdateGatedCell):
    r"""GRU with the reset gate after the matmul (Cho et al. 2014, in the form of Chetlur et al. 2014, cuDNN).

    .. math::
        r_t &= \sigma(W_{xr} x_t + W_{hr} h_{t-1} + b_r) \\
        z_t &= \sigma(W_{xz} x_t + W_{hz} h_{t-1} + b_z) \\
        n_t &= \tanh(W_{xn} x_t + b_n + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    Args:
        in_features: F.
        hidden_features: H.
        **options: update_bias, initialisers, dtypes and keys, see `UpdateGatedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("reset", "update", "candidate")

    def __init__(self, in_features: int, hidden_features: int, **options: Unpack[UpdateGatedOptions]):
        super().__init__(in_features, hidden_features, **options)
        bias_init = options.get("bias_init", zeros)
        self.recurrent_bias = nnx.Param(bias_init(options["rngs"].params(), (hidden_features,), self.param_dtype))

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates r, z, n under their full names, each [..., H]; n reads r."""
        x_r, x_z, x_n = self.split(drive)
        h_r, h_z, h_n = self.split(self.recur(carry))
        reset = given.get("reset", jax.nn.sigmoid(x_r + h_r))
        return {
            "reset": reset,
            "update": jax.nn.sigmoid(x_z + h_z),
            "candidate": jnp.tanh(x_n + reset * (h_n + self.per_unit(self.recurrent_bias, h_n))),
        }


class ChoGRUCell(UpdateGatedCell):
    r"""GRU with the reset gate before the matmul, as it was published (Cho et al. 2014, EMNLP, equations 5-8).

    .. math::
        r_t &= \sigma(W_{xr} x_t + W_{hr} h_{t-1} + b_r) \\
        z_t &= \sigma(W_{xz} x_t + W_{hz} h_{t-1} + b_z) \\
        n_t &= \tanh(W_{xn} x_t + W_{hn} (r_t \odot h_{t-1}) + b_n) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    The paper omits the biases. The carry is h, N = H. A step takes two matmuls in a row where `GRUCell` takes one.

    Args:
        in_features: F.
        hidden_features: H.
        **options: update_bias, initialisers, dtypes and keys, see `UpdateGatedCell`.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("reset", "update", "candidate")

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates r, z, n under their full names, each [..., H]; n reads r."""
        x_r, x_z, x_n = self.split(drive)
        h_r, h_z = self.split(self.recur(carry, "reset", "update"))
        reset = given.get("reset", jax.nn.sigmoid(x_r + h_r))
        return {
            "reset": reset,
            "update": jax.nn.sigmoid(x_z + h_z),
            "candidate": jnp.tanh(x_n + self.recur(reset * carry, "candidate")),
        }
