"""The leaky Elman cell: a continuous-time rate network in Euler steps."""

from collections.abc import Mapping
from typing import Unpack

from jax import Array

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class LeakyElmanCell(PackedCell):
    r"""Leaky Elman network (Jaeger, Lukoševičius, Popovici and Siewert 2007, with their leaking rate a = 1).

    .. math:: h_t = (1 - \delta)\, h_{t-1} + \delta\, \phi(W_x x_t + W_h h_{t-1} + b)

    It is one Euler step of size :math:`\delta`, in units of the time constant, of the rate network
    :math:`\dot h = -h + \phi(W_x x + W_h h + b)`, and at :math:`\delta = 1` the Elman network. The state Jacobian is
    :math:`(1 - \delta) I + \delta\, \mathrm{diag}(\phi'(\cdot))\, W_h`; exponents in nats per time constant are those
    per step over :math:`\delta`.

    Args:
        in_features: F.
        hidden_features: H.
        activation: phi by name, see `cells.activations`.
        step: delta, 0 < delta <= 1, a number or one per unit [H]; not trained, and `vmap` can carry it.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1, an unknown activation, a step outside (0, 1].
    """

    gate_order = ("hidden",)
    candidates = ("hidden",)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str = "tanh",
        step: float | Array = 0.1,
        **options: Unpack[PackedOptions],
    ):
        self.activation = find_activation(activation)
        super().__init__(in_features, hidden_features, **options)
        self.step = self.setting("step", step, "in (0, 1]", lambda value: (value > 0) & (value <= 1))

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the one candidate, phi(...) [..., H], from h_{t-1} and the drive W_x x_t + b [..., H]."""
        return {"hidden": self.activation(drive + self.recur(carry))}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the candidate."""
        step = self.per_unit(self.step, carry)
        return (1 - step) * carry + step * gates["hidden"]
