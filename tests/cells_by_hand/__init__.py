"""One step of every cell, from its paper into float64 NumPy: one file per family, as in `rnn_dynamics.cells`.

A file's `BY_HAND` maps a cell's name to `step(cell, carry, x) -> carry`, which reads the cell's parameters and nothing
else of it.
"""

import importlib
import pkgutil

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def values(parameter):
    """A parameter as float64 NumPy."""
    return np.asarray(parameter[...], np.float64)


def blocks(cell):
    """Each gate's W_x [F, H], W_h [H, H], b [H], as float64 NumPy."""
    packed = [values(parameter) for parameter in (cell.kernel, cell.recurrent_kernel, cell.bias)]
    return zip(*[np.split(p, p.shape[-1] // cell.hidden_features, axis=-1) for p in packed], strict=True)


BY_HAND = {
    name: step
    for module in pkgutil.iter_modules(__path__, f"{__name__}.")
    for name, step in importlib.import_module(module.name).BY_HAND.items()
}
