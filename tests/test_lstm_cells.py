"""The LSTM's relatives where exponents and Jacobians are known: without weights, by scale, and beyond overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cells_by_hand import sigmoid, values
from flax import nnx
from networks import any_cell, noise

from rnn_dynamics.cells import CELLS, JANETCell, LayerNormLSTMCell, LSTMCell, PeepholeLSTMCell, SLSTMCell
from rnn_dynamics.dynamics import DrivenSystem, jacobian, lyapunov_spectrum
from rnn_dynamics.layers import Recurrence

pytestmark = pytest.mark.usefixtures("strict_dtypes")

SIZE, TRANSIENT, STEPS = 4, 400, 20
"""Of every state below; and the steps in which the slowest of transients, e^{-t/10}, vanishes in double precision."""
INPUTS = noise(TRANSIENT + STEPS)


def without_weights(name, **biases):
    """Biases are drawn, peepholes too. Inputs would let c and with it dh/dc vary: exponents would not be exact."""
    hidden = SIZE // len(jax.tree.leaves(CELLS[name].carry_structure))
    cell = any_cell(name, hidden, features=1, gain=0.0)
    cell.kernel[...] = jnp.zeros_like(cell.kernel[...])
    for gate, bias in biases.items():
        start = cell.gate_order.index(gate) * hidden
        cell.bias[...] = cell.bias[...].at[start : start + hidden].set(jnp.asarray(bias))
    return cell


def log_sigmoid(bias):
    return -np.log1p(np.exp(-np.asarray(bias)))


def exponents_of_peepholes(cell):
    """ln|dc_t/dc_{t-1}| at the fixed point of c, each of which depends on itself alone."""
    c, (p_i, p_f, _), (b_i, b_f, b_g, _) = 0, np.split(values(cell.peephole), 3), np.split(values(cell.bias), 4)
    for _ in range(TRANSIENT):
        i, f, g = sigmoid(b_i + p_i * c), sigmoid(b_f + p_f * c), np.tanh(b_g)
        c = f * c + i * g
    return np.log(np.abs(f + c * f * (1 - f) * p_f + g * i * (1 - i) * p_i))


def idle_networks():
    """Cells, and all of their exponents that are not -inf."""
    yield without_weights("ForgetlessLSTMCell"), [0, 0]  # the constant error carousel
    for name, bias in [
        ("CoupledLSTMCell", [0.5, 2.0]),
        ("LayerNormLSTMCell", [-1.0, 2.0]),
        ("JANETCell", [0.0, 0.4, 2.0, 4.0]),
    ]:
        yield without_weights(name, forget=bias), log_sigmoid(bias)
    peepholes = without_weights("PeepholeLSTMCell")
    yield peepholes, exponents_of_peepholes(peepholes)
    # c and n forget alike; m = b_i is made anew at every step.
    yield without_weights("SLSTMCell", forget=0.7), [log_sigmoid(0.7)] * 2
    yield without_weights("ExponentialSLSTMCell", forget=-0.5), [-0.5] * 2
    # All that was written weighs alike. Both gates win, so the scale has a one-sided slope: the input gate's, 0.
    yield without_weights("ExponentialSLSTMCell", forget=0.0, input=0.0, output=-800.0), [0, 0]
    # What was written outgrows what is new: c, n and their scale are handed on.
    yield without_weights("ExponentialSLSTMCell", forget=0.5), [0, 0, 0]


IDLE = list(idle_networks())


@pytest.fixture(scope="module")
def idle_spectra():
    """The exponents [network, N] of all, compiled as one system that is told which of them it is."""
    systems = [DrivenSystem.from_cell(cell) for cell, _ in IDLE]

    def one_of(params, state, inputs_t):
        number, systems = params
        return jax.lax.switch(number, [system.step for system in systems], state, inputs_t)

    def spectrum(number):
        system = DrivenSystem.from_step(one_of, (number, systems), jnp.zeros(SIZE))
        return lyapunov_spectrum(system, INPUTS, tangent_transient=TRANSIENT).exponents

    return np.stack([spectrum(jnp.asarray(number)) for number in range(len(IDLE))])


@pytest.mark.parametrize("number", range(len(IDLE)), ids=[type(cell).__name__ for cell, _ in IDLE])
@pytest.mark.slow
def test_exponents_without_recurrent_weights(idle_spectra, number):
    expected = np.sort(IDLE[number][1])[::-1]
    np.testing.assert_allclose(idle_spectra[number, : len(expected)], expected, rtol=0, atol=1e-13)
    assert np.all(np.isneginf(idle_spectra[number, len(expected) :]))


def test_without_peepholes_it_is_an_lstm():
    ours, plain = (kind(2, 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0)) for kind in (PeepholeLSTMCell, LSTMCell))
    carry = tuple(noise(2, 3))
    jax.tree.map(np.testing.assert_array_equal, ours(carry, noise(1, 2)[0]), plain(carry, noise(1, 2)[0]))


def test_layer_norm_sees_no_scale():
    """LN(a z) = LN(z): of W_h h neither the gain nor the length of h counts, so J has (0, h) in its null space."""
    cell = any_cell("LayerNormLSTMCell")
    cell.epsilon[...] = jnp.asarray(1e-300)
    system, inputs, state = DrivenSystem.from_cell(cell), noise(1, 2)[0], noise(1, 12)[0]
    cell.recurrent_kernel[...] *= 7.0
    louder = DrivenSystem.from_cell(cell)
    at = jax.jit(lambda system: (system.step(state, inputs), jacobian(system, state, inputs)))
    after, matrix = at(system)
    np.testing.assert_allclose(at(louder)[0], after, rtol=0, atol=1e-14)
    np.testing.assert_allclose(matrix @ state.at[:6].set(0), 0, rtol=0, atol=1e-14)
    assert np.linalg.norm(matrix[:, 6:]) > 0.1


@pytest.fixture(scope="module", params=["SLSTMCell", "ExponentialSLSTMCell"])
def stabilized(request):
    """Next to a step its unstabilised twin, (C, N, h) = (c e^m, n e^m, h), and what leads from one to the other."""
    cell, inputs = any_cell(request.param, hidden=3), noise(1, 2)[0]
    forget = jax.nn.sigmoid if request.param == "SLSTMCell" else jnp.exp

    def whole(state):
        c, n, m, h = jnp.split(state, 4)
        return jnp.concatenate([c * jnp.exp(m), n * jnp.exp(m), h])

    def twin(state):  # Beck et al. 2024, equations 8-14
        c, n, h = jnp.split(state, 3)
        i, f, z, o = jnp.split(inputs @ cell.kernel[...] + h @ cell.recurrent_kernel[...] + cell.bias[...], 4)
        c, n = forget(f) * c + jnp.exp(i) * jnp.tanh(z), forget(f) * n + jnp.exp(i)
        return jnp.concatenate([c, n, jax.nn.sigmoid(o) * c / n])

    system = DrivenSystem.from_cell(cell)
    state = jnp.concatenate([noise(1, 3)[0], jnp.array([0.9, 1.3, 0.4]), jnp.array([3.0, -4.0, 4.0]), noise(1, 3)[0]])

    @jax.jit
    def both(state):
        after = system.step(state, inputs)
        ours, theirs = jacobian(system, state, inputs), jax.jacfwd(twin)(whole(state))
        maps = jax.jacfwd(whole)(state), jax.jacfwd(whole)(after)
        return after, whole(after), twin(whole(state)), ours, theirs, maps

    return np.asarray(state), *jax.tree.map(np.asarray, both(state))


def test_stabilised_step_is_the_unstabilised(stabilized):
    _, _, ours, theirs, _, _, _ = stabilized
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)


def test_stabilised_jacobian_is_the_unstabilised(stabilized):
    """Along the map P from (c, n, m, h) to (C, N, h): P_t J = J_whole P_{t-1}."""
    *_, ours, theirs, (before, after) = stabilized
    np.testing.assert_allclose(after @ ours, theirs @ before, rtol=1e-12, atol=1e-13)


def test_scale_is_handed_on_or_annihilated(stabilized):
    """The direction (-c, -n, 1, 0) of each unit, which P sends to 0."""
    state, after, _, _, jacobian, _, (to_whole, _) = stabilized

    def scales(state):
        c, n, _, _ = np.split(state, 4)
        return np.concatenate([-np.diag(c), -np.diag(n), np.eye(3), np.zeros((3, 3))])

    np.testing.assert_allclose(to_whole @ scales(state), 0, rtol=0, atol=1e-14)
    forget_wins = np.array([True, False, True])  # m = 3, -4, 4
    np.testing.assert_allclose(jacobian @ scales(state), np.where(forget_wins, scales(after), 0), rtol=0, atol=1e-14)


def test_nothing_overflows():
    """A factor e^1000, which no double holds, on all that is written: it cancels out of C / N, and so in gradients."""
    cell, inputs = any_cell("SLSTMCell", hidden=3), noise(2 * 8, 2).reshape(2, 8, 2)

    @jax.jit
    def run(parts):
        outputs, pull = jax.vjp(lambda inputs: Recurrence(nnx.merge(*parts))(inputs)[1], inputs)
        return outputs, *pull(jnp.zeros_like(outputs).at[:, -1].set(1.0))

    outputs, gradient = run(nnx.split(cell))
    cell.bias[...] = cell.bias[...].at[:3].add(1000.0)
    of_shifted = run(nnx.split(cell))
    np.testing.assert_allclose(of_shifted[0], outputs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(of_shifted[1], gradient, rtol=0, atol=1e-12)
    assert np.all(np.abs(gradient) > 1e-6)


@pytest.mark.slow
def test_settings_are_numbers_that_vmap_carries():
    betas, epsilons = jnp.array([0.0, 1.0, 40.0]), jnp.array([1e-3, 1.0])
    options = {"param_dtype": jnp.float64}

    @jax.jit
    @jax.vmap
    def input_gate(beta):
        cell = JANETCell(1, 2, beta=beta, forget_bias=jnp.array([-1.0, 40.0]), rngs=nnx.Rngs(0), **options)
        return cell.gates(jnp.zeros(2), jnp.zeros(1))["input"]

    expected = 1 / (1 + np.exp(np.array([-1.0, 40.0]) - np.asarray(betas)[:, None]))  # 1 - sigmoid(s - beta)
    np.testing.assert_allclose(input_gate(betas), expected, rtol=1e-14)

    cell = LayerNormLSTMCell(1, 2, rngs=nnx.Rngs(0), **options)

    def normalized(epsilon):
        swept = LayerNormLSTMCell(1, 2, epsilon=epsilon, rngs=nnx.Rngs(0), **options)
        return swept.normalize(jnp.array([1.0, 3.0]), cell.readout_scale)

    np.testing.assert_allclose(jax.vmap(normalized)(epsilons)[:, 1], 1 / np.sqrt(1 + np.asarray(epsilons)), rtol=1e-14)


@pytest.mark.parametrize(
    ("cell", "options", "sentence"),
    [
        (JANETCell, {"beta": jnp.inf}, "beta must be finite, got inf"),
        (LayerNormLSTMCell, {"epsilon": 0.0}, "epsilon must be one number > 0, got 0.0"),
        (LayerNormLSTMCell, {"epsilon": jnp.ones(2)}, "epsilon must be one number > 0, got"),
        (SLSTMCell, {"hidden": 0}, "hidden_features must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input_gets_one_sentence(cell, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        cell(1, options.pop("hidden", 2), **options, rngs=nnx.Rngs(0))
