"""The growth of a frame, parallel in time: all chunks of a run at once, again and again until their frames fit.

With the states known, each chunk can be run from any frame; a frame forgets where it came from at the rate of the gaps
between the exponents, so after a few sweeps, each of which starts a chunk from the last frame of the one before, the
chunks are one run. It is a fixed-point iteration whose answer is that of the sequential run, and after as many sweeps
as chunks it is that run to rounding.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.growth import Growth, Interval, grow
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, advance_by


class Chunked(NamedTuple):
    """How a run is cut into chunks, and when it is accepted.

    Attributes:
        chunk: steps of each chunk (default: those to measure over 64, and at least 64).
        max_sweeps: sweeps after the first, at most.
        tolerance: nats per step, the change of the exponents between two sweeps at which to stop.
    """

    chunk: int | None = None
    max_sweeps: int = 20
    tolerance: float = 1e-6

    @property
    def length(self) -> int:
        """Steps of each chunk, once that is `checked`."""
        assert self.chunk is not None
        return self.chunk

    def checked(self, steps: int) -> "Chunked":
        """Fit the chunks into a number of steps.

        Raises:
            ValueError: a chunk below 1 or longer than the steps, max_sweeps or tolerance below 0.
        """
        chunk = min(max(steps // 64, 64), steps) if self.chunk is None else whole_number("chunk", self.chunk, least=1)
        if chunk > steps:
            raise ValueError(f"chunk must be between 1 and the {steps} steps to measure, got {chunk}")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be a number >= 0, in nats per step, got {self.tolerance!r}")
        return Chunked(chunk, whole_number("max_sweeps", self.max_sweeps, least=0), float(self.tolerance))


class _Swept(NamedTuple):
    """What the loop over sweeps carries: frames to start from [P, K, N], the last sweep, the change that it made."""

    frames: Array
    growth: Growth
    flows: Flow
    change: Array
    sweeps: Array


def grow_in_chunks(
    system: DrivenSystem, drive: Drive, flow: Flow, *, chunks: int, interval: Interval, method: Chunked
) -> tuple[Growth, Flow, Array, Array]:
    """Run with a frame and sum its growth, as `growth.grow` does.

    Args:
        system: the network.
        drive: its inputs.
        flow: where to start, with an orthonormal frame.
        chunks: how many to run.
        interval: between orthonormalisations.
        method: how long they are, checked, and when to stop.

    Returns:
        The growth, with the stretches of all chunks in order of time; the flow at the end; the change that the last
        sweep made, nats per step; and the number of sweeps after the first.
    """
    length = method.length

    def next_chunk(flow: Flow, _: None) -> tuple[Flow, Flow]:
        return advance_by(system, drive, flow, length), flow

    bare = dataclasses.replace(flow, tangents=flow.tangents[:0])
    starts = jax.lax.scan(next_chunk, bare, None, length=chunks)[1]

    def run(frame: Array, start: Flow) -> tuple[Growth, Flow]:
        start = dataclasses.replace(start, tangents=frame)
        return grow(system, drive, start, steps=length, interval=interval)

    def sweep(frames: Array) -> tuple[Array, Growth, Flow]:
        growth, flows = jax.vmap(run)(frames, starts)
        return jnp.concatenate([flow.tangents[None], flows.tangents[:-1]]), growth, flows

    def again(swept: _Swept) -> _Swept:
        frames, growth, flows = sweep(swept.frames)
        before, after = _total(swept.growth), _total(growth)
        same = (before == after) | (jnp.isnan(before) & jnp.isnan(after))  # -inf may stay -inf, and NaN NaN
        change = jnp.max(jnp.where(same, 0.0, jnp.abs(before - after))) / (chunks * length)
        return _Swept(frames, growth, flows, change, swept.sweeps + 1)

    def unfinished(swept: _Swept) -> Array:
        # Not `change > tolerance`: growth that is not finite must not look like a run that has converged at once.
        return ~(swept.change <= method.tolerance) & (swept.sweeps < min(method.max_sweeps, chunks))

    first = sweep(jnp.broadcast_to(flow.tangents, (chunks, *flow.tangents.shape)))
    unknown = jnp.full((), jnp.inf if chunks > 1 else 0.0, flow.state.dtype)
    swept = _Swept(*first, change=unknown, sweeps=jnp.int32(0))
    swept = jax.lax.while_loop(unfinished, again, swept)
    first_nonfinite_step = _earliest(swept.flows.first_nonfinite_step)
    last = jax.tree.map(lambda leaf: leaf[-1], swept.flows)
    last = dataclasses.replace(last, first_nonfinite_step=first_nonfinite_step)
    change = jnp.where(first_nonfinite_step < 0, swept.change, jnp.nan)
    return _in_order(swept.growth), last, change, swept.sweeps


def _earliest(steps: Array) -> Array:
    return jnp.where(jnp.any(steps >= 0), jnp.min(jnp.where(steps >= 0, steps, jnp.iinfo(steps.dtype).max)), -1)


def _total(growth: Growth) -> Array:
    return jnp.sum(growth.totals, axis=(0, 1))


def _in_order(growth: Growth) -> Growth:
    """Join the chunks' stretches, [P, R, ...] -> [P*R, ...], and reduce what is known of the whole."""
    return dataclasses.replace(
        growth,
        totals=growth.totals.reshape(-1, growth.totals.shape[-1]),
        steps=growth.steps.reshape(-1),
        blocks=jnp.sum(growth.blocks, dtype=growth.blocks.dtype),
        interval=growth.interval[-1],
        spread_rate=growth.spread_rate[-1],
        largest_spread=jnp.max(growth.largest_spread),
        log_det_residual=jnp.max(growth.log_det_residual),
    )
