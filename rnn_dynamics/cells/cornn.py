"""The coupled oscillatory network: every unit is a damped oscillator that the others and the input push."""

from collections.abc import Mapping
from typing import ClassVar, Unpack

import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.packed import PackedCell, PackedOptions, orthogonal


class CoRNNCell(PackedCell):
    r"""coRNN (Rusch and Mishra 2021), with the damping taken from the velocity before the step.

    .. math::
        z_n &= z_{n-1} + \Delta t \bigl(\tanh(W y_{n-1} + \mathcal{W} z_{n-1} + V u_n + b)
               - \gamma y_{n-1} - \epsilon z_{n-1}\bigr) \\
        y_n &= y_{n-1} + \Delta t\, z_n

    The paper allows both that the damping reads :math:`z_{n-1}`, as here and in the authors' code, and that it reads
    :math:`z_n`: that is `ImplicitCoRNNCell`. The carry is (z, y), so the state has N = 2H entries, and the output is y.

    Without weights every unit is the map of an oscillator, of determinant :math:`1 - \Delta t\, \epsilon` and trace
    :math:`2 - \Delta t\, \epsilon - \Delta t^2 \gamma`.

    Args:
        in_features: F.
        hidden_features: H.
        step: Delta t > 0, a number or one per unit [H]; not trained, and `vmap` can carry it.
        stiffness: gamma >= 0, the square of the oscillators' frequency, likewise.
        damping: epsilon >= 0, likewise.
        **options: initialisers, dtypes and keys, see `PackedCell`; recurrent_kernel_init is that of both W, which is
            `recurrent_kernel`, and the calligraphic W, `velocity_kernel`.

    Raises:
        ValueError: a size below 1, a step <= 0, a stiffness or damping < 0.
    """

    gate_order = ("force",)
    candidates = ("force",)
    carry_structure: ClassVar[tuple[int, int]] = (0, 0)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        step: float | Array = 0.05,
        stiffness: float | Array = 1.0,
        damping: float | Array = 1.0,
        **options: Unpack[PackedOptions],
    ):
        super().__init__(in_features, hidden_features, **options)
        draw = options.get("recurrent_kernel_init", orthogonal)
        self.velocity_kernel = nnx.Param(draw(options["rngs"].params(), self.recurrent_shape, self.param_dtype))
        self.step = self.setting("step", step, "> 0", lambda value: value > 0)
        self.stiffness = self.setting("stiffness", stiffness, ">= 0", lambda value: value >= 0)
        self.damping = self.setting("damping", damping, ">= 0", lambda value: value >= 0)

    def gates_from_drive(
        self, carry: tuple[Array, Array], drive: Array, given: Mapping[str, Array] = NONE_GIVEN
    ) -> dict[str, Array]:
        """Return the one candidate, the force tanh(...) [..., H], from (z, y) and the drive V u_n + b [..., H]."""
        z, y = self.cast(*carry)
        return {"force": jnp.tanh(drive + self.recur(y) + z @ self.velocity_kernel[...].astype(self.dtype))}

    def combine(self, carry: tuple[Array, Array], gates: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return (z_n, y_n) from (z_{n-1}, y_{n-1}) and the force."""
        z, y = carry
        step = self.per_unit(self.step, y)
        z = self.velocity(z, step * (gates["force"] - self.per_unit(self.stiffness, y) * y), step)
        return z, y + step * z

    def velocity(self, z: Array, push: Array, step: Array) -> Array:
        """Return z_n, the damping taken from z_{n-1}.

        Args:
            z: z_{n-1}, [..., H].
            push: what the velocity gains in this step if there is no damping, [..., H].
            step: Delta t, [1, ..., 1 or H].

        Returns:
            The velocity after the step, [..., H].
        """
        return z + push - step * self.per_unit(self.damping, z) * z


class ImplicitCoRNNCell(CoRNNCell):
    r"""coRNN whose damping is taken from the velocity after the step (Rusch and Mishra 2021).

    .. math::
        z_n &= z_{n-1} + \Delta t \bigl(\tanh(W y_{n-1} + \mathcal{W} z_{n-1} + V u_n + b)
               - \gamma y_{n-1} - \epsilon z_n\bigr) \\
        y_n &= y_{n-1} + \Delta t\, z_n

    Strong damping does not make it unstable. Without weights every unit's map has determinant
    :math:`1 / (1 + \Delta t\, \epsilon)`. The arguments are those of `CoRNNCell`, and so is the carry.
    """

    def velocity(self, z: Array, push: Array, step: Array) -> Array:
        """Return z_n, the damping taken from z_n itself: the equation is linear in it."""
        return (z + push) / (1 + step * self.per_unit(self.damping, z))
