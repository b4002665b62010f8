"""Wide networks with untied or tied weights, to lay beside the mean-field theory of their cells."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from rnn_dynamics.cells import GRUCell, LSTMCell, MinimalRNNCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import DrivenSystem
from rnn_dynamics.theory.gated_mean_field import GateLaw
from rnn_dynamics.theory.gru_mean_field import gru_mean_field
from rnn_dynamics.theory.lstm_mean_field import lstm_mean_field
from rnn_dynamics.theory.minimal_rnn_mean_field import minimal_rnn_mean_field

FEATURES = 200
"""So many that the inputs' norm hardly changes from step to step: by 10 %."""


def blocks(values):
    """An initialiser of kernels whose blocks, side by side, have these gains."""

    def init(key, shape, dtype):
        width = shape[1] // len(values)
        return gaussian(1.0)(key, shape, dtype) * jnp.repeat(jnp.asarray(values, dtype), width)[None, :]

    return init


def biases(means):
    def init(key, shape, dtype):
        return jnp.repeat(jnp.asarray(means, dtype), shape[0] // len(means))

    return init


def minimal_rnn(hidden, key, gain, bias, drive):
    cell = MinimalRNNCell(
        FEATURES,
        hidden,
        recurrent_kernel_init=gaussian(gain),
        kernel_init=gaussian(jnp.sqrt(drive)),
        bias_init=biases([bias, 0.2]),
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(key),
    )
    cell.content_kernel[...] /= jnp.sqrt(drive)  # of gain 1
    return cell


def gru(hidden, key, gain, bias, drive):
    cell = GRUCell(
        FEATURES,
        hidden,
        recurrent_kernel_init=blocks([gain, gain / 2, gain]),
        kernel_init=gaussian(jnp.sqrt(drive)),
        bias_init=lambda key, shape, dtype: jnp.zeros(shape, dtype),
        update_bias=bias,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(key),
    )
    cell.recurrent_bias[...] = jnp.full(hidden, 0.2)
    return cell


def lstm(hidden, key, gain, bias, drive):
    return LSTMCell(
        FEATURES,
        hidden,
        recurrent_kernel_init=blocks([gain, gain / 2, gain, gain]),
        kernel_init=gaussian(jnp.sqrt(drive)),
        bias_init=biases([0.5, 0.0, 0.2, -0.3]),
        forget_bias=bias,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(key),
    )


def minimal_rnn_theory(gain, bias, drive, input_correlation=1.0):
    return minimal_rnn_mean_field(
        GateLaw(gain, bias_mean=bias), GateLaw(0.0, drive, 0.2), input_correlation=input_correlation
    )


def gru_theory(gain, bias, drive, input_correlation=1.0):
    return gru_mean_field(
        GateLaw(gain, drive),
        GateLaw(gain / 2, drive, bias),
        GateLaw(gain, drive),
        recurrent_bias=GateLaw(bias_mean=0.2),
        input_correlation=input_correlation,
    )


def lstm_theory(gain, bias, drive, input_correlation=1.0):
    return lstm_mean_field(
        GateLaw(gain, drive, 0.5), GateLaw(gain / 2, drive, bias), GateLaw(gain, drive, 0.2), GateLaw(gain, drive, -0.3)
    )


CELLS_AND_THEORIES = {
    "minimal_rnn": (minimal_rnn, minimal_rnn_theory),
    "gru": (gru, gru_theory),
    "lstm": (lstm, lstm_theory),
}


def simulate(name, setting, *, hidden, steps, transient, tied, input_correlation=1.0, seed=0):
    """Run two replicas and a tangent, and return by name one number for each step, [steps].

    Args:
        name: of the cell.
        setting: gain, bias, drive.
        hidden: H.
        steps: that are measured.
        transient: that are not.
        tied: whether the weights stay; otherwise they are drawn anew at every step.
        input_correlation: of the replicas' inputs.
        seed: of everything.
    """
    make = CELLS_AND_THEORIES[name][0]
    system = DrivenSystem.from_cell(make(hidden, jax.random.key(seed), *setting))
    size = system.state_size
    keys = jax.random.split(jax.random.key(seed + 1), steps + transient)

    def step(loop, key):
        state, other, tangent = loop
        for_weights, for_inputs, for_others, for_probe = jax.random.split(key, 4)
        now = system if tied else DrivenSystem.from_cell(make(hidden, for_weights, *setting))
        inputs = jax.random.normal(for_inputs, (FEATURES,))
        own = jax.random.normal(for_others, (FEATURES,))
        others = input_correlation * inputs + jnp.sqrt(1 - input_correlation**2) * own
        probe = jax.random.rademacher(for_probe, (size,), jnp.float64)
        new, push = jax.linearize(lambda s: now.step(s, inputs), state)
        pushed, grown = push(probe), push(tangent)
        (pulled,) = jax.linear_transpose(push, state)(pushed)
        h, h_other = state[-hidden:], other[-hidden:]
        growth = jnp.sum(grown**2)
        measured = {
            "second_moment": jnp.mean(h**2),
            "memory_second_moment": jnp.mean(state[:hidden] ** 2),
            "overlap": jnp.mean(h * h_other),
            "log_growth": jnp.log(growth),
            "mean_squared_singular_value": jnp.mean(pushed**2),
            "fourth": jnp.mean(pulled**2),
        }
        return (new, now.step(other, others), grown / jnp.sqrt(growth)), measured

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})  # running takes longer than compiling
    def run():
        first, second, third = jax.random.normal(jax.random.key(seed + 2), (3, size))
        return jax.lax.scan(step, (0.3 * first, 0.3 * second, third / jnp.linalg.norm(third)), keys)[1]

    return {name: np.asarray(values)[transient:] for name, values in run().items()}


def mean_and_error(values, batches=10):
    """Mean over steps with its standard error, by batch means."""
    means = np.mean(values[: len(values) // batches * batches].reshape(batches, -1), axis=1)
    return np.mean(means), np.std(means, ddof=1) / np.sqrt(batches)
