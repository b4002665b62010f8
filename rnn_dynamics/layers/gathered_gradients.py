"""A scan over a cell whose backward pass takes the gradient by the weights from many steps at once."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from rnn_dynamics.layers.chunked_scan import masked_step, scan_in_chunks
from rnn_dynamics.types import Carry, PyTree, ReadsByRecur

CHUNK = 8
"""Steps taken at once: enough for matmuls at full speed, few enough for what they leave to stay in a CPU's cache."""


class _Step(NamedTuple):
    """One step as it was made, or those of a chunk with a leading axis.

    Attributes:
        carry: before the step.
        drive: `project` of the step's inputs.
        hidden: what each call of `recur` took, in the order of the calls.
        recurrent: what each returned.
        valid: [B], or None.
    """

    carry: Carry
    drive: Array
    hidden: list[Array]
    recurrent: list[Array]
    valid: Array | None


def gathered_scan(
    cell: ReadsByRecur, carry: Carry, inputs: Array, valid: Array | None, *, reverse: bool, chunk: int = CHUNK
) -> tuple[Carry, Array]:
    r"""Scan a cell: the values and derivatives of a plain scan, the gradient sooner on a CPU.

    Let :math:`a_t` be what `recur` makes of the state. The tangent of a step takes

    .. math::
        \dot a_t = \frac{\partial a_t}{\partial h_{t-1}} \dot h_{t-1} + \frac{\partial a_t}{\partial W} \dot W

    whose last term, like the tangent of the drive, waits for no other step's. So the two are written for all steps of
    a chunk at once, ahead of the scan over the tangents. Transposed, the gradient by the weights is one matmul over
    time and batch after the scan over the adjoints, in the place of a matmul, and a sum as large as W, at every step.
    What is said is the tangent (`jax.custom_jvp`), so derivatives of any mode and order follow from it.

    The backward pass makes the steps of a chunk anew from its first carry. So one carry a chunk is all that is kept
    between the passes; a CPU takes longer to write much into fresh memory than to compute it within its caches.

    Args:
        cell: whose arrays are its weights (`evaluated`).
        carry: leaves [B, H].
        inputs: [T, B, F].
        valid: which examples make a step, [T, B] (None: all). The others keep their carry and put out zeros.
        reverse: from the last step to the first.
        chunk: steps to a chunk.

    Returns:
        The carry after the last step, and the outputs [T, B, H].
    """
    graph, weights, rest = nnx.split(cell, _has_derivatives, ...)

    def scan_chunk(weights: PyTree, rest: PyTree, carry: Carry, xs: tuple[Array, Array | None]) -> tuple[Carry, Array]:
        def step(carry: Carry, at_step: tuple[Array, Array | None]) -> tuple[Carry, Array]:
            inputs_t, valid_t = at_step
            return masked_step(valid_t, carry, nnx.merge(graph, weights, rest)(carry, inputs_t))

        return jax.lax.scan(step, carry, xs, reverse=reverse)

    with_tangent = jax.custom_jvp(scan_chunk)
    with_tangent.defjvp(partial(_tangent, graph, reverse))
    scan = partial(jax.checkpoint(with_tangent, prevent_cse=False), weights, rest)
    return scan_in_chunks(scan, carry, (inputs, valid), chunk=chunk, reverse=reverse)


def _tangent(graph: Any, reverse: bool, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Scan a chunk and its tangent: ((carry, outputs), and the same of the tangents)."""
    weights, rest, carry, (inputs, valid) = primals
    weights_dot, _, carry_dot, (inputs_dot, _) = tangents

    def cell_with(weights: PyTree) -> ReadsByRecur:
        return nnx.merge(graph, weights, rest)

    def project(weights: PyTree, inputs: Array) -> Array:
        return cell_with(weights).project(inputs)

    def recur(call: int, weights: PyTree, hidden: Array) -> Array:
        return cell_with(weights).recur(hidden, *options[call])

    def recur_dot(call: int, hidden: Array) -> Array:
        return jax.jvp(lambda weights: recur(call, weights, hidden), (weights,), (weights_dot,))[1]

    result, steps, options = _record(partial(cell_with, weights), carry, inputs, valid, reverse)
    drive_dot = _as_rows(lambda x, dot: jax.jvp(project, (weights, x), (weights_dot, dot))[1], inputs, inputs_dot)
    recurrent_dot = [_as_rows(partial(recur_dot, call), hidden) for call, hidden in enumerate(steps.hidden)]

    @partial(jax.checkpoint, prevent_cse=False)  # else what a tangent reads of its step would be stored, not remade
    def step_tangent(carry_dot: Carry, at_step: tuple) -> tuple[Carry, Array]:
        step, drive_dot, recurrent_dot = at_step

        def made_and_hidden(weights: PyTree, carry: Carry, drive: Array, recurrent: list[Array]) -> Any:
            return _replay(cell_with(weights), _Step(carry, drive, step.hidden, recurrent, step.valid))

        def push(recurrent_dot: list[Array]) -> Any:
            point = (weights, step.carry, step.drive, step.recurrent)
            return jax.jvp(made_and_hidden, point, (weights_dot, carry_dot, drive_dot, recurrent_dot))[1]

        # What a call of `recur` takes may hang on what the calls before it returned, so their tangents come in turn.
        for call, hidden in enumerate(step.hidden):
            _, hidden_dot = push(recurrent_dot)
            by_state = jax.jvp(partial(recur, call, weights), (hidden,), (hidden_dot[call],))[1]
            recurrent_dot = [*recurrent_dot[:call], recurrent_dot[call] + by_state, *recurrent_dot[call + 1 :]]
        return push(recurrent_dot)[0]

    return result, jax.lax.scan(step_tangent, carry_dot, (steps, drive_dot, recurrent_dot), reverse=reverse)


def _record(
    make_cell: Callable[[], ReadsByRecur], carry: Carry, inputs: Array, valid: Array | None, reverse: bool
) -> tuple[tuple[Carry, Array], _Step, list[tuple]]:
    """Scan a chunk: (carry, outputs), what its steps were, and the options of every call of `recur` in a step."""
    options: list[tuple] = []

    def step(carry: Carry, at_step: tuple[Array, Array | None]) -> tuple[Carry, tuple[Array, _Step]]:
        inputs_t, valid_t = at_step
        cell = make_cell()  # in here, as Flax lets no cell be changed that was made outside of the scan
        made = _Step(carry, cell.project(inputs_t), [], [], valid_t)
        own_recur = cell.recur
        options.clear()

        def recorded(hidden: Array, *further: Any) -> Array:
            options.append(further)
            made.hidden.append(hidden)
            made.recurrent.append(own_recur(hidden, *further))
            return made.recurrent[-1]

        new_carry, output = masked_step(valid_t, carry, _advance(cell, recorded, carry, made.drive))
        return new_carry, (output, made)

    carry, (outputs, steps) = jax.lax.scan(step, carry, (inputs, valid), reverse=reverse)
    return (carry, outputs), steps, options


def _replay(cell: ReadsByRecur, step: _Step) -> tuple[tuple[Carry, Array], list[Array]]:
    """Make a step of which it is known what `recur` returned: (carry, output), and what each call of it takes."""
    taken: list[Array] = []

    def remembered(hidden: Array, *_: Any) -> Array:
        taken.append(hidden)
        return step.recurrent[len(taken) - 1]

    made = masked_step(step.valid, step.carry, _advance(cell, remembered, step.carry, step.drive))
    return made, taken


def _advance(cell: ReadsByRecur, recur: Callable[..., Array], carry: Carry, drive: Array) -> tuple[Carry, Array]:
    """Make a step of a cell that nobody else holds, with another `recur` in the place of its own."""
    cell.recur = recur
    return cell.advance(carry, drive)


def _as_rows(function: Callable[..., Array], *arrays: Array) -> Array:
    """Apply a function of rows to arrays [T, B, ...] as to one batch: a matmul of matrices is several times faster."""
    result = function(*(array.reshape(-1, *array.shape[2:]) for array in arrays))
    return result.reshape(*arrays[0].shape[:2], *result.shape[1:])


def _has_derivatives(_: Any, leaf: Any) -> bool:
    """Tell the numbers of a cell from what is none, such as random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
