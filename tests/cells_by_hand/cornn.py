"""Rusch and Mishra 2021, the damping from the velocity before or after the step."""

import numpy as np

from cells_by_hand import values


def numbers(cell):
    return values(cell.step), values(cell.stiffness), values(cell.damping)


def without_damping(cell, carry, u):
    z, y = carry
    dt, gamma, _ = numbers(cell)
    inside = y @ values(cell.recurrent_kernel) + z @ values(cell.velocity_kernel)
    inside = inside + u @ values(cell.kernel) + values(cell.bias)
    return z + dt * np.tanh(inside) - dt * gamma * y


def explicit(cell, carry, u):
    (z, y), (dt, _, epsilon) = carry, numbers(cell)
    new_z = without_damping(cell, carry, u) - dt * epsilon * z
    return new_z, y + dt * new_z


def implicit(cell, carry, u):
    """z_n solves z_n + dt * epsilon * z_n = ..."""
    (_, y), (dt, _, epsilon) = carry, numbers(cell)
    new_z = without_damping(cell, carry, u) / (1 + dt * epsilon)
    return new_z, y + dt * new_z


BY_HAND = {"CoRNNCell": explicit, "ImplicitCoRNNCell": implicit}
