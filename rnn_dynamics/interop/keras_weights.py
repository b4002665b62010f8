"""Recurrent layers of Keras: `SimpleRNN`, `LSTM` and `GRU`."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells import ElmanCell, GRUCell, LSTMCell, PackedCell
from rnn_dynamics.cells.gru import ChoGRUCell
from rnn_dynamics.interop.packed_weights import PackedWeights, cell_with, checked, gru_biases

GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}
"""How many each layer has."""

ACTIVATIONS = {
    "tanh": "tanh",
    "relu": "relu",
    "sigmoid": "sigmoid",
    "linear": "identity",
    "softplus": "softplus",
    "softsign": "softsign",
    "elu": "elu",
    "selu": "selu",
}
"""Keras' names of a SimpleRNN's activations, and ours of the same functions."""

GATE_ACTIVATIONS = {"activation": ("tanh",), "recurrent_activation": ("sigmoid",)}
"""All that an LSTM or a GRU may have."""

NOT_HERE = {
    "go_backwards": (False, "reverse the inputs and set it to import the network"),
    "dropout": (0, "set it to import the network as it is when it does not train"),
    "recurrent_dropout": (0, "set it to import the network as it is when it does not train"),
}
"""Options without counterpart: what they must be, and what can be done about it."""


def cell_from_keras(layer: str, config: Mapping[str, Any], weights: Sequence[Any]) -> PackedCell:
    """Make our cell of a trained recurrent layer of Keras, equal to it up to rounding.

    Keras keeps kernel [F, G*H], recurrent_kernel [H, G*H] and, with use_bias, bias [G*H], the gates of an LSTM in our
    order i f g o (c for g) and those of a GRU as z r n (h for n). With `reset_after`, its default, a GRU has two biases
    [2, 3*H] and is a `GRUCell`, without it is a `ChoGRUCell`.

    Args:
        layer: name of its class, `type(layer).__name__`: SimpleRNN, LSTM or GRU.
        config: `layer.get_config()`; of all that it holds, what the dynamics depend on is read.
        weights: `layer.get_weights()`, NumPy arrays; Keras is not imported.

    Returns:
        The cell, in the dtype of the weights; `Stacked([Recurrence(cell), ...])` makes layers of several.

    Raises:
        ValueError: another layer, an activation that our cell does not have, dropout, go_backwards, arrays of another
            number or shape.
    """
    if layer not in GATES:
        raise ValueError(f"layer must be one of {', '.join(GATES)}, got {layer!r}")
    _check_options(layer, config)
    resets_after = layer == "GRU" and config.get("reset_after", True)
    packed = _read(layer, weights, with_bias=config.get("use_bias", True), bias_rows=(2,) if resets_after else ())
    if layer == "SimpleRNN":
        return cell_with(ElmanCell, packed, activation=ACTIVATIONS[config["activation"]])
    if layer == "LSTM":
        return cell_with(LSTMCell, packed)
    kernel, recurrent_kernel, bias = map(_reset_first, packed[:3])
    if resets_after:
        return cell_with(GRUCell, PackedWeights(kernel, recurrent_kernel, *gru_biases(*bias)))
    return cell_with(ChoGRUCell, PackedWeights(kernel, recurrent_kernel, bias))


def _read(layer: str, weights: Sequence[Any], *, with_bias: bool, bias_rows: tuple[int, ...]) -> PackedWeights:
    """Check kernels and bias, zeros where there is none, and leave them as Keras packs them.

    Raises:
        ValueError: another number of arrays, other shapes.
    """
    names = ("kernel", "recurrent_kernel", "bias")[: 2 + with_bias]
    if len(weights) != len(names):
        raise ValueError(f"weights must be {', '.join(names)}, got {len(weights)} arrays")
    hidden = checked("recurrent_kernel", weights[1], (None, None)).shape[0]
    columns = GATES[layer] * hidden
    kernel = checked("kernel", weights[0], (None, columns))
    recurrent_kernel = checked("recurrent_kernel", weights[1], (hidden, columns))
    bias_shape = (*bias_rows, columns)
    bias = checked("bias", weights[2], bias_shape) if with_bias else jnp.zeros(bias_shape, kernel.dtype)
    return PackedWeights(kernel, recurrent_kernel, bias)


def _check_options(layer: str, config: Mapping[str, Any]) -> None:
    for option, (allowed, advice) in NOT_HERE.items():
        if config.get(option, allowed) != allowed:
            raise ValueError(f"{option} of config must be {allowed}, got {config[option]}; {advice}")
    activations = {"activation": tuple(ACTIVATIONS)} if layer == "SimpleRNN" else GATE_ACTIVATIONS
    for option, allowed in activations.items():
        if config.get(option) not in allowed:
            raise ValueError(
                f"{option} of config must be {' or '.join(allowed)} for {layer}, got {config.get(option)!r}"
            )


def _reset_first(packed: Array) -> Array:
    """Bring the blocks z r n [..., 3*H] into the order r z n."""
    update, reset, candidate = jnp.split(packed, 3, axis=-1)
    return jnp.concatenate([reset, update, candidate], axis=-1)
