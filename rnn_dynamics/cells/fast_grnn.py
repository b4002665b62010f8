"""FastGRNN: a gate and a candidate that share their weights."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.update_gated import UpdateGatedCell, UpdateGatedOptions


class FastGRNNCell(UpdateGatedCell):
    r"""FastGRNN with full-rank weights (Kusupati et al. 2018).

    .. math::
        z_t &= \sigma(W x_t + U h_{t-1} + b_z) \\
        n_t &= \tanh(W x_t + U h_{t-1} + b_h) \\
        h_t &= (\zeta (1 - z_t) + \nu) \odot n_t + z_t \odot h_{t-1}

    with trained scalars :math:`\zeta, \nu` in (0, 1), sigmoids of zeta_logit and nu_logit. The carry is h, N = H. W is
    kernel [F, H], U recurrent_kernel [H, H], and b_z, b_h lie side by side in bias [2H].

    Args:
        in_features: F.
        hidden_features: H.
        zeta_logit: where zeta starts; a number, or one per unit.
        nu_logit: where nu starts; a number, or one per unit. Both defaults are those of the authors' code.
        **options: update_bias, initialisers, dtypes and keys, see `UpdateGatedCell`.

    Raises:
        ValueError: a size below 1, a zeta_logit or nu_logit that is not finite.
    """

    gate_order = ("update", "candidate")

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        zeta_logit: float | Array = 1.0,
        nu_logit: float | Array = -4.0,
        **options: Unpack[UpdateGatedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.zeta_logit = nnx.Param(self.setting("zeta_logit", zeta_logit, "finite", np.isfinite)[...])
        self.nu_logit = nnx.Param(self.setting("nu_logit", nu_logit, "finite", np.isfinite)[...])

    def block_counts(self) -> tuple[int, int, int]:
        """Return how many blocks of H columns kernel, recurrent_kernel and bias have."""
        return 1, 1, 2

    def project(self, inputs: Array) -> Array:
        """Map inputs [..., F] to the drive [..., H] = inputs @ kernel, that of both gates.

        Raises:
            ValueError: inputs of the wrong width.
        """
        return self.check_inputs(inputs) @ self.kernel[...].astype(self.dtype)

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gates z, n under their full names, each [..., H]."""
        shared = drive + self.recur(carry)
        b_z, b_h = self.split(self.per_unit(self.bias, shared))
        return {"update": jax.nn.sigmoid(shared + b_z), "candidate": jnp.tanh(shared + b_h)}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the gates."""
        zeta, nu = (jax.nn.sigmoid(self.per_unit(logit, carry)) for logit in (self.zeta_logit, self.nu_logit))
        return (zeta * (1 - gates["update"]) + nu) * gates["candidate"] + gates["update"] * carry
