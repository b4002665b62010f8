"""Li, Li, Cook, Zhu and Gao 2018."""

import numpy as np

from cells_by_hand import values


def indrnn(cell, carry, x):
    u = values(cell.recurrent_kernel).ravel()
    return np.maximum(x @ values(cell.kernel) + u * carry + values(cell.bias), 0)


BY_HAND = {"IndRNNCell": indrnn}
