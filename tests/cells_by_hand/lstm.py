"""Gers, Schmidhuber and Cummins 2000."""

import numpy as np

from cells_by_hand import blocks, sigmoid


def lstm(cell, carry, x):
    c, h = carry
    i, f, g, o = [x @ wx + h @ wh + b for wx, wh, b in blocks(cell)]
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


BY_HAND = {"LSTMCell": lstm}
