"""The growth of a frame, parallel in time: all chunks of a run at once, again and again until their frames fit.

With the states known, each chunk can be run from any frame; a frame forgets where it came from at the rate of the gaps
between the exponents, so after a few sweeps, each of which starts a chunk from the last frame of the one before, the
chunks are one run. It is a fixed-point iteration whose answer is that of the sequential run, and after as many sweeps
as chunks it is that run to rounding.

Several devices share the chunks, each a stretch of consecutive ones. A frame and a few numbers go from one to the next
once for each sweep.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.devices import line_of
from rnn_dynamics.dynamics.growth import Growth, Interval, grow
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, advance_by
from rnn_dynamics.types import Device, PyTree

CHUNKS = "chunks"


class Chunked(NamedTuple):
    """How a run is cut into chunks, and when it is accepted.

    Attributes:
        chunk: steps of each chunk (default: those to measure over 64, and at least 64).
        max_sweeps: sweeps after the first, at most.
        tolerance: nats per step, the change of the exponents between two sweeps at which to stop.
        devices: that share the chunks, the same number for each (default: the one where the arrays are). They hold the
            inputs, frames and growth of their own chunks only.
    """

    chunk: int | None = None
    max_sweeps: int = 20
    tolerance: float = 1e-6
    devices: tuple[Device, ...] | None = None

    @property
    def length(self) -> int:
        """Steps of each chunk, once that is `checked`."""
        assert self.chunk is not None
        return self.chunk

    def checked(self, steps: int) -> "Chunked":
        """Fit the chunks into a number of steps.

        Raises:
            ValueError: a chunk below 1 or longer than the steps, max_sweeps or tolerance below 0, no devices, or chunks
                that they cannot share.
        """
        devices = None if self.devices is None else tuple(self.devices)
        shares = 1 if devices is None else line_of(devices, CHUNKS).size
        chunk = _default_length(steps, shares) if self.chunk is None else whole_number("chunk", self.chunk, least=1)
        if chunk > steps:
            raise ValueError(f"chunk must be between 1 and the {steps} steps to measure, got {chunk}")
        if steps // chunk % shares:
            raise ValueError(
                f"chunk must cut the {steps} steps to measure into a multiple of the {shares} devices, "
                f"got {steps // chunk} chunks of {chunk} steps"
            )
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be a number >= 0, in nats per step, got {self.tolerance!r}")
        return Chunked(chunk, whole_number("max_sweeps", self.max_sweeps, least=0), float(self.tolerance), devices)


def _default_length(steps: int, shares: int) -> int:
    longest = min(max(steps // 64, 64), steps)
    return next((length for length in range(longest, 0, -1) if steps // length % shares == 0), 1)


class _Line(NamedTuple):
    """The devices that share the chunks, in order of time, as each of them sees it."""

    size: int

    def from_before(self, first: PyTree, last: PyTree) -> PyTree:
        """Return what the device before this one calls `last`; the first one has none before it and gets `first`."""
        if self.size == 1:
            return first
        onwards = [(device, device + 1) for device in range(self.size - 1)]
        received = jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, CHUNKS, onwards), last)
        is_first = jax.lax.axis_index(CHUNKS) == 0
        return jax.tree.map(partial(jnp.where, is_first), first, received)

    def total(self, array: Array) -> Array:
        """Sum over the devices."""
        return array if self.size == 1 else jax.lax.psum(array, CHUNKS)


class _Swept(NamedTuple):
    """What the loop over sweeps carries: frames to start from [P, K, N], the last sweep, the change that it made."""

    frames: Array
    growth: Growth
    flows: Flow
    change: Array
    sweeps: Array


def grow_in_chunks(
    system: DrivenSystem, drives: Drive, flow: Flow, *, interval: Interval, method: Chunked
) -> tuple[Growth, Flow, Array, Array]:
    """Run with a frame and sum its growth, as `growth.grow` does.

    Args:
        system: the network.
        drives: its inputs in all P chunks, `Drive.in_pieces`.
        flow: where to start, with an orthonormal frame.
        interval: between orthonormalisations.
        method: how to cut, checked, and when to stop.

    Returns:
        The growth, with the stretches of all chunks in order of time; the flow at the end; the change that the last
        sweep made, nats per step; and the number of sweeps after the first.
    """
    line = _Line(1 if method.devices is None else len(method.devices))
    swept = partial(_sweep_until_settled, interval=interval, method=method, line=line)
    if line.size > 1:
        by_chunk: Any = PartitionSpec(CHUNKS)
        whole: Any = PartitionSpec()
        swept = jax.shard_map(
            swept,
            mesh=line_of(method.devices, CHUNKS),
            in_specs=(whole, by_chunk, whole),
            out_specs=_Swept(by_chunk, by_chunk, by_chunk, whole, whole),
            check_vma=False,  # the loops start from constants, which do not vary over devices as what they carry does
        )
    swept = swept(system, drives, flow)
    first_nonfinite_step = _earliest(swept.flows.first_nonfinite_step)
    last = jax.tree.map(lambda leaf: leaf[-1], swept.flows)
    last = dataclasses.replace(last, first_nonfinite_step=first_nonfinite_step)
    change = jnp.where(first_nonfinite_step < 0, swept.change, jnp.nan)
    return _in_order(swept.growth), last, change, swept.sweeps


def _sweep_until_settled(
    system: DrivenSystem, drives: Drive, flow: Flow, *, interval: Interval, method: Chunked, line: _Line
) -> _Swept:
    """Sweep over the chunks of one device, in step with the others."""
    starts = _starts(system, drives, flow, line)
    own = starts.t.shape[0]
    chunks = own * line.size

    def run(frame: Array, start: Flow, drive: Drive) -> tuple[Growth, Flow]:
        start = dataclasses.replace(start, tangents=frame)
        return grow(system, drive, start, steps=method.length, interval=interval)

    def sweep(frames: Array) -> tuple[Array, Growth, Flow]:
        growth, flows = jax.vmap(run)(frames, starts, drives)
        first = line.from_before(flow.tangents, flows.tangents[-1])
        return jnp.concatenate([first[None], flows.tangents[:-1]]), growth, flows

    def again(swept: _Swept) -> _Swept:
        frames, growth, flows = sweep(swept.frames)
        before, after = (line.total(_total(growth)) for growth in (swept.growth, growth))
        same = (before == after) | (jnp.isnan(before) & jnp.isnan(after))  # -inf may stay -inf, and NaN NaN
        change = jnp.max(jnp.where(same, 0.0, jnp.abs(before - after))) / (chunks * method.length)
        return _Swept(frames, growth, flows, change, swept.sweeps + 1)

    def unfinished(swept: _Swept) -> Array:
        # Not `change > tolerance`: growth that is not finite must not look like a run that has converged at once.
        return ~(swept.change <= method.tolerance) & (swept.sweeps < min(method.max_sweeps, chunks))

    first = sweep(jnp.broadcast_to(flow.tangents, (own, *flow.tangents.shape)))
    unknown = jnp.full((), jnp.inf if chunks > 1 else 0.0, flow.state.dtype)
    return jax.lax.while_loop(unfinished, again, _Swept(*first, change=unknown, sweeps=jnp.int32(0)))


def _starts(system: DrivenSystem, drives: Drive, flow: Flow, line: _Line) -> Flow:
    """Run the state through the chunks: where each chunk of this device starts, without a frame.

    The devices take turns, and none knows when its turn is: each runs its chunks as often as there are devices, from
    what the one before it has just reached. In round i the first i devices are right. It takes T steps, as on one.
    """

    def next_chunk(flow: Flow, drive: Drive) -> tuple[Flow, Flow]:
        return advance_by(system, drive, flow, drive.steps), flow

    def next_round(_: int, entered: Flow) -> Flow:
        return line.from_before(bare, jax.lax.scan(next_chunk, entered, drives)[0])

    bare = dataclasses.replace(flow, tangents=flow.tangents[:0])
    entered = jax.lax.fori_loop(0, line.size - 1, next_round, bare) if line.size > 1 else bare
    return jax.lax.scan(next_chunk, entered, drives)[1]


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
        largest_spread=_worst(growth.largest_spread),
        log_det_residual=_worst(growth.log_det_residual),
    )


def _worst(numbers: Array) -> Array:
    # A maximum over devices forgets NaN.
    return jnp.where(jnp.any(jnp.isnan(numbers)), jnp.nan, jnp.max(numbers))
