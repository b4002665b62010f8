"""The Elman cell: the plain recurrent network."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax.nnx import rnglib
from jax import Array

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import DEFAULT_KERNEL_INIT, DEFAULT_RECURRENT_KERNEL_INIT, NONE_GIVEN, Cell, zeros
from rnn_dynamics.types import Initializer


class ElmanCell(Cell):
    r"""Elman network (Elman 1990).

    .. math:: h_t = \phi(W_x x_t + W_h h_{t-1} + b)

    with state Jacobian :math:`\mathrm{diag}(\phi'(\cdot))\, W_h`.

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi by name, see `cells.activations`.
        kernel_init: initialiser of W_x, [F, H].
        recurrent_kernel_init: initialiser of W_h, [H, H].
        bias_init: initialiser of b, [H].
        dtype: of the computation (default: param_dtype).
        param_dtype: of the parameters.
        rngs: keys for the initialisers.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    gate_order = ("hidden",)
    candidates = ("hidden",)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str = "tanh",
        kernel_init: Initializer = DEFAULT_KERNEL_INIT,
        recurrent_kernel_init: Initializer = DEFAULT_RECURRENT_KERNEL_INIT,
        bias_init: Initializer = zeros,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: rnglib.Rngs,
    ):
        self.activation = find_activation(activation)
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

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the one candidate, h_t [..., H], from h_{t-1} and the drive W_x x_t + b [..., H]."""
        return {"hidden": self.activation(drive + self.recur(carry))}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (h_t, h_t): nothing but the candidate."""
        return gates["hidden"], gates["hidden"]
