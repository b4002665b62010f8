"""Networks that read what they make: against a step written by hand, finite differences and a linear closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import any_cell, elman, noise

from rnn_dynamics.dynamics import DrivenSystem, gate_decomposition, jacobian, lyapunov_spectrum, trajectory

HIDDEN = 4
CELL = any_cell("GRUCell", hidden=HIDDEN, features=2)
READOUT = 0.7 * jax.random.normal(jax.random.key(5), (HIDDEN, 2), jnp.float64)
STATE = 0.3 * jax.random.normal(jax.random.key(6), (HIDDEN,), jnp.float64)


def read(kernel, carry, inputs_t):
    return jnp.tanh(carry @ kernel)


def read_beside(kernel, carry, inputs_t):
    """The second input comes from outside."""
    return jnp.concatenate([(carry @ kernel)[:1], inputs_t])


def closed():
    return DrivenSystem.from_cell(CELL, STATE).closed_loop(read, READOUT)


def gru_by_hand(state, x):
    kernel, recurrent = np.asarray(CELL.kernel[...]), np.asarray(CELL.recurrent_kernel[...])
    from_x = np.split(x @ kernel + np.asarray(CELL.bias[...]), 3)
    from_state = np.split(state @ recurrent, 3)
    r, z = (1 / (1 + np.exp(-a - b)) for a, b in zip(from_x[:2], from_state[:2], strict=True))
    candidate = np.tanh(from_x[2] + r * (from_state[2] + np.asarray(CELL.recurrent_bias[...])))
    return z * state + (1 - z) * candidate


def loop_by_hand(state):
    return gru_by_hand(state, np.tanh(state @ np.asarray(READOUT)))


def test_states_are_those_of_a_loop_by_hand():
    expected, state = [], np.asarray(STATE)
    for _ in range(20):
        state = loop_by_hand(state)
        expected.append(state)
    np.testing.assert_allclose(trajectory(closed(), steps=20), expected, rtol=0, atol=1e-14)


def test_the_jacobian_holds_the_way_through_the_feedback():
    """Central differences of the step by hand, with h = 1e-5: off by h^2 of third derivatives of order 1, and u/h."""
    h, directions = 1e-5, np.eye(HIDDEN)
    differences = [(loop_by_hand(STATE + h * e) - loop_by_hand(STATE - h * e)) / (2 * h) for e in directions]
    found = jacobian(closed(), STATE)
    np.testing.assert_allclose(found, np.stack(differences, axis=1), rtol=0, atol=1e-9)
    of_the_state_alone = jacobian(DrivenSystem.from_cell(CELL), STATE, read(READOUT, STATE, None))
    assert np.max(np.abs(found - of_the_state_alone)) > 0.05  # what would be missed


def test_inputs_from_outside_come_beside():
    """With the loop's own trajectory given as inputs, the open network makes the same states."""
    drive = noise(10)
    open_system = DrivenSystem.from_cell(CELL, STATE)
    states = trajectory(open_system.closed_loop(read_beside, READOUT), drive)
    before = jnp.concatenate([STATE[None], states[:-1]])
    read_by_it = jnp.concatenate([(before @ READOUT)[:, :1], drive], axis=1)
    np.testing.assert_allclose(states, trajectory(open_system, read_by_it), rtol=0, atol=1e-15)


@pytest.mark.slow
def test_exponents_of_a_linear_loop():
    """s' = W s + V R s: ln|eigenvalues| of W + V R, here a scaled rotation and one that decays faster."""
    target = np.array([[0.6, -0.6, 0.0], [0.6, 0.6, 0.0], [0.0, 0.0, 0.2]])
    cell = elman(3, activation="identity")
    kernel, readout = jnp.array([[0.5, -0.2, 0.3]]), jnp.array([[0.7], [0.1], [-0.4]])
    cell.kernel[...] = kernel
    cell.recurrent_kernel[...] = jnp.asarray(target) - readout @ kernel
    system = DrivenSystem.from_cell(cell, jnp.ones(3)).closed_loop(lambda r, carry, _: carry @ r, readout)
    exponents = lyapunov_spectrum(system, steps=80, tangent_transient=60).exponents
    np.testing.assert_allclose(exponents, np.log([0.72**0.5, 0.72**0.5, 0.2]), rtol=0, atol=1e-13)


def test_an_ensemble_of_readouts_in_the_networks_dtype():
    kernels = jnp.stack([READOUT, 0.5 * READOUT]).astype(jnp.float32)
    open_system = DrivenSystem.from_cell(CELL, STATE)

    @jax.jit
    @jax.vmap
    def last_states(kernel):
        return trajectory(open_system.closed_loop(read, kernel), steps=5)[-1]

    together = last_states(kernels)
    assert together.dtype == jnp.float64
    alone = trajectory(open_system.closed_loop(read, kernels[1]), steps=5)[-1]
    np.testing.assert_allclose(together[1], alone, rtol=0, atol=1e-15)


def test_bad_input_gets_one_sentence():
    system = DrivenSystem.from_cell(CELL)
    with pytest.raises(TypeError, match="feedback"):
        system.closed_loop(np.eye(4))
    with pytest.raises(ValueError, match=r"params must be a pytree of arrays, got str at params\[0\]"):
        system.closed_loop(read, ["text"])
    with pytest.raises(ValueError, match=r"feedback must return 2 features, got shape \(3,\)"):
        trajectory(system.closed_loop(read, jnp.ones((HIDDEN, 3))), steps=2)
    with pytest.raises(ValueError, match=r"of a cell that names its gates .*, got one made by closed_loop"):
        gate_decomposition(system.closed_loop(read, READOUT), steps=2)
