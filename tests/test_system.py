"""What can be seen as a driven system, and what is refused in one sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, noise

from rnn_dynamics.cells import CELLS
from rnn_dynamics.dynamics import DrivenSystem, jacobian, trajectory

STATE = jnp.array([0.3, -0.2])


def halved(params, carry, inputs_t):
    return carry / 2


STEPS_THAT_CHANGE_THE_CARRY = {
    "shape": (lambda params, carry, inputs_t: carry[:1], r"takes .* shapes \(\(2,\),\), it returned .* \(\(1,\),\)"),
    "structure": (lambda params, carry, inputs_t: (carry, carry), r"takes PyTreeDef\(\*\) .* returned PyTreeDef\(\(\*"),
    "nothing": (lambda params, carry, inputs_t: None, "returned PyTreeDef.None. with shapes "),
    "lower dtype": (
        lambda params, carry, inputs_t: carry.astype(jnp.float32),
        "the state's dtype float64, got float32; make the system with dtype=",
    ),
    "whole numbers": (lambda params, carry, inputs_t: jnp.sign(carry).astype(int), "dtype float64, got int64; make"),
}


@pytest.mark.parametrize(("step", "sentence"), STEPS_THAT_CHANGE_THE_CARRY.values(), ids=STEPS_THAT_CHANGE_THE_CARRY)
@pytest.mark.parametrize("measure", [trajectory, jacobian])
def test_a_step_that_changes_its_carry_is_refused(measure, step, sentence):
    system = DrivenSystem.from_step(step, jnp.float64(0), STATE)
    with pytest.raises(ValueError, match=sentence) as failure:
        trajectory(system, steps=3) if measure is trajectory else jacobian(system, STATE)
    assert "\n" not in str(failure.value)


def scaled(scale, carry, inputs_t):
    long, short = carry
    return scale * long, scale * short


def test_one_array_of_another_dtype_is_refused_until_all_are_cast():
    """A float32 array hides in a float64 state."""

    def in_part(scale, carry, inputs_t):
        long, short = scaled(scale, carry, inputs_t)
        return long, short.astype(jnp.float32)

    carry = (STATE, STATE.astype(jnp.float32))
    with pytest.raises(ValueError, match="dtype float64, got float32 and float64"):
        trajectory(DrivenSystem.from_step(in_part, jnp.float64(0.5), carry), steps=1)
    states = trajectory(DrivenSystem.from_step(scaled, jnp.float64(0.5), carry), steps=1)
    np.testing.assert_allclose(states, [[0.15, -0.1, 0.15, -0.1]], rtol=1e-7)  # of float32, where the carry began


def test_parameters_of_more_digits_than_the_state_need_a_dtype():
    carry = (STATE.astype(jnp.float32),) * 2
    with pytest.raises(ValueError, match="the state's dtype float32, got float64; make the system with dtype="):
        trajectory(DrivenSystem.from_step(scaled, jnp.float64(0.5), carry), steps=1)
    for dtype in (jnp.float32, jnp.float64):
        assert trajectory(DrivenSystem.from_step(scaled, jnp.float64(0.5), carry, dtype=dtype), steps=1).dtype == dtype


@pytest.mark.parametrize("name", CELLS)
def test_cells_compute_in_the_dtype_asked_for(name):
    """Whatever that of the parameters; not under a carry of more digits, which would hide that the gates have fewer."""
    cell = any_cell(name, hidden=2, dtype=jnp.float32)
    for dtype in (None, jnp.float32, jnp.float64):
        system = DrivenSystem.from_cell(cell, dtype=dtype)
        after = jax.eval_shape(system.step, system.initial_state, noise(1, 2)[0].astype(system.initial_state.dtype))
        assert after.dtype == (dtype or jnp.float32)
    carry = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(leaf, jnp.float64)), cell.initialize_carry((2,)))
    with pytest.raises(ValueError, match=r"carry must have the cell's dtype float32, got float64; dtype=\.\.\. casts"):
        DrivenSystem.from_cell(cell, carry)
    assert DrivenSystem.from_cell(cell, carry, dtype=jnp.float64).initial_state.dtype == jnp.float64


def test_a_carry_that_is_not_the_cells_is_refused():
    for carry in (jnp.zeros(4), (jnp.zeros(3), jnp.zeros(4))):
        with pytest.raises(ValueError, match=r"carry must be like the cell's own, .*\(4,\), \(4,\).*, got") as failure:
            DrivenSystem.from_cell(any_cell("LSTMCell", hidden=4), carry)
        assert "\n" not in str(failure.value)


def test_a_dtype_that_jax_is_not_set_to_is_refused():
    cell = any_cell("ElmanCell", dtype=jnp.float32)
    for dtype in ("int32", "bool", "number"):
        with pytest.raises(ValueError, match=rf"^dtype must be one of floating point, such as float64, got '{dtype}'$"):
            DrivenSystem.from_cell(cell, dtype=dtype)
    with jax.enable_x64(False), pytest.raises(ValueError, match=r'dtype float64 needs .*"jax_enable_x64", True'):
        DrivenSystem.from_cell(cell, dtype="float64")


def test_a_jacobian_without_inputs_is_that_under_zeros():
    system = DrivenSystem.from_cell(any_cell("GRUCell"))
    state = jnp.full(system.state_size, 0.3)
    np.testing.assert_array_equal(jacobian(system, state), jacobian(system, state, jnp.zeros(2)))


def test_a_cell_of_flax_with_another_dtype_for_its_computation():
    cell = nnx.GRUCell(1, 2, dtype=jnp.float32, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    assert trajectory(DrivenSystem.from_cell(cell, dtype=jnp.float64), steps=1).dtype == jnp.float64


@pytest.mark.parametrize("dtype", [None, jnp.float32])
@pytest.mark.parametrize(
    ("params", "carry", "sentence"),
    [
        ({"a": "text"}, STATE, r"params must be a pytree of arrays, got str at params\['a'\]"),
        ([STATE, jnp.tanh], STATE, r"params must be a pytree of arrays, got .* at params\[1\]"),
        (np.array(["text"]), STATE, "params must be a pytree of arrays, got ndarray at params$"),
        (None, (STATE, "text"), r"carry must be a pytree of arrays, got str at carry\[1\]"),
        (None, jnp.arange(2), "carry must hold floating point arrays, got one of dtype int"),
    ],
)
def test_what_is_no_array_is_refused(params, carry, sentence, dtype):
    with pytest.raises(ValueError, match=sentence) as failure:
        DrivenSystem.from_step(halved, params, carry, dtype=dtype)
    assert "\n" not in str(failure.value)


def test_parameters_may_be_numbers_keys_or_none():
    params = {"number": 2, "key": jax.random.key(0), "none": None, "array": np.ones(2)}
    np.testing.assert_array_equal(trajectory(DrivenSystem.from_step(halved, params, STATE), steps=1), STATE[None] / 2)
