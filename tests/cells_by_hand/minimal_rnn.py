"""Chen 2017, with tanh(W_x x + b_z) for Phi."""

import numpy as np

from cells_by_hand import sigmoid, values


def minimal_rnn(cell, carry, x):
    b_u, b_z = np.split(values(cell.bias), 2)
    z = np.tanh(x @ values(cell.kernel) + b_z)
    u = sigmoid(carry @ values(cell.recurrent_kernel) + z @ values(cell.content_kernel) + b_u)
    return u * carry + (1 - u) * z


BY_HAND = {"MinimalRNNCell": minimal_rnn}
