"""Koutnik, Greff, Gomez and Schmidhuber 2014, module by module and example by example."""

import math

import numpy as np

from cells_by_hand import values


def clockwork(cell, carry, x):
    clocks, h = carry
    wx, wh, b = values(cell.kernel), values(cell.recurrent_kernel), values(cell.bias)
    modules = np.array_split(np.arange(h.shape[-1]), len(cell.periods))
    new = h.copy()
    for example, clock in enumerate(clocks[:, 0]):
        for number, (period, units) in enumerate(zip(cell.periods, modules, strict=True)):
            if round(float(clock)) % period != 0:
                continue
            heard = np.concatenate(modules[number:])
            total = x[example] @ wx[:, units] + h[example, heard] @ wh[np.ix_(heard, units)] + b[units]
            new[example, units] = np.tanh(total)
    return (np.rint(clocks) + 1) % math.lcm(*cell.periods), new


BY_HAND = {"ClockworkCell": clockwork}
