"""A scan over a cell whose backward pass takes the gradient by the weights from many steps at once."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from rnn_dynamics.layers.chunked_scan import masked_step, scan_in_chunks
from rnn_dynamics.types import Carry, PyTree, ReadsByRecur

CHUNK = 16
"""Steps taken at once: enough for matmuls at full speed, few enough for what they leave to stay in a CPU's cache."""

CARRIES = "carries before the steps"


class _Steps(NamedTuple):
    """What the tangents of steps are taken at: of one step, or of all of a chunk's with a leading axis.

    Attributes:
        carry: before the step.
        drive: `project` of the step's inputs.
        hidden: what each call of `recur` takes, in the order of the calls.
        recurrent: what each returns.
        valid: [B], or None.
    """

    carry: Carry
    drive: Array
    hidden: list[Array]
    recurrent: list[Array]
    valid: Array | None


def gathered_scan(
    cell: ReadsByRecur, carry: Carry, inputs: Array, valid: Array | None, *, reverse: bool, checkpoint_every: int | None
) -> tuple[Carry, Array]:
    r"""Scan a cell: the values and derivatives of a plain scan, the gradient sooner on a CPU.

    Let :math:`a_t` be what `recur` makes of the state. The tangent of a step takes

    .. math::
        \dot a_t = \frac{\partial a_t}{\partial h_{t-1}} \dot h_{t-1} + \frac{\partial a_t}{\partial W} \dot W

    whose last term, like the tangent of the drive, waits for no other step's. So the two are written for all steps of
    a chunk at once, ahead of the scan over the tangents. Transposed, the gradient by the weights is one matmul over
    time and batch after the scan over the adjoints, in the place of a matmul, and a sum as large as W, at every step.
    What is said is the tangent (`jax.custom_jvp`), so derivatives of any mode and order follow from it.

    Between the passes the carries alone are kept, and what the steps were is made anew from them, for all steps of a
    chunk at once: a CPU takes longer to write much into fresh memory than to compute it within its caches.

    Args:
        cell: whose arrays are its weights (`evaluated`).
        carry: leaves [B, H].
        inputs: [T, B, F].
        valid: which examples make a step, [T, B] (None: all). The others keep their carry and put out zeros.
        reverse: from the last step to the first.
        checkpoint_every: keep one carry in so many steps, and make the others anew, too (None: keep them all).

    Returns:
        The carry after the last step, and the outputs [T, B, H].
    """
    graph, weights, rest = nnx.split(cell, _has_derivatives, ...)

    def scan_chunk(weights: PyTree, rest: PyTree, carry: Carry, xs: tuple[Array, Array | None]) -> tuple[Carry, Array]:
        return _scan(partial(nnx.merge, graph, weights, rest), carry, *xs, reverse)[:2]

    with_tangent = jax.custom_jvp(scan_chunk)
    with_tangent.defjvp(partial(_tangent, graph, reverse))
    keep = jax.checkpoint_policies.save_only_these_names(CARRIES) if checkpoint_every is None else None
    scan = partial(jax.checkpoint(with_tangent, prevent_cse=False, policy=keep), weights, rest)
    return scan_in_chunks(scan, carry, (inputs, valid), chunk=checkpoint_every or CHUNK, reverse=reverse)


def _scan(
    make_cell: Callable[[], ReadsByRecur], carry: Carry, inputs: Array, valid: Array | None, reverse: bool
) -> tuple[Carry, Array, Carry]:
    """Scan a chunk: the carry after it, the outputs [T, B, H], and the carries before each step [T, B, H]."""

    def step(carry: Carry, at_step: tuple[Array, Array | None]) -> tuple[Carry, tuple[Array, Carry]]:
        inputs_t, valid_t = at_step
        cell = make_cell()
        new_carry, output = masked_step(valid_t, carry, cell.advance(carry, cell.project(inputs_t)))
        return new_carry, (output, carry)

    last, (outputs, carries) = jax.lax.scan(step, carry, (inputs, valid), reverse=reverse)
    return last, outputs, carries


def _tangent(graph: Any, reverse: bool, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Scan a chunk and its tangent: (carry, outputs), and the same of the tangents."""
    weights, rest, carry, (inputs, valid) = primals
    weights_dot, _, carry_dot, (inputs_dot, _) = tangents

    def cell_with(weights: PyTree) -> ReadsByRecur:
        return nnx.merge(graph, weights, rest)

    def project(weights: PyTree, inputs: Array) -> Array:
        return cell_with(weights).project(inputs)

    def recur(call: int, weights: PyTree, hidden: Array) -> Array:
        return cell_with(weights).recur(hidden, *options[call])

    last, outputs, carries = _scan(partial(cell_with, weights), carry, inputs, valid, reverse)
    steps, options = _record(cell_with(weights), checkpoint_name(carries, CARRIES), inputs, valid)
    drive_dot = _as_rows(lambda *x: jax.jvp(project, (weights, x[0]), (weights_dot, x[1]))[1], inputs, inputs_dot)
    recurrent_dot = [
        _as_rows(lambda rows, call=call: jax.jvp(lambda w: recur(call, w, rows), (weights,), (weights_dot,))[1], hidden)
        for call, hidden in enumerate(steps.hidden)
    ]

    @partial(jax.checkpoint, prevent_cse=False)  # else the values of all gates would be stored beside the steps
    def step_tangent(carry_dot: Carry, at_step: tuple[_Steps, Array, list[Array]]) -> tuple[Carry, Array]:
        step, drive_dot, recurrent_dot = at_step

        def replay(weights: PyTree, carry: Carry, drive: Array, recurrent: list[Array]) -> Any:
            return _replay(cell_with(weights), step._replace(carry=carry, drive=drive, recurrent=recurrent))

        def push(recurrent_dot: list[Array]) -> Any:
            point = (weights, step.carry, step.drive, step.recurrent)
            return jax.jvp(replay, point, (weights_dot, carry_dot, drive_dot, recurrent_dot))[1]

        # What a call of `recur` takes may hang on what the calls before it returned, so their tangents come in turn.
        for call, hidden in enumerate(step.hidden):
            _, hidden_dot = push(recurrent_dot)
            by_state = jax.jvp(partial(recur, call, weights), (hidden,), (hidden_dot[call],))[1]
            recurrent_dot = [*recurrent_dot[:call], recurrent_dot[call] + by_state, *recurrent_dot[call + 1 :]]
        return push(recurrent_dot)[0]

    result_dot = jax.lax.scan(step_tangent, carry_dot, (steps, drive_dot, recurrent_dot), reverse=reverse)
    return (last, outputs), result_dot


def _record(cell: ReadsByRecur, carries: Carry, inputs: Array, valid: Array | None) -> tuple[_Steps, list[tuple]]:
    """Make all steps at once from the carries before them: the steps, and the options of a step's calls of `recur`."""
    time_and_batch = inputs.shape[:2]
    own_recur, hidden, recurrent, options = cell.recur, [], [], []

    def recorded(rows: Array, *further: Any) -> Array:
        hidden.append(rows)
        recurrent.append(own_recur(rows, *further))
        options.append(further)
        return recurrent[-1]

    drive = cell.project(_merge_leading(inputs))
    _advance(cell, recorded, jax.tree.map(_merge_leading, carries), drive)
    drive, hidden, recurrent = jax.tree.map(
        lambda rows: rows.reshape(*time_and_batch, *rows.shape[1:]), (drive, hidden, recurrent)
    )
    return _Steps(carries, drive, hidden, recurrent, valid), options


def _replay(cell: ReadsByRecur, step: _Steps) -> tuple[tuple[Carry, Array], list[Array]]:
    """Make one step of which it is known what `recur` returns: (carry, output), and what each call of it takes."""
    hidden: list[Array] = []

    def remembered(rows: Array, *_: Any) -> Array:
        hidden.append(rows)
        return step.recurrent[len(hidden) - 1]

    made = _advance(cell, remembered, step.carry, step.drive)
    return masked_step(step.valid, step.carry, made), hidden


def _advance(cell: ReadsByRecur, recur: Callable[..., Array], carry: Carry, drive: Array) -> tuple[Carry, Array]:
    """Make a step of a cell that nobody else holds, with another `recur` in the place of its own."""
    cell.recur = recur
    return cell.advance(carry, drive)


def _as_rows(function: Callable[..., Array], *arrays: Array) -> Array:
    """Apply a function of rows to arrays [T, B, ...] as to one batch: a matmul of matrices is several times faster."""
    result = function(*map(_merge_leading, arrays))
    return result.reshape(*arrays[0].shape[:2], *result.shape[1:])


def _merge_leading(array: Array) -> Array:
    """[T, B, ...] -> [T*B, ...]."""
    return array.reshape(-1, *array.shape[2:])


def _has_derivatives(_: Any, leaf: Any) -> bool:
    """Tell the numbers of a cell from what is none, such as random keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)
