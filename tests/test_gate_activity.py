"""How open gates are along a run: against the decomposition by path, formulas by hand, closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, elman, linear_system, noise

from rnn_dynamics.cells import LSTMCell
from rnn_dynamics.dynamics import DrivenSystem, gate_activity, gate_decomposition, trajectory

STEPS, TRANSIENT = 12, 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LSTMCell", "SLSTMCell", "LRUCell", "ClockworkCell"])
def test_the_decomposition_says_the_same(name):
    """Its own statistics are tested against NumPy; the two sum in different orders."""
    system, inputs = DrivenSystem.from_cell(any_cell(name)), noise(STEPS, 2, scale=3.0)
    activity = gate_activity(system, inputs, transient=TRANSIENT)
    paths = gate_decomposition(system, inputs, transient=TRANSIENT)
    assert activity.gates == paths.gates
    for ours, theirs in [(activity.by_step, paths.by_step), (activity.by_unit, paths.by_unit)]:
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
    np.testing.assert_allclose(activity.time_scale, paths.time_scale, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_gates_of_a_gru_by_hand():
    cell = any_cell("GRUCell", hidden=5)
    system, inputs = DrivenSystem.from_cell(cell), noise(STEPS, 2, scale=5.0)
    activity = gate_activity(system, inputs, transient=TRANSIENT)
    states = jnp.concatenate([system.initial_state[None], trajectory(system, inputs)[:-1]])
    gates = {name: np.asarray(values)[TRANSIENT:] for name, values in cell.gates(states, inputs).items()}
    assert activity.gates == ("reset", "update")
    for row, name in enumerate(activity.gates):
        np.testing.assert_allclose(activity.by_unit.mean[row], gates[name].mean(axis=0), rtol=0, atol=1e-14)
        np.testing.assert_allclose(activity.by_step.mean[:, row], gates[name].mean(axis=1), rtol=0, atol=1e-14)
        shut, open_ = (gates[name] < 0.1).mean(axis=1), (gates[name] > 0.9).mean(axis=1)
        np.testing.assert_allclose(activity.by_step.left_saturated[:, row], shut, rtol=0, atol=1e-15)
        np.testing.assert_allclose(activity.by_step.right_saturated[:, row], open_, rtol=0, atol=1e-15)
    assert 0 < np.mean(gates["update"] < 0.1) < 1
    assert 0 < np.mean(gates["update"] > 0.9) < 1
    np.testing.assert_allclose(
        activity.time_scale, -1 / np.log(gates["update"]).mean(axis=0), rtol=1e-12, atol=0
    )  # h' = z h + (1 - z) n


def test_an_lstm_without_weights():
    """c' = f c with f = 1 - 1/T by chrono initialisation (Tallec and Ollivier 2018); and h keeps nothing."""
    horizons, zeros = np.array([100.0, 20.0, 1.05]), jax.nn.initializers.zeros
    options = {"kernel_init": zeros, "recurrent_kernel_init": zeros, "param_dtype": jnp.float64}
    cell = LSTMCell(1, 3, forget_bias=jnp.log(horizons - 1), rngs=nnx.Rngs(0), **options)
    activity = gate_activity(DrivenSystem.from_cell(cell), steps=7)
    forget = 1 - 1 / horizons
    np.testing.assert_allclose(activity.time_scale, np.append(-1 / np.log(forget), np.zeros(3)), rtol=1e-12, atol=0)
    np.testing.assert_allclose(activity.by_unit.mean, [[0.5] * 3, forget, [0.5] * 3], rtol=0, atol=1e-15)
    np.testing.assert_allclose(activity.by_step.right_saturated[4], [0, 2 / 3, 0], rtol=0, atol=1e-15)


@pytest.mark.slow
def test_a_state_that_overflows_gives_nan_from_there():
    cell = any_cell("GRUCell")
    system = DrivenSystem.from_cell(cell)
    activity = gate_activity(system, noise(6, 2).at[2].set(jnp.nan))
    assert int(activity.first_nonfinite_step) == 2
    assert np.all(np.isfinite(activity.by_step.left_saturated[:2]))
    assert all(np.all(np.isnan(leaf[2:])) for leaf in jax.tree.leaves(activity.by_step))
    assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves((activity.by_unit, activity.time_scale)))


@pytest.mark.parametrize(
    ("system", "options", "sentence"),
    [
        (linear_system(np.eye(2)), {"steps": 3}, "a cell that names its gates .*, got one made by from_step"),
        (DrivenSystem.from_cell(elman()), {"steps": 5, "transient": 5}, "transient must leave a step of the 5, got 5"),
        (DrivenSystem.from_cell(elman()), {"steps": 5, "transient": -1}, "transient must be a whole number >= 0"),
        (DrivenSystem.from_cell(elman()), {}, "steps must be given when inputs is None"),
    ],
)
def test_bad_input_gets_one_sentence(system, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        gate_activity(system, **options)
