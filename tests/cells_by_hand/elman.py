"""Elman 1990."""

import numpy as np

from cells_by_hand import blocks


def elman(cell, carry, x):
    ((wx, wh, b),) = blocks(cell)
    return np.tanh(x @ wx + carry @ wh + b)


BY_HAND = {"ElmanCell": elman}
