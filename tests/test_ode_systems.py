"""Differential equations as maps: tangents in closed form, claimed orders, a network of rates, units of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import noise

from rnn_dynamics.cells import LeakyElmanCell
from rnn_dynamics.dynamics import DrivenSystem, gate_decomposition, jacobian, lyapunov_spectrum, trajectory

MATRIX = jnp.array([[-0.1, 1.0, 0.3], [-1.0, -0.1, 0.0], [0.0, 0.2, -0.7]])


def linear(matrix, carry, inputs_t):
    return matrix @ carry


def rates(params, carry, inputs_t):
    """A network of rates in continuous time."""
    kernel, recurrent_kernel, bias = params
    return -carry + jnp.tanh(inputs_t @ kernel + carry @ recurrent_kernel + bias)


def taylor(matrix, order):
    """1 + A + ... + A^order / order!, which is the step of any such method of as many stages."""
    term = total = np.eye(len(matrix))
    for power in range(1, order + 1):
        term = term @ matrix / power
        total = total + term
    return total


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
def test_the_tangent_of_a_linear_flow_is_a_taylor_polynomial(method, order):
    system = DrivenSystem.from_ode(linear, MATRIX, jnp.ones(3), dt=0.4, method=method)
    expected = taylor(0.4 * np.asarray(MATRIX), order)
    np.testing.assert_allclose(jacobian(system, system.initial_state), expected, rtol=0, atol=1e-15)


def pendulum(params, carry, inputs_t):
    angle, speed = carry
    return speed, -jnp.sin(angle)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("rk4", 4)])
def test_errors_fall_as_the_order_says(method, order):
    """Of a pendulum after one unit of time, of state and tangent, beside steps of 1/1024 of fourth order."""

    def after_a_unit(method, steps):
        system = DrivenSystem.from_ode(
            pendulum, None, (jnp.float64(1.5), jnp.float64(0.3)), dt=1 / steps, method=method
        )

        def flow(state):
            return jax.lax.fori_loop(0, steps, lambda _, state: system.step(state, None), state)

        return jax.jit(lambda state: jnp.concatenate([flow(state)[None], jax.jacfwd(flow)(state)]))(
            system.initial_state
        )

    exact = after_a_unit("rk4", 1024)
    coarse, fine = (jnp.max(jnp.abs(after_a_unit(method, steps) - exact)) for steps in (32, 64))
    assert float(jnp.log2(coarse / fine)) == pytest.approx(order, abs=0.1)  # the next order is 1/32 of it


def test_euler_of_a_rate_network_is_the_leaky_cell():
    step, inputs = 0.3, noise(20, 2)
    cell = LeakyElmanCell(2, 5, step=step, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    leaky = DrivenSystem.from_cell(cell)
    params = (cell.kernel[...], cell.recurrent_kernel[...], cell.bias[...])
    flow = DrivenSystem.from_ode(rates, params, jnp.zeros(5), dt=step, method="euler")

    @jax.jit
    def states_and_jacobian(system):
        states = trajectory(system, inputs)
        return states, jacobian(system, states[3], inputs[4])

    for ours, theirs in zip(states_and_jacobian(flow), states_and_jacobian(leaky), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15)


@pytest.mark.slow
def test_exponents_per_unit_of_time_and_steps_that_vmap_carries():
    """Of a linear flow ln|p4(dt a)| / dt for its eigenvalues a, which at dt = 0.1 are Re(a) to 1e-6."""
    eigenvalues = np.linalg.eigvals(np.asarray(MATRIX))

    @jax.jit
    @jax.vmap
    def exponents(dt):
        system = DrivenSystem.from_ode(linear, MATRIX, jnp.ones(3), dt=dt)
        return lyapunov_spectrum(system, steps=540, tangent_transient=500).exponents / system.params.dt

    steps = np.array([0.1, 0.4])
    found = exponents(jnp.asarray(steps))
    for dt, ours in zip(steps, found, strict=True):
        growth = sum((dt * eigenvalues) ** power / factorial for power, factorial in enumerate((1, 1, 2, 6, 24)))
        expected = np.sort(np.log(np.abs(growth)) / dt)[::-1]
        assert float(jnp.sum(ours)) == pytest.approx(expected.sum(), abs=1e-13)
        # A rotation in coordinates that are not its own: its frame wobbles, and the mean over 40 steps with it.
        np.testing.assert_allclose(ours[2], expected[2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[0, 2], np.sort(eigenvalues.real)[0], rtol=0, atol=1e-6)


def test_carries_of_several_arrays_in_single_precision():
    def spring(stiffness, carry, inputs_t):
        position, velocity = carry["position"], carry["velocity"]
        return {"position": velocity, "velocity": -stiffness * position}

    carry = {"position": jnp.ones((2, 1), jnp.float32), "velocity": jnp.zeros((2, 1), jnp.float32)}
    system = DrivenSystem.from_ode(spring, jnp.float32(1.0), carry, dt=0.1)
    states = trajectory(system, steps=10)
    assert states.dtype == jnp.float32
    np.testing.assert_allclose(states[-1], np.repeat([np.cos(1), -np.sin(1)], 2), rtol=0, atol=2e-6)


def of_one_number(params, carry, inputs_t):
    return jnp.sum(carry)


@pytest.mark.parametrize(
    ("rhs", "options", "sentence"),
    [
        (linear, {"dt": 0}, "dt must be one positive number, got 0"),
        (linear, {"dt": np.nan}, "dt must be one positive number, got nan"),
        (linear, {"dt": jnp.ones(3)}, "dt must be one positive number, got "),
        (linear, {"dt": 0.1, "method": "rk5"}, "method must be one of euler, rk4, got 'rk5'"),
        (of_one_number, {"dt": 0.1}, r"rhs must return a derivative like the carry: .* returned .* shapes \(\(\),\)"),
    ],
)
def test_bad_input_gets_one_sentence(rhs, options, sentence):
    with pytest.raises(ValueError, match=sentence) as failure:
        trajectory(DrivenSystem.from_ode(rhs, MATRIX, jnp.ones(3), **options), steps=1)
    assert "\n" not in str(failure.value)


def test_what_is_no_function_or_has_no_gates():
    with pytest.raises(TypeError, match="rhs"):
        DrivenSystem.from_ode(np.eye(3), None, jnp.ones(3), dt=0.1)
    with pytest.raises(ValueError, match="got one made by from_ode"):
        gate_decomposition(DrivenSystem.from_ode(linear, MATRIX, jnp.ones(3), dt=0.1), steps=2)
