"""Chang, Chen, Haber and Chi 2019; W has its strict upper triangle alone and acts on columns."""

import numpy as np

from cells_by_hand import sigmoid, values


def recurrent(cell, h):
    w = np.triu(values(cell.recurrent_kernel), 1)
    matrix = w - w.T - values(cell.damping) * np.eye(cell.hidden_features)
    return np.einsum("ij,bj->bi", matrix, h)


def antisymmetric(cell, carry, x):
    inside = recurrent(cell, carry) + x @ values(cell.kernel) + values(cell.bias)
    return carry + values(cell.step) * np.tanh(inside)


def gated(cell, carry, x):
    v_z, v_h = np.split(values(cell.kernel), 2, axis=1)
    b_z, b_h = np.split(values(cell.bias), 2)
    z = sigmoid(recurrent(cell, carry) + x @ v_z + b_z)
    return carry + values(cell.step) * z * np.tanh(recurrent(cell, carry) + x @ v_h + b_h)


BY_HAND = {"AntisymmetricCell": antisymmetric, "GatedAntisymmetricCell": gated}
