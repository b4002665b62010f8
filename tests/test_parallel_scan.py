"""All states of linear cells at once, and their derivatives: against a loop in NumPy, and against the scan."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, noise

from rnn_dynamics.dynamics import loss_adjoints
from rnn_dynamics.layers import Recurrence
from rnn_dynamics.layers.parallel_scan import in_a_tree, in_chunks, linear_recurrence

SOLVERS = pytest.mark.parametrize("solver", [in_a_tree, in_chunks], ids=lambda solver: solver.__name__)


def coefficients(steps, dtype, seed=0):
    """Decays in the unit circle [T, 2], some of them exactly 0 or 1, increments [T, 2] and a start [2]."""
    draw = np.random.default_rng(seed)
    parts = draw.normal(size=(2, steps, 2)) / 2 + 1j * draw.normal(size=(2, steps, 2)) / 2
    decay, increment = parts if np.issubdtype(dtype, np.complexfloating) else parts.real
    decay = decay / np.maximum(1, np.abs(decay))
    decay[steps // 2], decay[-1] = [0, 1], [1, 0]
    return decay, increment, np.array([0.5, -0.25], dtype)


def by_hand(decay, increment, start, reverse):
    states, state = np.zeros_like(increment), start
    for t in range(len(decay))[:: -1 if reverse else 1]:
        state = states[t] = decay[t] * state + increment[t]
    return states


@SOLVERS
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_states_are_those_of_the_loop(solver, dtype):
    """Of 9 steps, a square, and of numbers that leave a last chunk short or single."""
    cases = [coefficients(steps, dtype, seed=steps) for steps in (1, 2, 7, 9)]

    @jax.jit  # all at once: what takes the time is to compile
    def states(cases):
        return [[linear_recurrence(*given, reverse=way, solver=solver) for way in (False, True)] for given in cases]

    for given, (forward, backward) in zip(cases, states(cases), strict=True):
        np.testing.assert_allclose(forward, by_hand(*given, False), rtol=0, atol=1e-14)
        np.testing.assert_allclose(backward, by_hand(*given, True), rtol=0, atol=1e-14)


def scanned(decay, increment, start, reverse):
    def step(state, at_step):
        state = at_step[0] * state + at_step[1]
        return state, state

    return jax.lax.scan(step, start, (decay, increment), reverse=reverse)[1]


@SOLVERS
def test_derivatives_of_any_order_are_those_of_the_scan(solver):
    given, moved = (jax.tree.map(jnp.asarray, coefficients(5, np.complex128, seed)) for seed in (0, 1))

    def loss(run, *given):
        states = run(*given)
        return jnp.sum(jnp.sin(jnp.real(states)) + jnp.imag(states) ** 2)

    def derivatives(run, given, moved):
        gradient = jax.grad(partial(loss, run), argnums=(0, 1, 2))
        return jax.jvp(run, given, moved)[1], jax.jvp(gradient, given, moved)

    @jax.jit
    def both(given, moved):
        return [
            [
                derivatives(partial(run, reverse=reverse), given, moved)
                for run in (partial(linear_recurrence, solver=solver), scanned)
            ]
            for reverse in (False, True)
        ]

    for ours, theirs in both(given, moved):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13), ours, theirs)


LENGTHS = jnp.array([7, 1, 4])
VARIANTS = [{"lengths": True, "reverse": True, "carry": True}, {"checkpoint_every": 3}]


@pytest.mark.parametrize(("name", "variants"), [("LRUCell", VARIANTS), ("MinGRUCell", VARIANTS[:1])])
def test_parallel_equals_sequential(name, variants):
    """To rounding: the sums are taken in another order. Padding is poisoned, and gradients are compared too."""
    cell = any_cell(name, hidden=3)
    graph, params = nnx.split(cell)
    inputs = noise(3 * 7, 2).reshape(3, 7, 2)
    poisoned = jnp.where(jnp.arange(7)[None, :, None] < LENGTHS[:, None, None], inputs, jnp.nan)
    start = 0.3 + cell.initialize_carry((3, 2))

    def loss(params, start, parallel, options):
        options = dict(options)
        lengths = LENGTHS if options.pop("lengths", False) else None
        start = start if options.pop("carry", False) else None
        layer = Recurrence(nnx.merge(graph, params), parallel=parallel, **options)
        carry, outputs = layer(inputs if lengths is None else poisoned, lengths=lengths, initial_carry=start)
        return jnp.sum(jnp.sin(outputs)) + jnp.sum(jnp.abs(carry + 1) ** 2), (carry, outputs)

    @jax.jit
    def compared(params):
        run = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        return [[run(params, start, parallel, options) for parallel in (True, False)] for options in variants]

    for parallel, sequential in compared(params):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13), parallel, sequential)


def sum_of_outputs(layer, inputs):
    return jnp.sum(layer(inputs)[1] ** 2, axis=(1, 2))


@pytest.mark.slow
def test_what_listens_hears_the_scan():
    """And the same gradient as of all steps at once."""
    inputs, layer = noise(3 * 7, 2).reshape(3, 7, 2), Recurrence(any_cell("LRUCell", hidden=3), parallel=True)
    heard = loss_adjoints(layer, sum_of_outputs, inputs)
    assert np.all(heard.layers[""].state_norm > 0)
    gradient = nnx.jit(nnx.grad(lambda layer: jnp.mean(sum_of_outputs(layer, inputs))))(layer)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(heard.gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
