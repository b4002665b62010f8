"""Lezcano-Casado and Martinez-Rubio 2019; Helfrich, Willmott and Ye 2018. W acts on columns."""

import numpy as np
import scipy.linalg

from cells_by_hand import values


def skew_matrix(cell):
    free, size = values(cell.recurrent_kernel), cell.hidden_features
    a = np.zeros((size, size))
    for i in range(size):
        for j in range(i + 1, size):
            a[i, j], a[j, i] = free[i, j], -free[i, j]
    return a


def exponential(cell):
    """By eigenvectors: a skew matrix is normal."""
    eigenvalues, vectors = np.linalg.eigh(1j * skew_matrix(cell))
    return (vectors @ np.diag(np.exp(-1j * eigenvalues)) @ vectors.conj().T).real


def scaled_cayley(cell):
    a, one = skew_matrix(cell), np.eye(cell.hidden_features)
    return scipy.linalg.inv(one + a) @ (one - a) @ np.diag(values(cell.signs))


def modrelu_step(matrix):
    def step(cell, carry, x):
        z = x @ values(cell.kernel) + carry @ matrix(cell).T
        return np.sign(z) * np.maximum(np.abs(z) + values(cell.bias), 0)

    return step


BY_HAND = {"ExpRNNCell": modrelu_step(exponential), "ScoRNNCell": modrelu_step(scaled_cayley)}
