"""Collins, Sohl-Dickstein and Sussillo 2017."""

import numpy as np

from cells_by_hand import blocks, sigmoid


def ugrnn(cell, carry, x):
    (gx, gh, gb), (cx, ch, cb) = blocks(cell)
    g = sigmoid(carry @ gh + x @ gx + gb)
    return g * carry + (1 - g) * np.tanh(carry @ ch + x @ cx + cb)


BY_HAND = {"UGRNNCell": ugrnn}
