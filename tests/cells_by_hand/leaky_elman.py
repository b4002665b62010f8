"""Jaeger, Lukoševičius, Popovici and Siewert 2007: their leak is the step delta."""

import numpy as np

from cells_by_hand import blocks, values


def leaky_elman(cell, carry, x):
    ((wx, wh, b),) = blocks(cell)
    velocity = -carry + np.tanh(x @ wx + carry @ wh + b)
    return carry + values(cell.step) * velocity


BY_HAND = {"LeakyElmanCell": leaky_elman}
