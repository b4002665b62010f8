"""The GRU and its relatives: closed forms, and each as a special case of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from networks import noise

from rnn_dynamics.cells.fast_grnn import FastGRNNCell
from rnn_dynamics.cells.gru import ChoGRUCell, GRUCell
from rnn_dynamics.cells.mgu import MGUCell
from rnn_dynamics.cells.minimal_rnn import MinimalRNNCell
from rnn_dynamics.cells.recurrent_highway import RecurrentHighwayCell
from rnn_dynamics.cells.ugrnn import UGRNNCell
from rnn_dynamics.dynamics import DrivenSystem, jacobian

HIDDEN, FEATURES = 3, 2
INPUTS, STATE = noise(1, FEATURES)[0], jnp.array([0.7, -1.2, 0.4])
normal, zeros = jax.nn.initializers.normal(0.5), jax.nn.initializers.zeros
NAMES = ("kernel", "recurrent_kernel", "bias")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


BIASES = jnp.array([-1.0, 0.5, 2.0])
KEPT, LOST = sigmoid(np.asarray(BIASES)), sigmoid(-np.asarray(BIASES))


def make(cell, **options):
    """A float64 cell whose biases are drawn too."""
    drawn = {"recurrent_kernel_init": normal, "bias_init": normal, "param_dtype": jnp.float64, "rngs": nnx.Rngs(3)}
    return cell(FEATURES, HIDDEN, **(drawn | options))


def idle(cell, **options):
    """A cell with no weights and no biases but those of its own options."""
    return make(cell, kernel_init=zeros, recurrent_kernel_init=zeros, bias_init=zeros, **options)


def with_weights(cell, **weights):
    for name, value in weights.items():
        parameter = getattr(cell, name)
        assert parameter.shape == value.shape
        parameter[...] = jnp.asarray(value)
    return cell


def blocks(parameter):
    """What lies side by side, as NumPy."""
    return np.split(np.asarray(parameter[...]), parameter.shape[-1] // HIDDEN, axis=-1)


def side_by_side(*arrays):
    return np.concatenate(arrays, axis=-1)


@jax.jit
def state_and_jacobian(cell, state=STATE):
    """After and of one step; compiled as a whole, for that is what takes the time."""
    system = DrivenSystem.from_cell(cell)
    return system.step(state, INPUTS), jacobian(system, state, INPUTS)


def assert_same_step(cell, other):
    for a, b in zip(state_and_jacobian(cell), state_and_jacobian(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("cell", "options", "kept"),
    [
        (GRUCell, {"update_bias": BIASES}, KEPT),
        (ChoGRUCell, {"update_bias": BIASES}, KEPT),
        (MGUCell, {"forget_bias": BIASES}, LOST),
        (UGRNNCell, {"update_bias": BIASES, "activation": "relu"}, KEPT),
        (MinimalRNNCell, {"update_bias": BIASES}, KEPT),
        (FastGRNNCell, {"update_bias": BIASES, "zeta_logit": 0.3, "nu_logit": BIASES}, KEPT),
        (RecurrentHighwayCell, {"transform_bias": BIASES, "depth": 3}, LOST**3),
    ],
)
def test_without_weights_a_unit_keeps_what_its_gate_lets(cell, options, kept):
    """Whatever the inputs and the state: the exponents are ln sigma(b), or ln(1 - sigma(b)) for each highway layer."""
    np.testing.assert_allclose(state_and_jacobian(idle(cell, **options))[1], np.diag(kept), rtol=0, atol=1e-15)


def test_an_mgu_is_a_gru_with_one_gate_for_both():
    """Cho's, with r = f and z = 1 - f: sigma(-x) = 1 - sigma(x)."""
    mgu = make(MGUCell)
    tied = {}
    for name in NAMES:
        forget, candidate = blocks(getattr(mgu, name))
        tied[name] = side_by_side(forget, -forget, candidate)
    assert_same_step(mgu, with_weights(make(ChoGRUCell), **tied))


def test_an_mgu_without_feedback_into_its_candidate_is_that_of_flax():
    """Flax's has z = f where the paper has 1 - f, and resets after the matmul."""
    mgu = make(MGUCell)
    recurrent_forget, _ = blocks(mgu.recurrent_kernel)
    with_weights(mgu, recurrent_kernel=side_by_side(recurrent_forget, np.zeros((HIDDEN, HIDDEN))))
    (x_f, x_n), (b_f, b_n) = blocks(mgu.kernel), blocks(mgu.bias)
    dense = {
        "if": {"kernel": -x_f, "bias": -b_f},
        "hf": {"kernel": -recurrent_forget},
        "in": {"kernel": x_n, "bias": b_n},
        "hn": {"kernel": np.zeros((HIDDEN, HIDDEN)), "bias": np.zeros(HIDDEN)},
    }
    theirs, _ = linen.MGUCell(HIDDEN, param_dtype=jnp.float64).apply({"params": dense}, STATE, INPUTS)
    np.testing.assert_allclose(state_and_jacobian(mgu)[0], theirs, rtol=0, atol=1e-15)


def test_a_gru_whose_reset_is_open_is_a_ugrnn():
    """sigma(50) is 1 - 2e-22."""
    gru, parts = make(ChoGRUCell), {}
    for name in NAMES:
        reset, *parts[name] = blocks(getattr(gru, name))
        with_weights(gru, **{name: side_by_side(np.full_like(reset, 50 if name == "bias" else 0), *parts[name])})
    assert_same_step(gru, with_weights(make(UGRNNCell), **{name: side_by_side(*kept) for name, kept in parts.items()}))


def test_a_fast_grnn_with_zeta_1_and_nu_0_is_a_ugrnn_with_shared_weights():
    fast = make(FastGRNNCell, zeta_logit=50.0, nu_logit=-50.0)
    twice = {name: side_by_side(*blocks(getattr(fast, name)) * 2) for name in ("kernel", "recurrent_kernel")}
    assert_same_step(fast, with_weights(make(UGRNNCell), bias=fast.bias[...], **twice))


def test_a_highway_of_depth_1_is_a_ugrnn_that_keeps_what_is_not_transformed():
    highway, turned = make(RecurrentHighwayCell, depth=1), {}
    for name in NAMES:
        candidate, transform = blocks(getattr(highway, name))
        turned[name] = side_by_side(-transform, candidate)
    assert_same_step(highway, with_weights(make(UGRNNCell), **turned))


def test_a_deep_highway_is_shallow_ones_in_a_row():
    """Of which the first alone sees the inputs; the Jacobian is the product of theirs."""
    deep = make(RecurrentHighwayCell, depth=3)
    assert deep.gate_order == tuple(f"{gate}_{level}" for level in range(3) for gate in ("candidate", "transform"))
    kernels, biases = blocks(deep.recurrent_kernel), blocks(deep.bias)
    state, product = STATE, np.eye(HIDDEN)
    for level in range(3):
        of_level = slice(2 * level, 2 * level + 2)
        shallow = with_weights(
            make(RecurrentHighwayCell, depth=1),
            kernel=deep.kernel[...] * (level == 0),
            recurrent_kernel=side_by_side(*kernels[of_level]),
            bias=side_by_side(*biases[of_level]),
        )
        state, of_step = state_and_jacobian(shallow, state)
        product = of_step @ product
    for a, b in zip(state_and_jacobian(deep), (state, product), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15)


LEVEL_1 = ("candidate_1", "transform_1")


@pytest.mark.parametrize(
    ("cell", "gate", "readers"),
    [
        (ChoGRUCell, "reset", ("candidate",)),
        (MGUCell, "forget", ("candidate",)),
        (RecurrentHighwayCell, "candidate_0", LEVEL_1),
        (RecurrentHighwayCell, "transform_0", LEVEL_1),
    ],
)
def test_a_gate_is_read_from_what_is_given(cell, gate, readers):
    """Held, it hides from its readers whatever it would have been; else a path would go by another gate's name."""
    cell, held = make(cell), jnp.array([0.1, 0.5, 0.8])

    def gates(given):
        return cell.gates_from_drive(STATE, cell.project(INPUTS), given)

    before, free = gates({gate: held}), gates({})
    cell.add_to_bias(gate, 1.0, nnx.Rngs(0))
    after, free_after = gates({gate: held}), gates({})
    for reader in readers:
        np.testing.assert_array_equal(after[reader], before[reader])
        assert np.all(free[reader] != before[reader])
        assert np.all(free_after[reader] != free[reader])


def test_jacobian_of_a_minimal_rnn():
    """diag(u) + diag((h - z) u (1 - u)) U_h (Chen, Pennington and Schoenholz 2018)."""
    cell = make(MinimalRNNCell)
    h_after, whole = state_and_jacobian(cell)
    z = np.asarray(cell.gates(STATE, INPUTS)["candidate"])
    u = (h_after - z) / (STATE - z)
    expected = np.diag(u) + np.diag((STATE - z) * u * (1 - u)) @ np.asarray(cell.recurrent_kernel[...]).T
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-15)


def test_numbers_of_a_cell_can_be_swept():
    def after(**numbers):
        return DrivenSystem.from_cell(make(FastGRNNCell, **numbers)).step(STATE, INPUTS)

    zetas, biases = jnp.array([-1.0, 2.0]), jnp.array([0.5, -3.0])
    swept = jax.jit(jax.vmap(lambda zeta, bias: after(zeta_logit=zeta, update_bias=bias)))(zetas, biases)
    for number in range(2):
        alone = after(zeta_logit=float(zetas[number]), update_bias=float(biases[number]))
        np.testing.assert_allclose(swept[number], alone, rtol=0, atol=1e-15)
    assert not np.allclose(swept[0], swept[1])


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match="depth must be a whole number >= 1, got 0"):
        make(RecurrentHighwayCell, depth=0)
    with pytest.raises(ValueError, match="nu_logit must be finite, got -inf"):
        make(FastGRNNCell, nu_logit=-np.inf)
    with pytest.raises(ValueError, match=r"zeta_logit must be one number or 3, one for each unit, got shape \(2,\)"):
        make(FastGRNNCell, zeta_logit=jnp.ones(2))
    with pytest.raises(ValueError, match=r"inputs must have 2 features, got shape \(5,\)"):
        make(MinimalRNNCell).project(jnp.ones(5))
