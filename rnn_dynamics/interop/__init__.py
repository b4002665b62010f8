"""Networks trained elsewhere as ours: from plain arrays, so that no other framework need be installed."""

from rnn_dynamics.interop.keras_weights import cell_from_keras
from rnn_dynamics.interop.torch_weights import stacked_from_torch

__all__ = ["cell_from_keras", "stacked_from_torch"]
