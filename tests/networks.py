"""Small networks and independent oracles that several tests measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rnn_dynamics.cells import CELLS, ElmanCell, LSTMCell, PackedCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import DrivenSystem, jacobian, trajectory

zeros = jax.nn.initializers.zeros


def slow_but(quick, names):
    """The names as parameters of a test, those that are not quick to be left to `make test ARGS='-m slow'`."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


KINDS = ("ElmanCell", "LSTMCell", "GRUCell", "ExpRNNCell", "SLSTMCell", "LRUCell")
"""Cells that differ in what they are made of, and in what rounding does to them."""
EACH_CELL = slow_but(KINDS, CELLS)


def elman(hidden=8, features=1, gain=2.0, seed=0, dtype=jnp.float64, **options):
    """A tanh network in the chaotic phase."""
    return ElmanCell(
        features, hidden, recurrent_kernel_init=gaussian(gain), param_dtype=dtype, rngs=nnx.Rngs(seed), **options
    )


def lstm(hidden=8, features=1, gain=5.0, seed=0, dtype=jnp.float64, **options):
    return LSTMCell(
        features, hidden, recurrent_kernel_init=gaussian(gain), param_dtype=dtype, rngs=nnx.Rngs(seed), **options
    )


def any_cell(name, hidden=6, features=2, gain=1.5, seed=0, dtype=jnp.float64):
    """A cell of that name, its biases drawn too; of a cell that takes no kernels, all that it has."""
    options = {}
    if issubclass(CELLS[name], PackedCell):
        options["recurrent_kernel_init"] = gaussian(gain)
    cell = CELLS[name](features, hidden, param_dtype=dtype, rngs=nnx.Rngs(seed), **options)
    for number, (_, parameter) in enumerate(nnx.to_flat_state(nnx.state(cell, nnx.Param))):
        if parameter.ndim == 1 or not options:
            key = jax.random.fold_in(jax.random.key(seed), number)
            parameter[...] += 0.3 * jax.random.normal(key, parameter.shape, dtype)
    return cell


def noise(steps, features=1, scale=0.5, seed=1):
    return scale * jax.random.normal(jax.random.key(seed), (steps, features), jnp.float64)


def linear_system(matrix):
    """s -> W s, undriven, at rest: the state of a growing one would overflow."""
    matrix = jnp.asarray(matrix)
    return DrivenSystem.from_step(_linear_step, matrix, jnp.zeros(matrix.shape[0], matrix.dtype))


def _linear_step(matrix, carry, inputs_t):
    return matrix @ carry


def dense_jacobians(system, inputs):
    """J_1 ... J_T as matrices [T, N, N], by forward differentiation along the trajectory."""
    states = jnp.concatenate([system.initial_state[None], trajectory(system, inputs)[:-1]])
    return np.asarray(jax.vmap(lambda state, x: jacobian(system, state, x))(states, inputs))
