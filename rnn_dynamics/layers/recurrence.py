"""Time: a cell scanned over a batch of sequences."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.core import Tracer
from jaxtyping import Float, Int

from rnn_dynamics.taps import tap
from rnn_dynamics.types import Carry, TwoHalves


class Recurrence(nnx.Module):
    """Scan any `nnx.RNNCellBase`, ours or Flax's, over sequences [B, T, F].

    Padded tails (lengths) carry the state through unchanged and put out zeros, so the final carry is that of each
    sequence's last valid step, and a reverse scan starts there.

    Args:
        cell: the cell.
        reverse: scan from the last valid step to the first; outputs stay where their inputs are.
        checkpoint_every: recompute the states within chunks of so many steps in the backward pass; memory is then that
            of T / checkpoint_every + checkpoint_every states, least near sqrt(T). None stores every step.
        project_ahead: apply the cell's `project` to all steps in one matmul before the scan. None chooses: on
            accelerators, where a scan's time goes by its number of kernels, yes; on CPUs, where the large drive falls
            out of the cache, no.

    Raises:
        ValueError: checkpoint_every < 1.
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        *,
        reverse: bool = False,
        checkpoint_every: int | None = None,
        project_ahead: bool | None = None,
    ):
        if checkpoint_every is not None and checkpoint_every < 1:
            raise ValueError(f"checkpoint_every must be >= 1 or None, got {checkpoint_every}")
        self.cell = cell
        self.reverse = reverse
        self.checkpoint_every = checkpoint_every
        self.project_ahead = project_ahead

    def __call__(
        self,
        inputs: Float[Array, "B T F"],
        *,
        lengths: Int[Array, " B"] | None = None,
        initial_carry: Carry | None = None,
        taps: Float[Array, "T B"] | None = None,
    ) -> tuple[Carry, Float[Array, "B T H"]]:
        """Run over the sequences.

        Args:
            inputs: [B, T, F].
            lengths: valid steps of each sequence, 1 ... T (default: all T).
            initial_carry: leaves [B, H] (default: the cell's own, zeros).
            taps: zeros [T, B]; their gradient is the norm of the loss gradient by each step's state, see `taps`.

        Returns:
            The carry after each sequence's last step, and the outputs [B, T, H].

        Raises:
            ValueError: inputs of the wrong rank or width, lengths outside 1 ... T, taps of the wrong shape, or taps on
                a cell whose output is no part of its carry.
        """
        inputs, lengths = jnp.asarray(inputs), None if lengths is None else jnp.asarray(lengths)
        _check(self.cell, inputs, lengths, taps)
        batch, steps, features = inputs.shape
        carry = initial_carry
        if carry is None:
            carry = self.cell.initialize_carry((batch, features), nnx.Rngs(0))
        valid = None if lengths is None else jnp.arange(steps)[:, None] < lengths[None, :]
        drive = jnp.swapaxes(inputs, 0, 1)
        if valid is not None:  # masking the carry stops garbage on the way forward, but not NaN * 0 on the way back
            drive = jnp.where(valid[:, :, None], drive, jnp.zeros((), drive.dtype))
        step = self.cell
        if isinstance(self.cell, TwoHalves) and self._projects_ahead():
            drive, step = self.cell.project(drive), self.cell.advance

        def body(carry: Carry, at_step: tuple[Array, Array | None, Array | None]) -> tuple[Carry, Array]:
            drive_t, valid_t, probe = at_step
            new_carry, output = step(carry, drive_t)
            if probe is not None:
                new_carry, output = _tapped(new_carry, output, probe)
            if valid_t is None:
                return new_carry, output
            keep = valid_t[:, None]
            new_carry = jax.tree.map(lambda new, old: jnp.where(keep, new, old), new_carry, carry)
            return new_carry, jnp.where(keep, output, 0)

        carry, outputs = _scan(body, carry, (drive, valid, taps), self.reverse, self.checkpoint_every)
        return carry, jnp.swapaxes(outputs, 0, 1)

    def _projects_ahead(self) -> bool:
        return jax.default_backend() != "cpu" if self.project_ahead is None else self.project_ahead


def _check(cell: nnx.RNNCellBase, inputs: Array, lengths: Array | None, taps: Array | None) -> None:
    if inputs.ndim != 3:
        raise ValueError(f"inputs must have shape [batch, time, feature], got {inputs.shape}")
    batch, steps, features = inputs.shape
    if features != getattr(cell, "in_features", features):
        raise ValueError(f"inputs must have {cell.in_features} features, got shape {inputs.shape}")  # pyright: ignore
    if steps < 1:
        raise ValueError(f"inputs must have at least one time step, got shape {inputs.shape}")
    if taps is not None and taps.shape != (steps, batch):
        raise ValueError(f"taps must have shape [time, batch] = {(steps, batch)}, got {taps.shape}")
    if lengths is None:
        return
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have shape [batch] = {(batch,)}, got {lengths.shape}")
    if isinstance(lengths, Tracer):
        return
    known = np.asarray(lengths)  # else JAX traces the comparison where a function under jit closes over the lengths
    if known.min() < 1 or known.max() > steps:
        raise ValueError(f"lengths must lie in 1 ... {steps}, got {known.min()} ... {known.max()}")


def _tapped(carry: Carry, output: Array, probe: Array) -> tuple[Carry, Array]:
    """Tap the carry, and let the output pass through the same tap: else the loss's own pull at this step is missed.

    Raises:
        ValueError: if the output is none of the carry's arrays.
    """
    leaves, structure = jax.tree.flatten(carry)
    position = next((i for i, leaf in enumerate(leaves) if leaf is output), None)
    if position is None:
        raise ValueError("taps need a cell whose output is one of the arrays of its carry")
    leaves = tap(leaves, probe)
    return jax.tree.unflatten(structure, leaves), leaves[position]


def _scan(body: Callable, carry: Carry, xs: Any, reverse: bool, chunk: int | None) -> tuple[Carry, Array]:
    """`lax.scan`, with the states inside chunks recomputed in the backward pass where a chunk is given."""
    steps = jax.tree.leaves(xs)[0].shape[0]

    def scan(carry: Carry, xs: Any) -> tuple[Carry, Array]:
        return jax.lax.scan(body, carry, xs, reverse=reverse)

    if chunk is None or chunk >= steps:
        return scan(carry, xs)
    whole = steps // chunk * chunk
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), xs)
    rest = jax.tree.map(lambda x: x[whole:], xs)
    pieces = [lambda carry: jax.lax.scan(jax.checkpoint(scan), carry, chunks, reverse=reverse)]
    if whole < steps:
        pieces.append(lambda carry: jax.checkpoint(scan)(carry, rest))
    outputs: list[Array] = [jnp.zeros(0)] * len(pieces)
    for number in reversed(range(len(pieces))) if reverse else range(len(pieces)):
        carry, outputs[number] = pieces[number](carry)
    outputs[0] = outputs[0].reshape(whole, *outputs[0].shape[2:])
    return carry, jnp.concatenate(outputs)
