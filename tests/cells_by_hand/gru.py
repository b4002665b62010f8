"""Cho et al. 2014: in the form of cuDNN, and as published."""

import numpy as np

from cells_by_hand import blocks, sigmoid, values


def gru(cell, carry, x):
    (rx, rh, rb), (zx, zh, zb), (nx, nh, nb) = blocks(cell)
    r, z = sigmoid(x @ rx + carry @ rh + rb), sigmoid(x @ zx + carry @ zh + zb)
    n = np.tanh(x @ nx + nb + r * (carry @ nh + values(cell.recurrent_bias)))
    return (1 - z) * n + z * carry


def published_gru(cell, carry, x):
    (rx, rh, rb), (zx, zh, zb), (nx, nh, nb) = blocks(cell)
    r, z = sigmoid(x @ rx + carry @ rh + rb), sigmoid(x @ zx + carry @ zh + zb)
    return z * carry + (1 - z) * np.tanh(x @ nx + (r * carry) @ nh + nb)


BY_HAND = {"GRUCell": gru, "ChoGRUCell": published_gru}
