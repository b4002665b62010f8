"""Differential equations as maps: one step of an explicit Runge-Kutta method."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
from jax import Array

from rnn_dynamics.dynamics.carry_layout import CarryLayout
from rnn_dynamics.types import Carry, PyTree

Velocity: TypeAlias = Callable[[Carry], Carry]
"""carry -> its derivative by time, a pytree like it."""


def euler(velocity: Velocity, carry: Carry, dt: Array) -> Carry:
    r"""Make a step of first order: :math:`s + \Delta t\, f(s)`."""
    return _moved(carry, dt, velocity(carry))


def rk4(velocity: Velocity, carry: Carry, dt: Array) -> Carry:
    r"""Make a step of the classical method of fourth order (Kutta 1901).

    .. math::
        k_1 &= f(s), \quad k_2 = f(s + \tfrac{\Delta t}{2} k_1), \quad
        k_3 = f(s + \tfrac{\Delta t}{2} k_2), \quad k_4 = f(s + \Delta t\, k_3) \\
        s' &= s + \tfrac{\Delta t}{6} (k_1 + 2 k_2 + 2 k_3 + k_4)
    """
    first = velocity(carry)
    second = velocity(_moved(carry, dt / 2, first))
    third = velocity(_moved(carry, dt / 2, second))
    fourth = velocity(_moved(carry, dt, third))
    total = jax.tree.map(lambda a, b, c, d: a + 2 * b + 2 * c + d, first, second, third, fourth)
    return _moved(carry, dt / 6, total)


INTEGRATORS: dict[str, Callable[[Velocity, Carry, Array], Carry]] = {"euler": euler, "rk4": rk4}


def _moved(carry: Carry, by: Array, velocity: Carry) -> Carry:
    return jax.tree.map(lambda leaf, slope: leaf + by.astype(leaf.dtype) * slope, carry, velocity)


class OdeParams(NamedTuple):
    """Parameters of a system that steps along a differential equation.

    Attributes:
        rhs: those of the right-hand side.
        dt: step, in units of time.
    """

    rhs: PyTree
    dt: Any


@dataclasses.dataclass(frozen=True)
class OdeStep:
    """One step along a differential equation, its inputs held; equal for the same right-hand side and method.

    Attributes:
        rhs: (params, carry, inputs_t) -> derivative of the carry by time.
        method: one of `INTEGRATORS`.
    """

    rhs: Callable[[PyTree, Carry, Any], Carry]
    method: str
    made_by: ClassVar[str] = "from_ode"

    def __call__(self, params: OdeParams, carry: Carry, inputs_t: Any) -> Carry:
        """Make one step.

        Raises:
            ValueError: a derivative of another structure or other shapes than the carry.
        """
        layout = CarryLayout.of(carry)

        def velocity(carry: Carry) -> Carry:
            slope = self.rhs(params.rhs, carry, inputs_t)
            found = CarryLayout.of(slope)
            if found != layout:
                raise ValueError(f"rhs must return a derivative like the carry: that is {layout}, it returned {found}")
            return slope

        return INTEGRATORS[self.method](velocity, carry, params.dt)
