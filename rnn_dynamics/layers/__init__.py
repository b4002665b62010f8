"""Time: layers that scan a cell over sequences."""

from rnn_dynamics.layers.bidirectional import Bidirectional
from rnn_dynamics.layers.recurrence import Recurrence
from rnn_dynamics.layers.stacked import Stacked

__all__ = ["Bidirectional", "Recurrence", "Stacked"]
