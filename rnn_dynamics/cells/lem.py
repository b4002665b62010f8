"""Long expressive memory: two states, each with a step size that the network learns."""

from collections.abc import Mapping
from typing import ClassVar, Unpack

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.packed import PackedCell, PackedOptions


class LEMCell(PackedCell):
    r"""LEM (Rusch, Mishra, Erichson and Mahoney 2022).

    .. math::
        \Delta t_n &= \Delta t\, \sigma(W_1 y_{n-1} + V_1 u_n + b_1) \\
        \overline{\Delta t}_n &= \Delta t\, \sigma(W_2 y_{n-1} + V_2 u_n + b_2) \\
        z_n &= (1 - \Delta t_n) \odot z_{n-1} + \Delta t_n \odot \tanh(W_z y_{n-1} + V_z u_n + b_z) \\
        y_n &= (1 - \overline{\Delta t}_n) \odot y_{n-1} + \overline{\Delta t}_n \odot \tanh(W_y z_n + V_y u_n + b_y)

    The candidate of y reads the new z. The gates are the values of the two sigmoids. The carry is (z, y), so the state
    has N = 2H entries, and the output is y. Without weights the exponents are
    :math:`\ln(1 - \Delta t\, \sigma(b_1))` and :math:`\ln(1 - \Delta t\, \sigma(b_2))`.

    Args:
        in_features: F.
        hidden_features: H.
        step: Delta t, 0 < Delta t <= 1, the longest step, a number or one per unit [H]; not trained, and `vmap` can
            carry it.
        **options: initialisers, dtypes and keys, see `PackedCell`.

    Raises:
        ValueError: a size below 1, a step outside (0, 1].
    """

    gate_order = ("z_step", "y_step", "z_candidate", "y_candidate")
    candidates = ("z_candidate", "y_candidate")
    carry_structure: ClassVar[tuple[int, int]] = (0, 0)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        step: float | Array = 1.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        self.step = self.setting("step", step, "in (0, 1]", lambda value: (value > 0) & (value <= 1))

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return both sigmoids and both candidates, each [..., H]; that of y reads z_n, and so two other gates."""
        z, y = self.cast(*carry)
        z_drive, y_drive = jnp.split(drive, [3 * self.hidden_features], axis=-1)
        step_1, step_2, content = self.split(z_drive + self.recur(y, *self.gate_order[:3]))
        z_step = given.get("z_step", jax.nn.sigmoid(step_1))
        z_candidate = given.get("z_candidate", jnp.tanh(content))
        new_z = self.moved(z, z_step, z_candidate)
        return {
            "z_step": z_step,
            "y_step": jax.nn.sigmoid(step_2),
            "z_candidate": z_candidate,
            "y_candidate": jnp.tanh(y_drive + self.recur(new_z, "y_candidate")),
        }

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (z_n, y_n) from (z_{n-1}, y_{n-1}) and the gates."""
        z, y = carry
        return (
            self.moved(z, gates["z_step"], gates["z_candidate"]),
            self.moved(y, gates["y_step"], gates["y_candidate"]),
        )

    def moved(self, state: Array, fraction: Array, candidate: Array) -> Array:
        """Return a state [..., H] after its own part of the longest step towards its candidate."""
        step = self.per_unit(self.step, state) * fraction
        return (1 - step) * state + step * candidate
