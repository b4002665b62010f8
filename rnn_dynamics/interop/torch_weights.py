"""Recurrent networks of torch: `nn.RNN`, `nn.LSTM` and `nn.GRU` with all of their layers."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells import ElmanCell, GRUCell, LSTMCell, PackedCell
from rnn_dynamics.interop.packed_weights import PackedWeights, cell_with, checked, gru_biases
from rnn_dynamics.layers import Recurrence, Stacked


class _Mode(NamedTuple):
    """What a torch network of a mode is here; the gates have the same order in both, i f g o and r z n."""

    cell: type[PackedCell]
    options: dict[str, Any]


MODES = {
    "RNN_TANH": _Mode(ElmanCell, {"activation": "tanh"}),
    "RNN_RELU": _Mode(ElmanCell, {"activation": "relu"}),
    "LSTM": _Mode(LSTMCell, {}),
    "GRU": _Mode(GRUCell, {}),
}
"""By torch's own word for it, `module.mode`."""


def stacked_from_torch(state_dict: Mapping[str, Any], mode: str, *, prefix: str = "") -> Stacked:
    r"""Make our layers of a trained network of torch, equal to it up to rounding.

    Of layer l torch keeps weight_ih_l [G*H, F], weight_hh_l [G*H, H] and, unless made with bias=False, bias_ih_l and
    bias_hh_l [G*H], where we keep the transposed kernels and the sum of the biases. That of a GRU's candidate is not
    summed, for the reset gate weighs its second half. `batch_first` says how inputs lie and is of no concern here;
    `dropout` between layers has no weights, and what is made is the network as `module.eval()` sets it.

    Args:
        state_dict: name -> array, `module.state_dict()` or the same as NumPy arrays: torch is not imported.
        mode: `module.mode`: RNN_TANH, RNN_RELU, LSTM or GRU.
        prefix: of the names, such as "encoder.rnn.", where the network is a part of another; all others are left out.

    Returns:
        The layers, in the dtype of the weights. One dynamical system is `DrivenSystem.from_cell(stacked.as_cell())`.

    Raises:
        ValueError: an unknown mode, names or shapes that are not those of such a network, a bidirectional network, one
            with a projection (proj_size).
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    named = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    layers = _check_names(named, prefix)
    cells: list[PackedCell] = []
    for layer in range(layers):
        below = cells[-1].hidden_features if cells else None
        weights = _weights(named, layer, mode, below)
        cells.append(cell_with(MODES[mode].cell, weights, **MODES[mode].options))
    return Stacked([Recurrence(cell) for cell in cells])


def _check_names(named: Mapping[str, Any], prefix: str) -> int:
    """Return the number of layers, each of which has its two kernels and both biases or none.

    Raises:
        ValueError: other names.
    """
    for name in named:
        if name.endswith("_reverse"):
            raise ValueError(
                f"state_dict must be of a network in one direction, got {prefix}{name}; "
                "import each direction of a single layer by itself, the names of the backward one without _reverse"
            )
        if name.startswith("weight_hr"):
            raise ValueError(f"state_dict must be of an LSTM with proj_size=0, got {prefix}{name}")
        if not re.fullmatch(r"(weight|bias)_(ih|hh)_l\d+", name):
            raise ValueError(
                f"state_dict must hold nothing but weights and biases of a recurrent network, got {prefix}{name}; "
                "prefix=... picks those of a part"
            )
    layers = sum(name.startswith("weight_ih_l") for name in named)
    kinds = ("weight", "bias") if any(name.startswith("bias") for name in named) else ("weight",)
    expected = {f"{kind}_{side}_l{layer}" for kind in kinds for side in ("ih", "hh") for layer in range(layers)}
    if not named or set(named) != expected:
        raise ValueError(
            f"state_dict must hold weights, and biases or none, of every layer from 0 on, got "
            f"{', '.join(sorted(named)) or 'nothing'} under prefix {prefix!r}"
        )
    return layers


def _weights(named: Mapping[str, Any], layer: int, mode: str, below: int | None) -> PackedWeights:
    """Read a layer that reads `below` features."""

    def read(kind: str, *shape: int | None) -> Array:
        return checked(f"{kind}_l{layer} of mode {mode}", named[f"{kind}_l{layer}"], shape)

    gates = len(MODES[mode].cell.gate_order)
    hidden = read("weight_hh", None, None).shape[1]
    recurrent = read("weight_hh", gates * hidden, hidden)
    kernel = read("weight_ih", gates * hidden, below)
    if f"bias_ih_l{layer}" in named:
        biases = read("bias_ih", gates * hidden), read("bias_hh", gates * hidden)
    else:
        biases = (jnp.zeros(gates * hidden, kernel.dtype),) * 2
    bias, recurrent_bias = gru_biases(*biases) if mode == "GRU" else (biases[0] + biases[1], None)
    return PackedWeights(kernel.T, recurrent.T, bias, recurrent_bias)
