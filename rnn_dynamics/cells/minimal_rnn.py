"""minimalRNN: one gate, and content that the inputs alone decide."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.packed import lecun_normal
from rnn_dynamics.cells.update_gated import UpdateGatedCell, UpdateGatedOptions


class MinimalRNNCell(UpdateGatedCell):
    r"""minimalRNN (Chen 2017, arXiv 1711.06788), with the paper's encoder, one affine map and tanh.

    .. math::
        z_t &= \Phi(x_t) = \tanh(W_x x_t + b_z) \\
        u_t &= \sigma(U_h h_{t-1} + U_z z_t + b_u) \\
        h_t &= u_t \odot h_{t-1} + (1 - u_t) \odot z_t

    The carry is h, N = H. But for being kept it acts through u alone, so that the state Jacobian is

    .. math:: \mathrm{diag}(u_t) + \mathrm{diag}((h_{t-1} - z_t) \odot u_t \odot (1 - u_t)) \, U_h

    (Chen, Pennington and Schoenholz 2018). W_x is kernel [F, H], U_h recurrent_kernel [H, H], U_z content_kernel
    [H, H], and b_u, b_z lie side by side in bias [2H].

    Args:
        in_features: F.
        hidden_features: H.
        **options: update_bias, added to b_u, initialisers, dtypes and keys, see `UpdateGatedCell`; content_kernel is
            initialised as kernel is.

    Raises:
        ValueError: a size below 1.
    """

    gate_order = ("update", "candidate")

    def __init__(self, in_features: int, hidden_features: int, **options: Unpack[UpdateGatedOptions]):
        super().__init__(in_features, hidden_features, **options)
        kernel_init = options.get("kernel_init", lecun_normal)
        shape = (hidden_features, hidden_features)
        self.content_kernel = nnx.Param(kernel_init(options["rngs"].params(), shape, self.param_dtype))

    def block_counts(self) -> tuple[int, int, int]:
        """Return how many blocks of H columns kernel, recurrent_kernel and bias have."""
        return 1, 1, 2

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., 2H]: U_z z_t + b_u, and z_t.

        Raises:
            ValueError: inputs of the wrong width.
        """
        inputs, kernel, content_kernel = self.cast(
            self.check_inputs(inputs), self.kernel[...], self.content_kernel[...]
        )
        encoded = inputs @ kernel
        b_u, b_z = self.split(self.per_unit(self.bias, encoded))
        content = jnp.tanh(encoded + b_z)
        return jnp.concatenate([content @ content_kernel + b_u, content], axis=-1)

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates u, z under their full names, each [..., H]; z sees no state."""
        x_u, content = self.split(drive)
        return {"update": jax.nn.sigmoid(x_u + self.recur(carry)), "candidate": content}
