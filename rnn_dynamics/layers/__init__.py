"""Time: layers that scan a cell over sequences."""

from rnn_dynamics.layers.recurrence import Recurrence

__all__ = ["Recurrence"]
