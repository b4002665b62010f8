"""Euler steps of a network whose recurrent matrix is antisymmetric, so that its flow neither grows nor shrinks."""

from collections.abc import Mapping
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.constrained import ConstrainedCell, skew
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.cells.packed import PackedOptions


class AntisymmetricCell(ConstrainedCell):
    r"""AntisymmetricRNN (Chang, Chen, Haber and Chi 2019).

    .. math:: h_t = h_{t-1} + \varepsilon \tanh\bigl((W - W^\top - \gamma I)\, h_{t-1} + V x_t + b\bigr)

    It is the Euler step of :math:`\dot h = \tanh(\cdot)`. As in the paper, W has its strict upper triangle alone. At
    rest, without input and bias, the Jacobian is normal, and an eigenvalue :math:`i\omega` of :math:`W - W^\top` gives
    the exponent :math:`\frac{1}{2} \ln((1 - \varepsilon\gamma)^2 + \varepsilon^2 \omega^2)`: without damping Euler's
    steps let rotations grow. The carry is h, so N = H.

    Args:
        in_features: F.
        hidden_features: H.
        step: epsilon > 0, a number or one per unit [H]; not trained, and `vmap` can carry it.
        damping: gamma >= 0, likewise.
        **options: initialisers, dtypes and keys, see `PackedCell`; recurrent_kernel_init is that of W, N(0, 1/H) if
            not given.

    Raises:
        ValueError: a size below 1, a step <= 0, a damping < 0.
    """

    gate_order = ("candidate",)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        step: float | Array = 0.1,
        damping: float | Array = 0.01,
        **options: Unpack[PackedOptions],
    ):
        options.setdefault("recurrent_kernel_init", gaussian())
        super().__init__(in_features, hidden_features, **options)
        self.step = self.setting("step", step, "> 0", lambda value: value > 0)
        self.damping = self.setting("damping", damping, ">= 0", lambda value: value >= 0)

    def recurrent_matrix(self, free: Array) -> Array:
        """Return W - W^T; damping is left to `recur`, for a setting may change in an evaluated cell."""
        return skew(free)

    def recur(self, hidden: Array, *gates: str) -> Array:
        """Map the hidden state [..., H] to (W - W^T - gamma I) h [..., H]."""
        return super().recur(hidden, *gates) - self.per_unit(self.damping, hidden) * hidden

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the one candidate, tanh(...) [..., H], from h_{t-1} and the drive V x_t + b [..., H]."""
        return {"candidate": jnp.tanh(drive + self.recur(carry))}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the candidate."""
        return carry + self.per_unit(self.step, carry) * gates["candidate"]


class GatedAntisymmetricCell(AntisymmetricCell):
    r"""AntisymmetricRNN with an input gate (Chang, Chen, Haber and Chi 2019).

    .. math::
        z_t &= \sigma\bigl((W - W^\top - \gamma I)\, h_{t-1} + V_z x_t + b_z\bigr) \\
        h_t &= h_{t-1} + \varepsilon\, z_t \odot \tanh\bigl((W - W^\top - \gamma I)\, h_{t-1} + V_h x_t + b_h\bigr)

    Gate and candidate share one matrix. The arguments are those of `AntisymmetricCell`, and so is the carry.
    """

    gate_order = ("input", "candidate")

    def gates_from_drive(self, carry: Array, drive: Array, given: Mapping[str, Array] = NONE_GIVEN) -> dict[str, Array]:
        """Return the gate z_t and the candidate, each [..., H]."""
        z, v = self.split(drive)
        recurrent = self.recur(carry)
        return {"input": jax.nn.sigmoid(z + recurrent), "candidate": jnp.tanh(v + recurrent)}

    def combine(self, carry: Array, gates: Mapping[str, Array]) -> Array:
        """Return h_t from h_{t-1} [..., H] and the gates."""
        return carry + self.per_unit(self.step, carry) * gates["input"] * gates["candidate"]
