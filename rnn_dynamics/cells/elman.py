"""The Elman cell: the plain recurrent network."""

from collections.abc import Mapping
from typing import Unpack

from jax import Array

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class ElmanCell(PackedCell):
    r"""Elman network (Elman 1990).

    .. math:: h_t = \phi(W_x x_t + W_h h_{t-1} + b)

    with state Jacobian :math:`\mathrm{diag}(\phi'(\cdot))\, W_h`.

    With `activation="relu"` it is the IRNN (Le, Jaitly and Hinton 2015) if `recurrent_kernel_init=identity()` and
    `kernel_init=jax.nn.initializers.normal(0.001)`, and the np-RNN (Talathi and Vartak 2016) if
    `recurrent_kernel_init=positive_definite()`, see `cells.initializers`.

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi by name, see `cells.activations`.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1, an unknown activation.
    """

    gate_order = ("hidden",)
    candidates = ("hidden",)

    def __init__(
        self, in_features: int, hidden_features: int, *, activation: str = "tanh", **options: Unpack[PackedOptions]
    ):
        self.activation = find_activation(activation)
        super().__init__(in_features, hidden_features, **options)

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the one candidate, h_t [..., H], from h_{t-1} and the drive W_x x_t + b [..., H]."""
        return {"hidden": self.activation(drive + self.recur(carry))}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t: nothing but the candidate."""
        return gates["hidden"]
