"""Rusch, Mishra, Erichson and Mahoney 2022."""

import numpy as np

from cells_by_hand import blocks, sigmoid, values


def lem(cell, carry, u):
    z, y = carry
    (v1, w1, b1), (v2, w2, b2), (vz, wz, bz), (vy, wy, by) = blocks(cell)
    dt = values(cell.step) * sigmoid(y @ w1 + u @ v1 + b1)
    dt_bar = values(cell.step) * sigmoid(y @ w2 + u @ v2 + b2)
    z = z - dt * z + dt * np.tanh(y @ wz + u @ vz + bz)
    y = y - dt_bar * y + dt_bar * np.tanh(z @ wy + u @ vy + by)
    return z, y


BY_HAND = {"LEMCell": lem}
