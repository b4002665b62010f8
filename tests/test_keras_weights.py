"""Layers of Keras as ours: beside Keras where it is installed, and beside its documented equations everywhere."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.interop import cell_from_keras
from rnn_dynamics.interop.keras_weights import ACTIVATIONS
from rnn_dynamics.layers import Recurrence

F, H, STEPS = 2, 3, 6
INPUTS = np.random.default_rng(0).normal(size=(1, STEPS, F))
CONFIG = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "reset_after": True}
GATES = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}


def weights_of(layer, *, reset_after=True):
    generator, columns = np.random.default_rng(1), GATES[layer] * H
    bias_shape = (2, columns) if layer == "GRU" and reset_after else (columns,)
    return [generator.normal(size=shape) for shape in ((F, columns), (H, columns), bias_shape)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_step_by_hand(weights, h, x, *, reset_after):
    """Blocks z r h. With reset_after the state's map has its own bias, and the reset gate weighs both."""
    kernel, recurrent, bias = weights
    bias_x, bias_h = bias if reset_after else (bias, np.zeros_like(bias))
    x_z, x_r, x_h = np.split(x @ kernel + bias_x, 3)
    h_z, h_r, h_h = np.split(h @ recurrent + bias_h, 3)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    candidate = np.tanh(x_h + (r * h_h if reset_after else (r * h) @ recurrent[:, 2 * H :]))
    return z * h + (1 - z) * candidate


@pytest.mark.parametrize("reset_after", [True, False])
def test_both_forms_of_the_gru(reset_after):
    weights = weights_of("GRU", reset_after=reset_after)
    cell = cell_from_keras("GRU", CONFIG | {"reset_after": reset_after}, weights)
    h = np.random.default_rng(2).normal(size=H)
    expected = gru_step_by_hand(weights, h, INPUTS[0, 0], reset_after=reset_after)
    np.testing.assert_allclose(cell(jnp.asarray(h), jnp.asarray(INPUTS[0, 0]))[0], expected, rtol=0, atol=1e-14)


def test_the_lstm_has_its_gates_in_our_order():
    weights = kernel, recurrent, bias = weights_of("LSTM")
    c, h = np.random.default_rng(2).normal(size=(2, H))
    i, f, g, o = np.split(INPUTS[0, 0] @ kernel + h @ recurrent + bias, 4)
    c_after = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    cell = cell_from_keras("LSTM", CONFIG, weights)
    carry, output = cell((jnp.asarray(c), jnp.asarray(h)), jnp.asarray(INPUTS[0, 0]))
    np.testing.assert_allclose(carry[0], c_after, rtol=0, atol=1e-14)
    np.testing.assert_allclose(output, sigmoid(o) * np.tanh(c_after), rtol=0, atol=1e-14)


def case(layer, **options):
    return pytest.param(layer, options, id=" ".join([layer, *(f"{name}={value}" for name, value in options.items())]))


EVERY = [
    *(case("SimpleRNN", activation=name) for name in ACTIVATIONS),
    case("SimpleRNN", use_bias=False),
    case("LSTM"),
    case("LSTM", use_bias=False),
    case("GRU"),
    case("GRU", use_bias=False),
    case("GRU", reset_after=False),
    case("GRU", reset_after=False, use_bias=False),
]


@pytest.mark.usefixtures("allow_rank_promotion")
@pytest.mark.parametrize(("layer", "options"), EVERY)
def test_outputs_are_those_of_keras(layer, options, monkeypatch):
    """With the table emptied by which Keras 3 computes parts of layers in float64 in float32, but on TensorFlow."""
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="keras is not installed: pip install 'rnn_dynamics[frameworks]'")
    monkeypatch.setattr("keras.src.backend.common.dtypes.BIT64_TO_BIT32_DTYPE", {})
    bias = keras.initializers.RandomNormal(stddev=1.0, seed=1)
    options = options | {"return_sequences": True, "dtype": "float64", "bias_initializer": bias}
    theirs = getattr(keras.layers, layer)(H, **options)
    expected = np.asarray(theirs(INPUTS))
    cell = cell_from_keras(type(theirs).__name__, theirs.get_config(), theirs.get_weights())
    np.testing.assert_allclose(Recurrence(cell)(jnp.asarray(INPUTS))[1], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("layer", "changes", "weights", "sentence"),
    [
        ("Bidirectional", {}, [], "layer must be one of SimpleRNN, LSTM, GRU, got 'Bidirectional'"),
        ("LSTM", {"recurrent_dropout": 0.2}, [], "recurrent_dropout of config must be 0, got 0.2; set it to import"),
        ("LSTM", {"dropout": 0.2}, [], "dropout of config must be 0, got 0.2; set it to import the network as it is"),
        ("GRU", {"go_backwards": True}, [], "go_backwards of config must be False, got True; reverse the inputs"),
        ("GRU", {"activation": "relu"}, [], "activation of config must be tanh for GRU, got 'relu'"),
        ("LSTM", {"recurrent_activation": "hard_sigmoid"}, [], "must be sigmoid for LSTM, got 'hard_sigmoid'"),
        ("SimpleRNN", {"activation": "leaky_relu"}, [], "must be tanh or relu or .* for SimpleRNN, got 'leaky_relu'"),
        ("LSTM", {}, [np.zeros((2, 12))], "weights must be kernel, recurrent_kernel, bias, got 1 arrays"),
        ("LSTM", {"use_bias": False}, [], "weights must be kernel, recurrent_kernel, got 0 arrays"),
        ("LSTM", {}, weights_of("GRU"), r"kernel must be .* of shape \[any, 12\], got float64 of shape \[2, 9\]"),
        ("GRU", {"reset_after": False}, weights_of("GRU"), r"bias must be .* \[9\], got float64 of shape \[2, 9\]"),
    ],
)
def test_bad_input_gets_one_sentence(layer, changes, weights, sentence):
    with pytest.raises(ValueError, match=sentence) as failure:
        cell_from_keras(layer, CONFIG | changes, weights)
    assert "\n" not in str(failure.value)
