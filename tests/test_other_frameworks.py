"""The same LSTM in linen, Equinox and Haiku, by `from_step`: the states and Jacobians of ours, gate order and all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import any_cell, noise

from rnn_dynamics.dynamics import DrivenSystem, jacobian, trajectory

F, H = 2, 3
CELL = any_cell("LSTMCell", hidden=H, features=F)
INPUTS = noise(8, F)
ZEROS = jnp.zeros(H)


def framework(name):
    return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'rnn_dynamics[frameworks]'")


def gates_of(parameter):
    """Our parameter [..., 4*H] by the letters of its gates."""
    return dict(zip("ifgo", jnp.split(parameter[...], 4, axis=-1), strict=True))


def in_linen():
    """Its kernels have names; its carry is (c, h), and `apply` returns it first."""
    from flax import linen

    cell = linen.LSTMCell(H, param_dtype=jnp.float64)
    from_x = {f"i{gate}": {"kernel": kernel} for gate, kernel in gates_of(CELL.kernel).items()}
    bias = gates_of(CELL.bias)
    from_h = {f"h{g}": {"kernel": kernel, "bias": bias[g]} for g, kernel in gates_of(CELL.recurrent_kernel).items()}

    def step(params, carry, inputs_t):
        return cell.apply(params, carry, inputs_t)[0]

    return DrivenSystem.from_step(step, {"params": from_x | from_h}, (ZEROS, ZEROS)), False


def in_equinox():
    """torch's layout; its carry is (h, c), and the input comes first."""
    eqx = framework("equinox")
    cell = eqx.nn.LSTMCell(F, H, key=jax.random.key(0))
    weights = (CELL.kernel[...].T, CELL.recurrent_kernel[...].T, CELL.bias[...])
    cell = eqx.tree_at(lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias), cell, weights)
    params, static = eqx.partition(cell, eqx.is_inexact_array)

    def step(params, carry, inputs_t):
        return eqx.combine(params, static)(inputs_t, carry)

    return DrivenSystem.from_step(step, params, (ZEROS, ZEROS)), True


def in_haiku():
    """One matrix of both maps, gates i g f o, a forget bias of 1 beside b; its carry is (h, c) and comes second."""
    hk = framework("haiku")
    network = hk.without_apply_rng(hk.transform(lambda inputs_t, carry: hk.LSTM(H)(inputs_t, carry)))
    both = gates_of(jnp.concatenate([CELL.kernel[...], CELL.recurrent_kernel[...]]))
    bias = gates_of(CELL.bias)
    bias["f"] -= 1
    w, b = (jnp.concatenate([packed[gate] for gate in "igfo"], axis=-1) for packed in (both, bias))

    def step(params, carry, inputs_t):
        return network.apply(params, inputs_t, carry)[1]

    params = {"lstm/linear": {"w": w, "b": b}}
    return DrivenSystem.from_step(step, params, hk.LSTMState(hidden=ZEROS, cell=ZEROS)), True


@pytest.mark.usefixtures("allow_rank_promotion")
@pytest.mark.parametrize("make", [pytest.param(in_linen, marks=pytest.mark.slow), in_equinox, in_haiku])
def test_the_same_network_has_the_same_states_and_jacobians(make):
    """Theirs is (c, h), or (h, c), whose halves are then swapped."""
    system, hidden_first = make()
    ours = DrivenSystem.from_cell(CELL)
    order = np.roll(np.arange(2 * H), H if hidden_first else 0)
    states = trajectory(ours, INPUTS)
    np.testing.assert_allclose(trajectory(system, INPUTS)[:, order], states, rtol=0, atol=1e-15)
    theirs = jacobian(system, states[3][order], INPUTS[4])[np.ix_(order, order)]
    np.testing.assert_allclose(theirs, jacobian(ours, states[3], INPUTS[4]), rtol=0, atol=1e-15)
