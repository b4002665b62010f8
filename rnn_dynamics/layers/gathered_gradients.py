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
    hidden: tuple[Array, ...]
    recurrent: tuple[Array, ...]
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
    scan_chunk = jax.checkpoint(_chunk_with_tangent(graph, reverse), prevent_cse=False)

    def scan(carry: Carry, at_steps: tuple[Array, Array | None]) -> tuple[Carry, Array]:
        return scan_chunk(weights, rest, carry, *at_steps)

    return scan_in_chunks(scan, carry, (inputs, valid), chunk=chunk, reverse=reverse)


def _chunk_with_tangent(graph: Any, reverse: bool) -> Callable[..., tuple[Carry, Array]]:
    """Return the scan (weights, rest, carry, inputs [T, B, F], valid) -> (carry, outputs) with its tangent."""

    @jax.custom_jvp
    def chunk(weights: PyTree, rest: PyTree, carry: Carry, inputs: Array, valid: Array | None) -> tuple[Carry, Array]:
        cell = nnx.merge(graph, weights, rest)

        def step(carry: Carry, at_step: tuple[Array, Array | None]) -> tuple[Carry, Array]:
            inputs_t, valid_t = at_step
            return masked_step(valid_t, carry, cell(carry, inputs_t))

        return jax.lax.scan(step, carry, (inputs, valid), reverse=reverse)

    @chunk.defjvp
    def tangent(primals: tuple, tangents: tuple) -> tuple[tuple[Carry, Array], tuple[Carry, Array]]:
        weights, rest, carry, inputs, valid = primals
        weights_dot, _, carry_dot, inputs_dot, _ = tangents
        cell_with = partial(nnx.merge, graph, rest)
        last_and_outputs, steps, options = _record(partial(cell_with, weights), carry, inputs, valid, reverse)

        def project(weights: PyTree, inputs: Array) -> Array:
            return cell_with(weights).project(inputs)

        def recur(call: int, weights: PyTree, hidden: Array) -> Array:
            return cell_with(weights).recur(hidden, *options[call])

        drive_dot = _for_all_steps(lambda x, x_dot: jax.jvp(project, (weights, x), (weights_dot, x_dot))[1])(
            inputs, inputs_dot
        )
        recurrent_dot = tuple(
            _for_all_steps(lambda h, call=call: jax.jvp(lambda w: recur(call, w, h), (weights,), (weights_dot,))[1])(h)
            for call, h in enumerate(steps.hidden)
        )

        @partial(jax.checkpoint, prevent_cse=False)
        def step_tangent(carry_dot: Carry, at_step: tuple) -> tuple[Carry, Array]:
            step, drive_dot, recurrent_dot = at_step

            def of_weights(weights: PyTree, carry: Carry, drive: Array, recurrent: tuple[Array, ...]) -> Any:
                return _replay(cell_with(weights), step._replace(carry=carry, drive=drive, recurrent=recurrent))

            known = [jnp.zeros_like(dot) for dot in recurrent_dot]
            point = (weights, step.carry, step.drive, step.recurrent)
            for call, hidden in enumerate(step.hidden):
                _, (_, hidden_dot) = jax.jvp(of_weights, point, (weights_dot, carry_dot, drive_dot, tuple(known)))
                through = jax.jvp(partial(recur, call, weights), (hidden,), (hidden_dot[call],))[1]
                known[call] = through + recurrent_dot[call]
            _, (made_dot, _) = jax.jvp(of_weights, point, (weights_dot, carry_dot, drive_dot, tuple(known)))
            return made_dot

        return last_and_outputs, jax.lax.scan(
            step_tangent, carry_dot, (steps, drive_dot, recurrent_dot), reverse=reverse
        )

    return chunk


def _record(
    make_cell: Callable[[], ReadsByRecur], carry: Carry, inputs: Array, valid: Array | None, reverse: bool
) -> tuple[tuple[Carry, Array], _Step, list[tuple]]:
    """Scan a chunk: (carry, outputs), what its steps were, and what calls of `recur` took besides the hidden state."""
    options = []

    def step(carry: Carry, at_step: tuple[Array, Array | None]) -> tuple[Carry, tuple[Array, _Step]]:
        inputs_t, valid_t = at_step
        cell = make_cell()  # within the scan, as Flax lets no cell be changed at another level of tracing
        recur, drive = cell.recur, cell.project(inputs_t)
        hidden, recurrent = [], []
        options.clear()

        def recorded(asked: Array, *further: Any) -> Array:
            hidden.append(asked)
            recurrent.append(recur(asked, *further))
            options.append(further)
            return recurrent[-1]

        new_carry, output = masked_step(valid_t, carry, _advance(cell, recorded, carry, drive))
        return new_carry, (output, _Step(carry, drive, tuple(hidden), tuple(recurrent), valid_t))

    carry, (outputs, steps) = jax.lax.scan(step, carry, (inputs, valid), reverse=reverse)
    return (carry, outputs), steps, options


def _replay(cell: ReadsByRecur, step: _Step) -> tuple[tuple[Carry, Array], tuple[Array, ...]]:
    """Make a step with what `recur` returned at hand: (carry, output), and what each call of it took."""
    hidden = []

    def remembered(asked: Array, *_: Any) -> Array:
        hidden.append(asked)
        return step.recurrent[len(hidden) - 1]

    made = masked_step(step.valid, step.carry, _advance(cell, remembered, step.carry, step.drive))
    return made, tuple(hidden)


def _advance(cell: ReadsByRecur, recur: Callable[..., Array], carry: Carry, drive: Array) -> tuple[Carry, Array]:
    """Make a step of a cell that nobody else holds, with another `recur` in the place of its own."""
    cell.recur = recur  # pyright: ignore[reportAttributeAccessIssue]
    return cell.advance(carry, drive)


def _for_all_steps(function: Callable[..., Array]) -> Callable[..., Array]:
    """Apply a function of rows to arrays [T, B, ...] as to one batch: matmuls of matrices are the fast ones."""

    def applied(*arrays: Array) -> Array:
        result = function(*(array.reshape(-1, *array.shape[2:]) for array in arrays))
        return result.reshape(*arrays[0].shape[:2], *result.shape[1:])

    return applied


def _has_derivatives(_: Any, leaf: Any) -> bool:
    """Tell the numbers of a cell from what is none, such as random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
