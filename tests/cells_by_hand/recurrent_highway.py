"""Zilly et al. 2017, with coupled gates."""

import numpy as np

from cells_by_hand import sigmoid, values


def recurrent_highway(cell, carry, x):
    hidden = carry.shape[-1]
    w_h, w_t = np.split(values(cell.kernel), 2, axis=1)
    r, b = values(cell.recurrent_kernel), values(cell.bias)
    s = carry
    for layer in range(len(b) // (2 * hidden)):
        of_h, of_t = (slice(k * hidden, (k + 1) * hidden) for k in (2 * layer, 2 * layer + 1))
        first = 1.0 if layer == 0 else 0.0
        h = np.tanh(first * (x @ w_h) + s @ r[:, of_h] + b[of_h])
        t = sigmoid(first * (x @ w_t) + s @ r[:, of_t] + b[of_t])
        s = h * t + s * (1 - t)
    return s


BY_HAND = {"RecurrentHighwayCell": recurrent_highway}
