"""Orvieto et al. 2023; Feng et al. 2024."""

import numpy as np

from cells_by_hand import sigmoid, values


def lru(cell, carry, x):
    """x_k = Lambda x_{k-1} + exp(gamma_log) * (B u_k)."""
    eigenvalues = np.exp(-np.exp(values(cell.nu_log))) * (
        np.cos(np.exp(values(cell.theta_log))) + 1j * np.sin(np.exp(values(cell.theta_log)))
    )
    b = values(cell.B_re) + 1j * values(cell.B_im)
    return carry @ np.diag(eigenvalues) + x @ (b @ np.diag(np.exp(values(cell.gamma_log))))


def affine(cell, x, gates):
    return [
        x @ w + b
        for w, b in zip(
            np.split(values(cell.maps.kernel), gates, axis=1), np.split(values(cell.maps.bias), gates), strict=True
        )
    ]


def min_gru(cell, carry, x):
    z, candidate = affine(cell, x, 2)
    return (1 - sigmoid(z)) * carry + sigmoid(z) * candidate


def min_lstm(cell, carry, x):
    f, i, candidate = affine(cell, x, 3)
    f, i = sigmoid(f), sigmoid(i)
    return f / (f + i) * carry + i / (f + i) * candidate


BY_HAND = {"LRUCell": lru, "MinGRUCell": min_gru, "MinLSTMCell": min_lstm}
