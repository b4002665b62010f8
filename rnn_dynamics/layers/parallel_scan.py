r"""All states of a linear recurrence at once.

The states of :math:`h_t = a_t \odot h_{t-1} + b_t` solve a linear system whose matrix has ones on its diagonal and -a_t
below it. So its derivatives, forward and backward, are linear recurrences too, the backward one in reversed time, and
nothing is kept for them but the decays a_t and the states.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.types import LinearInState

Solver = Callable[[Array, Array, bool], Array]
"""(decay, increment, reverse) -> states from zero on, all [T, ...]."""


def states_at_once(
    cell: LinearInState, carry: Array, inputs: Array, valid: Array | None, *, reverse: bool = False
) -> tuple[Array, Array]:
    """Run a linear cell over sequences without a step that waits for the one before it.

    Args:
        cell: the cell.
        carry: [B, H], before the first step.
        inputs: [T, B, F].
        valid: [T, B], the steps that are to be made; the others leave the state as it is and put out zeros. None: all.
        reverse: from the last step to the first.

    Returns:
        The carry after the last step, and the outputs [T, B, H].
    """
    decay, increment = cell.coefficients(cell.project(inputs))
    if valid is not None:
        decay = jnp.where(valid[:, :, None], decay, jnp.ones((), decay.dtype))
        increment = jnp.where(valid[:, :, None], increment, jnp.zeros((), increment.dtype))
    states = linear_recurrence(decay, increment, carry, reverse=reverse)
    outputs = cell.output(states)
    if valid is not None:
        outputs = jnp.where(valid[:, :, None], outputs, jnp.zeros((), outputs.dtype))
    return states[0 if reverse else -1], outputs


def linear_recurrence(
    decay: Array, increment: Array, start: Array, *, reverse: bool = False, solver: Solver | None = None
) -> Array:
    """Return all states of h_t = decay_t h_{t-1} + increment_t.

    Args:
        decay: [T, ...], of modulus at most 1: products over many steps are made, which else might overflow.
        increment: [T, ...].
        start: [...], the state before the first step.
        reverse: h_t = decay_t h_{t+1} + increment_t, from the last step to the first.
        solver: `in_a_tree` or `in_chunks` (default: what suits the backend; on CPUs `in_chunks`).

    Returns:
        The states [T, ...].
    """
    if solver is None:
        solver = in_chunks if jax.default_backend() == "cpu" else in_a_tree
    first = -1 if reverse else 0
    increment = increment.at[first].add(decay[first] * start)
    # The transpose takes each state's adjoint from the step after it, with the decay of that step.
    return jax.lax.custom_linear_solve(
        lambda states: states - decay * _shifted(states, reverse),
        increment,
        solve=lambda _, increment: solver(decay, increment, reverse),
        transpose_solve=lambda _, cotangent: solver(_shifted(decay, not reverse), cotangent, not reverse),
    )


def in_a_tree(decay: Array, increment: Array, reverse: bool) -> Array:
    """Solve from zero on by pairs of steps, pairs of pairs and so on (Blelloch 1990): 2 log2 T rounds, few kernels.

    Args:
        decay: [T, ...].
        increment: [T, ...].
        reverse: from the last step to the first.

    Returns:
        The states [T, ...].
    """
    return jax.lax.associative_scan(_composed, (decay, increment), reverse=reverse)[1]


def in_chunks(decay: Array, increment: Array, reverse: bool) -> Array:
    """Solve from zero on in about sqrt(T) chunks side by side: 3 sqrt(T) rounds, each array read twice, for CPUs.

    What a chunk does to any state is its decay and its increment as a whole; from them come the states at its borders,
    and from those the states within.

    Args:
        decay: [T, ...].
        increment: [T, ...].
        reverse: from the last step to the first.

    Returns:
        The states [T, ...].
    """
    steps = decay.shape[0]
    length = math.isqrt(steps - 1) + 1
    chunks = -(-steps // length)

    def chunked(values: Array, beyond: int) -> Array:
        padding = [(0, chunks * length - steps)] + [(0, 0)] * (values.ndim - 1)
        return jnp.pad(values, padding, constant_values=beyond).reshape(chunks, length, *values.shape[1:])

    decays, increments = chunked(decay, 1), chunked(increment, 0)

    def at(t: Array) -> tuple[Array, Array]:
        decay, increment = (
            jax.lax.dynamic_index_in_dim(values, t, 1, keepdims=False) for values in (decays, increments)
        )
        return decay, increment

    def compose(whole: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
        return _composed(whole, at(t)), None

    def pass_on(state: Array, whole: tuple[Array, Array]) -> tuple[Array, Array]:
        return _advanced(state, whole), state

    def fill(reached: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
        state = _advanced(reached[0], at(t))
        return (state, jax.lax.dynamic_update_index_in_dim(reached[1], state, t, 1)), None

    each_step = jnp.arange(length)
    nothing = jnp.ones_like(decays[:, 0]), jnp.zeros_like(increments[:, 0])
    wholes, _ = jax.lax.scan(compose, nothing, each_step, reverse=reverse)
    _, starts = jax.lax.scan(pass_on, jnp.zeros_like(increments[0, 0]), wholes, reverse=reverse)
    (_, states), _ = jax.lax.scan(fill, (starts, jnp.zeros_like(increments)), each_step, reverse=reverse)
    return states.reshape(chunks * length, *states.shape[2:])[:steps]


def _composed(first: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[Array, Array]:
    """Make one step, (decay, increment), of two."""
    return first[0] * then[0], then[0] * first[1] + then[1]


def _advanced(state: Array, step: tuple[Array, Array]) -> Array:
    return step[0] * state + step[1]


def _shifted(values: Array, reverse: bool) -> Array:
    """Move values [T, ...] one step on in the direction of the scan, zeros coming in."""
    nothing = jnp.zeros_like(values[:1])
    return jnp.concatenate([values[1:], nothing] if reverse else [nothing, values[:-1]])
