"""Zhou, Wu, Zhang and Zhou 2016."""

import numpy as np

from cells_by_hand import blocks, sigmoid


def mgu(cell, carry, x):
    (fx, fh, fb), (nx, nh, nb) = blocks(cell)
    f = sigmoid(carry @ fh + x @ fx + fb)
    return (1 - f) * carry + f * np.tanh((f * carry) @ nh + x @ nx + nb)


BY_HAND = {"MGUCell": mgu}
