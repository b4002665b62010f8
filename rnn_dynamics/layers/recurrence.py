"""Time: a cell scanned over a batch of sequences."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.layers.chunked_scan import masked_step, scan_in_chunks
from rnn_dynamics.layers.gathered_gradients import CHUNK, gathered_scan
from rnn_dynamics.layers.parallel_scan import states_at_once
from rnn_dynamics.taps import Listener, TappedLayer
from rnn_dynamics.types import Carry, Evaluable, LinearInState, NamedGates, ReadsByRecur, TwoHalves


class Recurrence(TappedLayer):
    """Scan any `nnx.RNNCellBase`, ours or Flax's, over sequences [B, T, F].

    Padded tails (lengths) carry the state through unchanged and put out zeros, so the final carry is that of each
    sequence's last valid step, and a reverse scan starts there.

    While a quantity listens (see `taps`) the scan goes and projects its inputs step by step, whatever `project_ahead`
    and `parallel` say, for every step's share of the gradient is to be seen.

    Args:
        cell: the cell.
        reverse: scan from the last valid step to the first; outputs stay where their inputs are.
        checkpoint_every: recompute the states within chunks of so many steps in the backward pass; memory is then that
            of T / checkpoint_every + checkpoint_every states. "sqrt" is sqrt(T), rounded up, where that is least. None
            stores every step.
        project_ahead: apply the cell's `project` to all steps in one matmul before the scan. None chooses: on
            accelerators, where a scan's time goes by its number of kernels, yes; on CPUs, where the large drive falls
            out of the cache, no.
        parallel: compute all states of a cell that is linear in its state (`types.LinearInState`) at once, see
            `layers.parallel_scan`; other cells are scanned. None chooses: on accelerators yes, on CPUs, where the scan
            is mostly faster (benchmarks/parallel_scan.py), no.
        gather_gradients: take the gradient by the weights from the steps of a chunk at once, and make what those steps
            were anew from their carries (see `gathered_scan`); for cells that have a `recur`. None chooses: on CPUs,
            where it takes up to a third off the time, yes if the cell can and there are more steps than one chunk; on
            accelerators no.
        learn_initial_carry: start from a trained carry, the same for all sequences, in the place of the cell's own,
            from which it is trained.

    Raises:
        ValueError: checkpoint_every < 1; gather_gradients for a cell without `recur`, or together with project_ahead;
            a carry to be learned of a cell without `in_features`.
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        *,
        reverse: bool = False,
        checkpoint_every: int | Literal["sqrt"] | None = None,
        project_ahead: bool | None = None,
        parallel: bool | None = None,
        gather_gradients: bool | None = None,
        learn_initial_carry: bool = False,
    ):
        if checkpoint_every is not None and checkpoint_every != "sqrt":
            checkpoint_every = whole_number('checkpoint_every, if not "sqrt" or None,', checkpoint_every, least=1)
        if gather_gradients and project_ahead:
            raise ValueError("gather_gradients must not be True with project_ahead=True: it projects step by step")
        if gather_gradients and not isinstance(cell, ReadsByRecur):
            raise ValueError(f"gather_gradients must not be True for a cell without `recur`, got {type(cell).__name__}")
        self.cell = cell
        self.reverse = reverse
        self.checkpoint_every = checkpoint_every
        self.project_ahead = project_ahead
        self.parallel = parallel
        self.gather_gradients = gather_gradients
        self.learned_carry = nnx.List(_carry_to_learn(cell)) if learn_initial_carry else None

    def __call__(
        self,
        inputs: Float[Array, "B T F"],
        *,
        lengths: Int[Array, " B"] | None = None,
        initial_carry: Carry | None = None,
    ) -> tuple[Carry, Float[Array, "B T H"]]:
        """Run over the sequences.

        Args:
            inputs: [B, T, F].
            lengths: valid steps of each sequence, 1 ... T (default: all T).
            initial_carry: leaves [B, H] (default: the one that is learned, or the cell's own, zeros).

        Returns:
            The carry after each sequence's last step, and the outputs [B, T, H].

        Raises:
            ValueError: inputs of the wrong rank or width, lengths outside 1 ... T; or, while a quantity listens, a
                second call, or a cell whose output is no part of its carry.
        """
        inputs, lengths = jnp.asarray(inputs), None if lengths is None else jnp.asarray(lengths)
        _check(self.cell, inputs, lengths)
        batch, steps, features = inputs.shape
        carry = self.initialize_carry(batch, features) if initial_carry is None else initial_carry
        valid = None if lengths is None else jnp.arange(steps)[:, None] < lengths[None, :]
        drive = jnp.swapaxes(inputs, 0, 1)
        if valid is not None:  # masking the carry stops garbage on the way forward, but not NaN * 0 on the way back
            drive = jnp.where(valid[:, :, None], drive, jnp.zeros((), drive.dtype))
        if self.listener is not None:
            return self._heard_by(self.listener, carry, drive, valid)
        cell: nnx.RNNCellBase = self.cell.evaluated() if isinstance(self.cell, Evaluable) else self.cell
        chunk = self._chunk(steps)
        if isinstance(cell, LinearInState) and _chosen(self.parallel):

            def at_once(carry: Array, at_steps: tuple[Array, Array | None]) -> tuple[Array, Array]:
                return states_at_once(cell, carry, *at_steps, reverse=self.reverse)

            carry, outputs = _in_chunks(at_once, carry, (drive, valid), self.reverse, chunk)
            return carry, jnp.swapaxes(outputs, 0, 1)
        if isinstance(cell, ReadsByRecur) and self._gathers(steps):
            carry, outputs = gathered_scan(cell, carry, drive, valid, reverse=self.reverse, checkpoint_every=chunk)
            return carry, jnp.swapaxes(outputs, 0, 1)
        step: Any = cell
        if isinstance(cell, TwoHalves) and _chosen(self.project_ahead):
            drive, step = cell.project(drive), cell.advance

        def body(carry: Carry, at_step: tuple[Array, Array | None]) -> tuple[Carry, Array]:
            drive_t, valid_t = at_step
            return masked_step(valid_t, carry, step(carry, drive_t))

        carry, outputs = _scan(body, carry, (drive, valid), self.reverse, chunk)
        return carry, jnp.swapaxes(outputs, 0, 1)

    def _heard_by(
        self, listener: Listener, carry: Carry, inputs: Array, valid: Array | None
    ) -> tuple[Carry, Float[Array, "B T H"]]:
        """Make the same scan over inputs [T, B, F], each step shown to the listener."""
        steps, batch, _ = inputs.shape
        graph, weights, rest = nnx.split(self.cell, nnx.Param, ...)
        probes = self.draw_probes(steps, batch, weights)

        def body(carry_and_riding: tuple[Carry, Any], at_step: Any) -> tuple[tuple[Carry, Any], tuple[Array, Array]]:
            carry, riding = carry_and_riding
            inputs_t, valid_t, probes_t = at_step
            entering, weights_t, riding = listener.before(carry, weights, riding, probes_t)
            cell = nnx.merge(graph, weights_t, rest)
            made = cell(entering, listener.reads(inputs_t, probes_t))
            new_carry, output = _let_by(listener, cell, *made, probes_t)
            new_carry, output = masked_step(valid_t, carry, (new_carry, output))
            return (new_carry, riding), (output, _finite(new_carry))

        start = (carry, listener.start(weights))
        chunk = self._chunk(steps)
        (carry, _), (outputs, finite) = _scan(body, start, (inputs, valid, probes), self.reverse, chunk)
        self.first_nonfinite_step = nnx.data(_first_nonfinite_step(finite, self.reverse))
        return carry, jnp.swapaxes(outputs, 0, 1)

    def _chunk(self, steps: int) -> int | None:
        return math.isqrt(steps - 1) + 1 if isinstance(self.checkpoint_every, str) else self.checkpoint_every

    def _gathers(self, steps: int) -> bool:
        if self.gather_gradients is None:
            return jax.default_backend() == "cpu" and steps > CHUNK and not self.project_ahead
        return self.gather_gradients

    def initialize_carry(self, batch: int, in_features: int | None = None) -> Carry:
        """Make the carry that sequences start from, the learned one or the cell's own.

        Args:
            batch: B.
            in_features: F, for a cell that does not tell it.

        Returns:
            A pytree of arrays [B, H].
        """
        features = getattr(self.cell, "in_features", in_features)
        carry = self.cell.initialize_carry((batch, features), nnx.Rngs(0))  # pyright: ignore[reportArgumentType]
        if self.learned_carry is None:
            return carry
        leaves, structure = jax.tree.flatten(carry)
        learned = zip(self.learned_carry, leaves, strict=True)
        return jax.tree.unflatten(structure, [_carry_learned(parameter[...], leaf) for parameter, leaf in learned])


def _chosen(option: bool | None) -> bool:
    """Tell whether to do what suits accelerators, where nothing else is said."""
    return jax.default_backend() != "cpu" if option is None else option


def _carry_to_learn(cell: nnx.RNNCellBase) -> list[nnx.Param[Array]]:
    """Make a parameter of each array of the cell's carry: [H], or the parts [2, H] of a complex one.

    Raises:
        ValueError: a cell that does not say how wide its inputs are.
    """
    if not hasattr(cell, "in_features"):
        raise ValueError(f"learn_initial_carry needs a cell with in_features, {type(cell).__name__} has none")
    carry = cell.initialize_carry((cell.in_features,), nnx.Rngs(0))  # pyright: ignore[reportAttributeAccessIssue]
    dtype = getattr(cell, "param_dtype", None)
    return [
        nnx.Param(jnp.asarray(jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf, dtype))
        for leaf in jax.tree.leaves(carry)
    ]


def _carry_learned(parameter: Array, like: Array) -> Array:
    """Give every sequence the learned array, in shape and dtype of the cell's own [B, H]."""
    if jnp.iscomplexobj(like):
        parameter = jax.lax.complex(*parameter.astype(jnp.finfo(like.dtype).dtype))
    return jnp.broadcast_to(parameter.astype(like.dtype), like.shape)


def _check(cell: nnx.RNNCellBase, inputs: Array, lengths: Array | None) -> None:
    if inputs.ndim != 3:
        raise ValueError(f"inputs must have shape [batch, time, feature], got {inputs.shape}")
    batch, steps, features = inputs.shape
    if features != getattr(cell, "in_features", features):
        raise ValueError(f"inputs must have {cell.in_features} features, got shape {inputs.shape}")  # pyright: ignore
    if steps < 1:
        raise ValueError(f"inputs must have at least one time step, got shape {inputs.shape}")
    if lengths is None:
        return
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have shape [batch] = {(batch,)}, got {lengths.shape}")
    if not isinstance(lengths, Tracer):
        least, most = np.min(np.asarray(lengths)), np.max(np.asarray(lengths))
        if least < 1 or most > steps:
            raise ValueError(f"lengths must lie in 1 ... {steps}, got {least} ... {most}")


def _let_by(listener: Listener, cell: nnx.RNNCellBase, carry: Carry, output: Array, probes: Any) -> tuple[Carry, Array]:
    """Show the carry, and take the output from what is shown: else the loss's own pull at this step is missed.

    Raises:
        ValueError: if the cell is none of ours and its output none of the carry's arrays.
    """
    leaves, structure = jax.tree.flatten(carry)
    if isinstance(cell, NamedGates):
        carry = jax.tree.unflatten(structure, listener.after(leaves, probes))
        return carry, cell.output(carry)
    position = next((i for i, leaf in enumerate(leaves) if leaf is output), None)
    if position is None:
        raise ValueError("taps need a cell whose output is one of the arrays of its carry")
    leaves = listener.after(leaves, probes)
    return jax.tree.unflatten(structure, leaves), leaves[position]


def _finite(carry: Carry) -> Array:
    """Tell which examples, [B], have nothing but finite numbers in their carry [B, H]."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf), axis=1) for leaf in jax.tree.leaves(carry)]), axis=0)


def _first_nonfinite_step(finite: Array, reverse: bool) -> Array:
    """Return the first False of each column of [T, B] in the order of the scan, -1 where there is none."""
    steps = finite.shape[0]
    first = steps - 1 - jnp.argmin(finite[::-1], axis=0) if reverse else jnp.argmin(finite, axis=0)
    return jnp.where(jnp.all(finite, axis=0), -1, first).astype(jnp.int32)


def _scan(body: Callable, carry: Carry, xs: Any, reverse: bool, chunk: int | None) -> tuple[Carry, Any]:
    """`lax.scan`, with the states inside chunks recomputed in the backward pass where a chunk is given."""

    def scan(carry: Carry, xs: Any) -> tuple[Carry, Any]:
        return jax.lax.scan(body, carry, xs, reverse=reverse)

    return _in_chunks(scan, carry, xs, reverse, chunk)


def _in_chunks(run: Callable, carry: Carry, xs: Any, reverse: bool, chunk: int | None) -> tuple[Carry, Any]:
    """`run(carry, xs) -> (carry, outputs)` chunk by chunk, each run again in the backward pass; None is one chunk."""
    if chunk is None or chunk >= jax.tree.leaves(xs)[0].shape[0]:
        return run(carry, xs)
    return scan_in_chunks(jax.checkpoint(run), carry, xs, chunk=chunk, reverse=reverse)
