"""Networks of torch as ours: beside torch where it is installed, and beside its documented equations everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import slow_but

from rnn_dynamics.dynamics import DrivenSystem, trajectory
from rnn_dynamics.interop import stacked_from_torch
from rnn_dynamics.interop.torch_weights import MODES

F, H, STEPS = 2, 3, 6
INPUTS = np.random.default_rng(0).normal(size=(1, STEPS, F))
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


def state_dict(mode, *, bias=True, layers=2):
    """Names and shapes of torch's documentation, drawn so that the gates are far from saturated and from linear."""
    generator, rows = np.random.default_rng(1), GATES[mode] * H
    named = {}
    for layer in range(layers):
        named[f"weight_ih_l{layer}"] = generator.normal(size=(rows, H if layer else F))
        named[f"weight_hh_l{layer}"] = generator.normal(size=(rows, H))
        if bias:
            named[f"bias_ih_l{layer}"], named[f"bias_hh_l{layer}"] = generator.normal(size=(2, rows))
    return named


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step_by_hand(mode, state, from_x, from_h):
    """The equations of torch's documentation: preactivations of inputs and state, each with its bias -> (h, c)."""
    h, c = state
    if mode.startswith("RNN"):
        total = from_x + from_h
        return (np.tanh(total) if mode == "RNN_TANH" else np.maximum(total, 0)), c
    if mode == "LSTM":
        i, f, g, o = np.split(from_x + from_h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(from_x, 3), np.split(from_h, 3)
    z = sigmoid(x_z + h_z)
    return (1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * h, c


def outputs_by_hand(mode, named):
    rows = INPUTS[0]
    for layer in range(2):
        state, outputs = (np.zeros(H), np.zeros(H)), []
        for row in rows:
            bias_x, bias_h = (named.get(f"bias_{side}_l{layer}", 0) for side in ("ih", "hh"))
            from_x, from_h = named[f"weight_ih_l{layer}"] @ row, named[f"weight_hh_l{layer}"] @ state[0]
            state = step_by_hand(mode, state, from_x + bias_x, from_h + bias_h)
            outputs.append(state[0])
        rows = outputs
    return np.stack(rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_both_layers_compute_the_documented_equations(mode, bias):
    """As layers, and as one system whose state ends with the topmost h."""
    named = state_dict(mode, bias=bias)
    layers = stacked_from_torch({f"encoder.{name}": value for name, value in named.items()}, mode, prefix="encoder.")
    states = trajectory(DrivenSystem.from_cell(layers.as_cell()), INPUTS[0])
    np.testing.assert_allclose(states[:, -H:], outputs_by_hand(mode, named), rtol=0, atol=1e-14)


@pytest.mark.parametrize("bias", slow_but([True], [True, False]))
@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients_are_torchs(mode, bias):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'rnn_dynamics[frameworks]'")
    torch.manual_seed(0)
    family, _, nonlinearity = mode.partition("_")
    options = {"nonlinearity": nonlinearity.lower()} if nonlinearity else {}
    network = getattr(torch.nn, family)(F, H, num_layers=2, bias=bias, batch_first=True, dtype=torch.float64, **options)
    assert network.mode == mode
    inputs = torch.tensor(INPUTS, requires_grad=True)
    theirs, _ = network(inputs)
    theirs.square().sum().backward()
    layers = stacked_from_torch(network.state_dict(), network.mode)
    np.testing.assert_allclose(layers(jnp.asarray(INPUTS))[1], theirs.detach().numpy(), rtol=0, atol=1e-14)
    gradient = jax.grad(lambda inputs: jnp.sum(layers(inputs)[1] ** 2))(jnp.asarray(INPUTS))
    np.testing.assert_allclose(gradient, inputs.grad.numpy(), rtol=0, atol=1e-13)


def test_the_dtype_is_that_of_the_weights():
    single = {name: value.astype(np.float32) for name, value in state_dict("GRU").items()}
    cell = stacked_from_torch(single, "GRU").layers[0].cell
    assert cell.dtype == cell.kernel.dtype == cell.recurrent_bias.dtype == jnp.float32


def without(name):
    return {other: value for other, value in state_dict("LSTM").items() if other != name}


WEIGHTS = state_dict("LSTM")


@pytest.mark.parametrize(
    ("named", "mode", "sentence"),
    [
        (WEIGHTS, "lstm", "mode must be one of RNN_TANH, RNN_RELU, LSTM, GRU, got 'lstm'"),
        (WEIGHTS, "GRU", r"weight_hh_l0 of mode GRU must be .* of shape \[9, 3\], got float64 of shape \[12, 3\]"),
        (WEIGHTS | {"weight_ih_l0_reverse": 0}, "LSTM", "in one direction, got weight_ih_l0_reverse; import each"),
        (WEIGHTS | {"weight_hr_l0": 0}, "LSTM", "of an LSTM with proj_size=0, got weight_hr_l0"),
        (WEIGHTS | {"head.weight": 0}, "LSTM", r"nothing but weights .*, got head.weight; prefix=\.\.\. picks"),
        (without("weight_ih_l0"), "LSTM", "of every layer from 0 on, got bias_hh_l0, "),
        (without("bias_hh_l1"), "LSTM", "of every layer from 0 on, got bias_hh_l0, "),
        ({}, "LSTM", "of every layer from 0 on, got nothing under prefix ''"),
        (WEIGHTS | {"weight_ih_l1": np.zeros((12, 2))}, "LSTM", r"of shape \[12, 3\], got float64 of shape \[12, 2\]"),
        (WEIGHTS | {"bias_ih_l1": np.zeros(12, int)}, "LSTM", r"floating point .* \[12\], got int64 of shape \[12\]"),
        (WEIGHTS | {"weight_hh_l0": np.zeros(3)}, "LSTM", r"of shape \[any, any\], got float64 of shape \[3\]"),
    ],
)
def test_bad_input_gets_one_sentence(named, mode, sentence):
    with pytest.raises(ValueError, match=sentence) as failure:
        stacked_from_torch(named, mode)
    assert "\n" not in str(failure.value)
