"""Kusupati et al. 2018."""

import numpy as np

from cells_by_hand import sigmoid, values


def fast_grnn(cell, carry, x):
    b_z, b_h = np.split(values(cell.bias), 2)
    zeta, nu = sigmoid(values(cell.zeta_logit)), sigmoid(values(cell.nu_logit))
    common = x @ values(cell.kernel) + carry @ values(cell.recurrent_kernel)
    z = sigmoid(common + b_z)
    return (zeta * (1 - z) + nu) * np.tanh(common + b_h) + z * carry


BY_HAND = {"FastGRNNCell": fast_grnn}
