"""The Jacobian by path: sums to the whole, formulas by hand, a dense second method, closed forms of idle gates."""

from functools import cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import EACH_CELL, any_cell, dense_jacobians, elman, linear_system, lstm, noise

from rnn_dynamics.cells import GRUCell, LSTMCell
from rnn_dynamics.cells.base import NONE_GIVEN
from rnn_dynamics.cells.gru import ChoGRUCell
from rnn_dynamics.dynamics import DrivenSystem, gate_decomposition, jacobian, jacobian_by_path, lyapunov_spectrum
from rnn_dynamics.dynamics import trajectory as states_of


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class PeepingCell(ChoGRUCell):
    """Its candidate's matmul takes r * h; and the update gate peeps at that candidate."""

    def gates_from_drive(self, carry, drive, given=NONE_GIVEN):
        gates = super().gates_from_drive(carry, drive, given)
        candidate = given.get("candidate", gates["candidate"])
        preactivation = self.split(drive)[1] + self.recur(carry, "update") + candidate
        return gates | {"update": jax.nn.sigmoid(preactivation), "candidate": candidate}


class UnfaithfulCell(GRUCell):
    """A mistake: its step is not what its gates and its state equation make."""

    def advance(self, carry, drive):
        carry, _ = super().advance(carry, drive)
        return 1.1 * carry, 1.1 * carry


def nested(cell):
    return cell(2, 6, bias_init=jax.nn.initializers.normal(0.3), param_dtype=jnp.float64, rngs=nnx.Rngs(0))


@cache
def some_step(name):
    """A cell at some state and inputs: its paths and its whole Jacobian there, as NumPy."""
    cell = nested(PeepingCell) if name == "nested" else any_cell(name)
    system, inputs = DrivenSystem.from_cell(cell), noise(1, 2)[0]
    state = 0.5 * jax.random.normal(jax.random.key(3), (system.state_size,))
    paths, whole = jax.jit(lambda *at: (jacobian_by_path(*at), jacobian(*at)))(system, state, inputs)
    return cell, np.asarray(state), inputs, jax.tree.map(np.asarray, paths), np.asarray(whole)


@pytest.mark.parametrize("name", [*EACH_CELL, "nested"])
def test_paths_sum_to_the_jacobian(name):
    cell, _, _, paths, whole = some_step(name)
    assert set(paths) == {"direct", *cell.gate_order}
    np.testing.assert_allclose(sum(paths.values()), whole, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", [*EACH_CELL, "nested"])
def test_a_gate_that_sees_the_state_has_a_path(name):
    """A gate that is read by another but not from `given` would lose its path to that other."""
    cell, state, inputs, paths, _ = some_step(name)
    unflatten = DrivenSystem.from_cell(cell).layout.unflatten
    _, slopes = jax.jit(lambda state: jax.jvp(lambda s: cell.gates(unflatten(s), inputs), [state], [state]))(state)
    for gate, slope in slopes.items():
        assert np.any(slope != 0) == np.any(paths[gate] != 0)


def test_paths_of_an_lstm_in_formulas():
    cell, state, x, paths, _ = some_step("LSTMCell")
    c_before, h_before = np.split(state, 2)
    weights = np.split(np.asarray(cell.recurrent_kernel[...]).T, 4)
    i, f, g, o = np.split(np.asarray(cell.project(x)) + np.concatenate(weights) @ h_before, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    c = f * c_before + i * g
    to_h = o * (1 - np.tanh(c) ** 2)
    slopes = {
        "input": g * i * (1 - i),
        "forget": c_before * f * (1 - f),
        "candidate": i * (1 - g**2),
        "output": np.tanh(c) * o * (1 - o),
    }
    zero = np.zeros((6, 6))
    expected = {"direct": np.block([[np.diag(f), zero], [np.diag(to_h * f), zero]])}
    for (name, slope), matrix in zip(slopes.items(), weights, strict=True):
        block = np.diag(slope) @ matrix
        below = block if name == "output" else np.diag(to_h) @ block
        expected[name] = np.block([[zero, zero if name == "output" else block], [zero, below]])
    for name, matrix in expected.items():
        np.testing.assert_allclose(paths[name], matrix, rtol=0, atol=1e-15, err_msg=name)


def test_paths_of_a_gru_in_formulas():
    """Reset: through r into n, all that is left of n with r held being the candidate's."""
    cell, h, x, paths, _ = some_step("GRUCell")
    w_r, w_z, w_n = np.split(np.asarray(cell.recurrent_kernel[...]).T, 3)
    x_r, x_z, x_n = np.split(np.asarray(cell.project(x)), 3)
    r, z = sigmoid(x_r + w_r @ h), sigmoid(x_z + w_z @ h)
    inner = w_n @ h + np.asarray(cell.recurrent_bias[...])
    n = np.tanh(x_n + r * inner)
    into_n = (1 - z) * (1 - n**2)
    expected = {
        "direct": np.diag(z),
        "reset": np.diag(into_n * inner * r * (1 - r)) @ w_r,
        "update": np.diag((h - n) * z * (1 - z)) @ w_z,
        "candidate": np.diag(into_n * r) @ w_n,
    }
    for name, matrix in expected.items():
        np.testing.assert_allclose(paths[name], matrix, rtol=0, atol=1e-15, err_msg=name)


def test_a_reset_gate_before_the_matmul_acts_through_all_that_reads_it():
    cell, h, x, paths, _ = some_step("nested")
    w_r, w_z, w_n = np.split(np.asarray(cell.recurrent_kernel[...]).T, 3)
    x_r, x_z, x_n = np.split(np.asarray(cell.project(x)), 3)
    r = sigmoid(x_r + w_r @ h)
    n = np.tanh(x_n + w_n @ (r * h))
    z = sigmoid(x_z + w_z @ h + n)
    into_n = ((1 - z) + (h - n) * z * (1 - z)) * (1 - n**2)
    np.testing.assert_allclose(
        paths["reset"], np.diag(into_n) @ w_n @ np.diag(h * r * (1 - r)) @ w_r, rtol=0, atol=1e-15
    )
    np.testing.assert_allclose(paths["candidate"], np.diag(into_n) @ w_n @ np.diag(r), rtol=0, atol=1e-15)
    np.testing.assert_allclose(paths["update"], np.diag((h - n) * z * (1 - z)) @ w_z, rtol=0, atol=1e-15)


STEPS, TRANSIENT, TANGENT_TRANSIENT = 30, 2, 3


@pytest.fixture(scope="module")
def driven_lstm():
    cell = lstm(hidden=5, features=2, gain=6.0, bias_init=jax.nn.initializers.normal(2.0))
    system, inputs = DrivenSystem.from_cell(cell), noise(STEPS, 2)
    result = gate_decomposition(system, inputs, transient=TRANSIENT, tangent_transient=TANGENT_TRANSIENT)
    states = jnp.concatenate([system.initial_state[None], states_of(system, inputs)[:-1]])
    return cell, system, inputs, states, result


def test_against_dense_jacobians(driven_lstm):
    """Norms, shares, their errors and the exponent, from the matrices of all steps, in NumPy."""
    _, system, inputs, states, result = driven_lstm
    split = jax.vmap(lambda state, x: jnp.stack(list(jacobian_by_path(system, state, x).values())))
    matrices, whole = np.asarray(split(states, inputs)), dense_jacobians(system, inputs)
    tangent = np.asarray(jax.random.normal(jax.random.key(0), (1, system.state_size)))[0]
    shares, growths = [], []
    for t in range(TRANSIENT, STEPS):
        tangent = tangent / np.linalg.norm(tangent)
        after = whole[t] @ tangent
        growths.append(np.linalg.norm(after))
        shares.append((matrices[t] @ tangent) @ after / growths[-1] ** 2)
        tangent = after
    shares, growths = np.array(shares)[TANGENT_TRANSIENT:], np.log(growths)[TANGENT_TRANSIENT:]
    steps = len(growths)
    kept = matrices[-steps:]
    np.testing.assert_allclose(
        result.path_norm, np.linalg.norm(kept, axis=(2, 3)) / np.sqrt(system.state_size), rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(result.share, shares.mean(axis=0), rtol=0, atol=1e-11)
    assert float(result.exponent) == pytest.approx(growths.mean(), abs=1e-12)
    ends = -(-np.arange(11) * steps // 10)
    batches = np.array([shares[a:b].mean(axis=0) for a, b in pairwise(ends)])
    weighted = np.diff(ends)[:, None] / 2.5 * (batches - shares.mean(axis=0)) ** 2
    np.testing.assert_allclose(result.share_standard_error, np.sqrt(weighted.sum(axis=0) / 90), rtol=0, atol=1e-11)
    assert np.all(np.abs(result.share) > 1e-3)  # every path had something to be wrong about
    assert float(np.sum(result.share)) == pytest.approx(1, abs=1e-13)
    assert float(result.residual) < 1e-13


def test_what_is_shared_out_is_the_first_exponent(driven_lstm):
    _, system, inputs, _, result = driven_lstm
    spectrum = lyapunov_spectrum(system, inputs, k=1, transient=TRANSIENT, tangent_transient=TANGENT_TRANSIENT)
    np.testing.assert_allclose(result.exponent, spectrum.exponents[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.exponent_standard_error, spectrum.standard_error[0], rtol=0, atol=1e-13)


def test_gates_of_a_driven_lstm(driven_lstm):
    cell, system, inputs, states, result = driven_lstm
    carry, dropped = jax.vmap(system.layout.unflatten)(states), TRANSIENT + TANGENT_TRANSIENT
    named = {name: np.asarray(values)[dropped:] for name, values in cell.gates(carry, inputs).items()}
    assert result.gates == ("input", "forget", "output")
    gates = np.stack([named[name] for name in result.gates], axis=1)  # [T, G, H]
    for statistics, axis in [(result.by_step, 2), (result.by_unit, 0)]:
        np.testing.assert_allclose(statistics.mean, gates.mean(axis=axis), rtol=0, atol=1e-14)
        np.testing.assert_allclose(statistics.left_saturated, (gates < 0.1).mean(axis=axis), rtol=0, atol=1e-15)
        np.testing.assert_allclose(statistics.right_saturated, (gates > 0.9).mean(axis=axis), rtol=0, atol=1e-15)
    assert 0.02 < np.mean(gates < 0.1) < 0.98
    assert 0.02 < np.mean(gates > 0.9) < 0.98
    time_scale = -1 / np.log(named["forget"]).mean(axis=0)
    np.testing.assert_allclose(result.time_scale, np.concatenate([time_scale, np.zeros(5)]), rtol=1e-12)


HORIZONS = np.array([100.0, 20.0, 1.05])


@pytest.fixture(scope="module")
def idle_lstm():
    """All weights zero, forget biases ln(T - 1): the result, and what the first bias does to some of it."""

    def system(forget_bias):
        zeros = jax.nn.initializers.zeros
        options = {"kernel_init": zeros, "recurrent_kernel_init": zeros, "param_dtype": jnp.float64}
        return DrivenSystem.from_cell(LSTMCell(1, 3, forget_bias=forget_bias, rngs=nnx.Rngs(0), **options))

    def measure(system):
        result = gate_decomposition(system, steps=1500, tangent_transient=901)
        return (result.path_norm, result.exponent, result.time_scale), result

    biases = jnp.log(HORIZONS - 1)
    first_bias = jax.tree.map(jnp.subtract, system(biases.at[0].add(1.0)), system(biases))
    _, slopes, result = jax.jvp(measure, (system(biases),), (first_bias,), has_aux=True)
    return result, slopes


def test_an_lstm_without_weights_has_the_direct_path_alone(idle_lstm):
    """c' = f c and h' = c' / 2 near c = 0. Chrono initialisation: f = 1 - 1/T (Tallec and Ollivier 2018)."""
    result, forget = idle_lstm[0], 1 - 1 / HORIZONS
    np.testing.assert_allclose(result.time_scale, np.append(-1 / np.log(forget), np.zeros(3)), rtol=1e-12)
    np.testing.assert_allclose(result.share, [1, 0, 0, 0, 0], rtol=0, atol=1e-14)
    assert float(result.exponent) == pytest.approx(np.log(forget[0]), abs=1e-14)
    direct = np.sqrt(np.sum(forget**2) * (1 + 0.5**2) / 6)
    np.testing.assert_allclose(result.path_norm, np.tile([direct, 0, 0, 0, 0], (599, 1)), rtol=0, atol=1e-15)
    np.testing.assert_allclose(result.by_unit.mean, [[0.5] * 3, forget, [0.5] * 3], rtol=0, atol=1e-15)
    np.testing.assert_allclose(result.by_unit.right_saturated, [[0] * 3, [1, 1, 0], [0] * 3], rtol=0, atol=1e-15)
    np.testing.assert_allclose(result.by_unit.left_saturated, [[0] * 3, [0, 0, 1], [0] * 3], rtol=0, atol=1e-15)
    np.testing.assert_allclose(result.by_step.right_saturated[7], [0, 2 / 3, 0], rtol=0, atol=1e-15)


def test_paths_that_are_nothing_do_not_spoil_derivatives(idle_lstm):
    """Beside them, ln f has the slope 1 - f by the bias."""
    path_norm, exponent, time_scale = idle_lstm[1]
    forget = 1 - 1 / HORIZONS[0]
    assert float(exponent) == pytest.approx(1 - forget, rel=1e-12)
    np.testing.assert_allclose(time_scale, [(1 - forget) / np.log(forget) ** 2, 0, 0, 0, 0, 0], rtol=1e-12)
    per_norm = forget**2 * (1 - forget) * (1 + 0.5**2) / 6  # d(norm^2)/2
    np.testing.assert_allclose(path_norm[:, 0] * idle_lstm[0].path_norm[:, 0], per_norm, rtol=1e-12)
    np.testing.assert_array_equal(path_norm[:, 1:], 0)


def test_an_elman_network_has_one_path_and_no_gate():
    result = gate_decomposition(DrivenSystem.from_cell(elman(hidden=4)), noise(1))
    assert (result.paths, result.gates) == (("direct", "hidden"), ())
    np.testing.assert_allclose(result.share, [0, 1], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(result.time_scale, np.zeros(4))
    assert result.by_unit.mean.shape == (0, 4)
    assert np.all(np.isnan(result.share_standard_error))  # one step has none


def test_a_dead_jacobian_leaves_nothing_to_share():
    result = gate_decomposition(DrivenSystem.from_cell(elman(hidden=4, gain=0.0)), noise(1))
    assert float(result.exponent) == -np.inf
    assert np.all(np.isnan(result.share))
    assert int(result.first_nonfinite_step) == -1


def test_a_state_that_overflows_gives_nan_from_there():
    """h -> 1e80 h overflows at the fourth step, number 3."""
    cell = elman(hidden=2, activation="identity")
    cell.recurrent_kernel[...] = 1e80 * jnp.eye(2)
    result = gate_decomposition(DrivenSystem.from_cell(cell, jnp.ones(2)), steps=6)
    assert int(result.first_nonfinite_step) == 3
    np.testing.assert_allclose(result.path_norm[:3, 1], 1e80)
    assert np.all(np.isnan(result.path_norm[3:]))
    assert np.isnan(result.exponent)
    assert np.all(np.isnan(result.share))
    assert np.all(np.isnan(result.time_scale))


def test_a_step_that_is_not_its_two_halves_shows_in_the_residual():
    result = gate_decomposition(DrivenSystem.from_cell(nested(UnfaithfulCell)), noise(3, 2))
    assert float(result.residual) == pytest.approx(0.1 / 1.1, rel=1e-12)


@pytest.mark.parametrize(
    ("system", "options", "sentence"),
    [
        (linear_system(np.eye(2)), {"steps": 3}, "a cell that names its gates .*, got one made by from_step"),
        (
            DrivenSystem.from_cell(nnx.GRUCell(1, 2, rngs=nnx.Rngs(0))),
            {"steps": 3},
            "a cell that names its gates .*, got one of flax.*GRUCell",
        ),
        (DrivenSystem.from_cell(elman()), {"steps": 5, "transient": 3, "tangent_transient": 2}, "must leave a step"),
        (DrivenSystem.from_cell(elman()), {"steps": 5, "transient": -1}, "transient must be a whole number >= 0"),
        (DrivenSystem.from_cell(elman()), {}, "steps must be given when inputs is None"),
    ],
)
def test_bad_input_gets_one_sentence(system, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        gate_decomposition(system, **options)
