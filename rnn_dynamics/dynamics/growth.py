"""The growth of a frame of tangents, summed over a run: what Lyapunov exponents are made of.

The sums are kept for each of many stretches of the run, so that the history of the exponents and their standard errors
come out of one pass. The interval between orthonormalisations is fixed, or is chosen from the spread that each of them
finds.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.dynamics.batch_means import CompensatedSum
from rnn_dynamics.dynamics.frames import Reframed, fast_spread, growth_of_lost, householder, reframe, resolved_spread
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, advance, fold, fold_adaptively

STRETCHES = 100
"""Stretches of a run whose growth is kept."""

CHECK_EVERY = 256
"""Blocks between two determinant checks: half a percent of the run time."""

LONGEST_INTERVAL = 64
"""Most steps between orthonormalisations that are chosen by themselves: the QR costs nothing any more."""

AIM = 0.9
"""Share of the spread that the fast QR factors at which a chosen interval aims."""

MEMORY = 0.25
"""Weight of the newest spread in the moving average. A broken Jacobian's infinite spread is forgotten at once."""


class Interval(NamedTuple):
    """Steps between orthonormalisations: `longest`, or what the spread allows up to it.

    Attributes:
        longest: >= 1.
        chosen: whether shorter ones may be chosen as the run goes.
    """

    longest: int
    chosen: bool

    def stretches(self, steps: int) -> np.ndarray:
        """Cut a run into at most `STRETCHES`: the first step of each, and then the number of all, [R+1]."""
        unit = 1 if self.chosen else self.longest
        blocks = -(-steps // unit)
        count = max(min(STRETCHES, blocks, steps // self.longest if self.chosen else blocks), 1)
        return np.minimum(-(-np.arange(count + 1) * blocks // count) * unit, steps)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Growth:
    """Running sums of log growth and what is known about their quality.

    Attributes:
        totals: [R, K], nats, of each stretch, in the order of the frame. Written, never read, while the run goes: XLA
            copies as a whole what a loop both reads and changes.
        steps: [R], that each total holds.
        stretch: the one at hand.
        newest: [K], the sum of that one so far.
        blocks: number of orthonormalisations.
        interval: length of the next block, where it is chosen.
        spread_rate: nats per step, a moving average of what the orthonormalisations found.
        largest_spread: nats, over the run.
        log_det_residual: nats per step, the worst determinant check; NaN if K < N.
    """

    totals: Array
    steps: Array
    stretch: Array
    newest: CompensatedSum
    blocks: Array
    interval: Array
    spread_rate: Array
    largest_spread: Array
    log_det_residual: Array

    @classmethod
    def zero(cls, stretches: int, frame: Array) -> "Growth":
        """Return the growth of no step, for a frame [K, N]."""
        (vectors, size), dtype = frame.shape, frame.dtype
        zero, none = jnp.zeros((), dtype), jnp.int32(0)
        return cls(
            totals=jnp.zeros((stretches, vectors), dtype),
            steps=jnp.zeros(stretches, jnp.int32),
            stretch=none,
            newest=CompensatedSum.zero((vectors,), dtype),
            blocks=none,
            interval=jnp.int32(1),
            spread_rate=zero,
            largest_spread=zero,
            log_det_residual=zero if vectors == size else jnp.full((), jnp.nan, dtype),
        )

    def added(self, stretch: Array, log_growth: Array, steps: Array | int) -> "Growth":
        """Add the log growth [K] of one block to a stretch, the one at hand or the next."""
        newest = jax.tree.map(lambda sum_: jnp.where(stretch == self.stretch, sum_, 0), self.newest).plus(log_growth)
        return dataclasses.replace(
            self,
            totals=self.totals.at[stretch].set(newest.total),
            steps=self.steps.at[stretch].add(steps),
            stretch=stretch,
            newest=newest,
        )


def grow(system: DrivenSystem, drive: Drive, flow: Flow, *, steps: int, interval: Interval) -> tuple[Growth, Flow]:
    """Run with a frame and sum its growth.

    Args:
        system: the network.
        drive: its inputs.
        flow: where to start, with an orthonormal frame.
        steps: >= 1.
        interval: between orthonormalisations.

    Returns:
        The growth, and the flow at the end with a frame that is orthonormal to rounding.
    """
    first_steps = flow.t + interval.stretches(steps)
    growth = Growth.zero(len(first_steps) - 1, flow.tangents)
    update = partial(_add_block, system, drive, interval, first_steps)
    if interval.chosen:
        ended = fold_adaptively(system, drive, flow, growth, update, steps=steps, block=lambda growth: growth.interval)
    else:
        ended = fold(system, drive, flow, growth, update, steps=steps, block=interval.longest)
    return _close(*ended)


def _close(growth: Growth, flow: Flow) -> tuple[Growth, Flow]:
    """Count what the last frame lacks in orthogonality, and mend it."""
    frame, triangle = householder(flow.tangents)
    growth = growth.added(growth.stretch, jnp.log(jnp.diagonal(triangle)), 0)
    return growth, dataclasses.replace(flow, tangents=frame)


def _add_block(
    system: DrivenSystem,
    drive: Drive,
    interval: Interval,
    first_steps: Array,
    growth: Growth,
    before: Flow,
    after: Flow,
) -> tuple[Growth, Flow]:
    steps = jax.lax.stop_gradient(after.t - before.t)
    reframed = reframe(after.tangents, growth.spread_rate * steps)
    newest_rate = reframed.spread / steps
    averaged = growth.spread_rate + MEMORY * (newest_rate - growth.spread_rate)
    spread_rate = jnp.where((growth.blocks > 0) & jnp.isfinite(growth.spread_rate), averaged, newest_rate)
    stretch = jnp.sum(before.t >= first_steps[1:-1], dtype=jnp.int32)
    after, log_growth = _judged(after, reframed, steps)
    if log_growth.shape == system.initial_state.shape:
        passive, passive_before, passive_after = jax.lax.stop_gradient((system, before, after))
        residual = jax.lax.cond(
            growth.blocks % CHECK_EVERY == 0,
            lambda: _log_det_residual(passive, drive, passive_before, passive_after, log_growth),
            lambda: jnp.zeros((), log_growth.dtype),
        )
    else:
        residual = growth.log_det_residual
    summed = dataclasses.replace(
        growth,
        blocks=growth.blocks + 1,
        spread_rate=spread_rate,
        largest_spread=jnp.maximum(growth.largest_spread, reframed.spread),
        log_det_residual=jnp.maximum(growth.log_det_residual, residual),
    )
    if not interval.chosen:
        return summed.added(stretch, log_growth, steps), after
    acceptable = (steps == 1) | _resolved(reframed) | (after.first_nonfinite_step >= 0)
    summed = dataclasses.replace(summed, interval=_next_interval(spread_rate, reframed, steps, interval.longest))
    halved = dataclasses.replace(growth, interval=jnp.maximum(steps // 2, 1), spread_rate=newest_rate)
    # The totals are large and are changed in place: not to count a block, nothing is added to them.
    small = ("blocks", "interval", "spread_rate", "largest_spread", "log_det_residual")
    new, old = ({name: getattr(each, name) for name in small} for each in (summed, halved))
    kept, flow = jax.tree.map(lambda new, old: jnp.where(acceptable, new, old), (new, after), (old, before))
    growth = dataclasses.replace(growth, **kept)
    return growth.added(stretch, jnp.where(acceptable, log_growth, 0), jnp.where(acceptable, steps, 0)), flow


def _judged(after: Flow, reframed: Reframed, steps: Array) -> tuple[Flow, Array]:
    """Tell growth that is not a number, or not known, from growth that is; record where it stopped being finite."""
    log_growth = reframed.log_growth
    after = after.with_frame(reframed.frame, jnp.all(log_growth < jnp.inf))
    # After one step a column lost in rounding is a singular Jacobian's; after several it may be the interval's fault.
    lost = jnp.where(steps == 1, growth_of_lost(log_growth.dtype), jnp.nan)
    log_growth = jnp.where(log_growth == -jnp.inf, lost, log_growth)
    # Behind a state that overflowed there is no Jacobian: relu'(NaN) = 0 would count as a gradient that vanishes.
    return after, jnp.where(after.first_nonfinite_step < 0, log_growth, jnp.nan)


def _resolved(reframed: Reframed) -> Array:
    return (reframed.spread <= resolved_spread(reframed.frame.dtype)) & jnp.all(jnp.isfinite(reframed.log_growth))


def _next_interval(spread_rate: Array, reframed: Reframed, steps: Array, longest: int) -> Array:
    """Aim at a spread that the fast QR factors, and far from over- and underflow; at most double."""
    dtype = spread_rate.dtype
    size_rate = jnp.max(jnp.abs(reframed.log_growth)) / steps
    needed = jnp.maximum(spread_rate / (AIM * fast_spread(dtype)), size_rate / _largest_logarithm(dtype))
    wanted = jnp.where(jnp.isfinite(needed), jnp.floor(1 / jnp.maximum(needed, 1 / longest)), 1)
    return jnp.clip(wanted.astype(steps.dtype), 1, jnp.minimum(2 * steps, longest))


def _largest_logarithm(dtype: DTypeLike) -> float:
    """Return a quarter of the logarithm that overflows: squares of entries, and a growth twice as fast, still fit."""
    return 0.25 * float(np.log(jnp.finfo(dtype).max))


def _log_det_residual(system: DrivenSystem, drive: Drive, before: Flow, after: Flow, log_growth: Array) -> Array:
    """Compare a block's growth with the determinants of its Jacobians, taken one by one: nats per step."""
    identity = jnp.eye(system.state_size, dtype=log_growth.dtype)
    steps = after.t - before.t

    def add_step(_: Array, carry: tuple[Array, Flow]) -> tuple[Array, Flow]:
        log_det, flow = carry
        flow = advance(system, drive, dataclasses.replace(flow, tangents=identity))
        return log_det + jnp.linalg.slogdet(flow.tangents)[1], flow

    # Frames are orthogonal only to `LOSS_OF_ORTHOGONALITY`; what they lack is part of R.
    frames = jnp.linalg.slogdet(before.tangents)[1] - jnp.linalg.slogdet(after.tangents)[1]
    log_det, _ = jax.lax.fori_loop(0, steps, add_step, (frames, before))
    total = jax.lax.stop_gradient(jnp.sum(log_growth))
    return jnp.where(total == -jnp.inf, 0.0, jnp.abs(total - log_det)) / steps  # singular: nothing to compare
