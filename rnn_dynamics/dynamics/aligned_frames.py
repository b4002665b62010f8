"""A frame of tangents carried along a run: aligned to it first, then pushed and orthonormalised step by step."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.dynamics.frames import growth_of_lost, orthonormalise
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, advance, advance_by, start, whole_number


class Alignment(NamedTuple):
    """What is done before anything is measured; hashable, so that it can be static.

    Attributes:
        k: K, tangents in the frame.
        transient: steps of the state thrown away first.
        tangent_transient: steps of the frame thrown away after those.
    """

    k: int
    transient: int
    tangent_transient: int

    @classmethod
    def checked(cls, system: DrivenSystem, k: int | None, transient: int, tangent_transient: int) -> "Alignment":
        """Check the options of that name.

        Args:
            system: the network.
            k: 1 ... N, or None for N.
            transient: >= 0.
            tangent_transient: >= 0.

        Returns:
            The alignment.

        Raises:
            ValueError: k outside 1 ... N, negative transients.
        """
        size = system.state_size
        k = size if k is None else whole_number("k", k, least=1)
        if k > size:
            raise ValueError(f"k must be between 1 and the state size {size}, got {k}")
        transient = whole_number("transient", transient, least=0)
        return cls(k, transient, whole_number("tangent_transient", tangent_transient, least=0))

    @property
    def steps(self) -> int:
        """Steps of both transients."""
        return self.transient + self.tangent_transient


def align(system: DrivenSystem, drive: Drive, alignment: Alignment) -> Flow:
    """Run both transients: the state alone, then the state with a frame that starts at random (key 0)."""
    flow = start(system)
    if alignment.transient:
        flow = advance_by(system, drive, flow, alignment.transient)
    tangents = jax.random.normal(jax.random.key(0), (alignment.k, system.state_size), flow.state.dtype)
    flow = dataclasses.replace(flow, tangents=orthonormalise(tangents)[0])
    if alignment.tangent_transient:
        length = alignment.tangent_transient
        flow = jax.lax.scan(lambda flow, _: (push(system, drive, flow)[0], None), flow, None, length=length)[0]
    return flow


def push(system: DrivenSystem, drive: Drive, flow: Flow) -> tuple[Flow, Array]:
    """Make one step of state and frame: J_t Q_{t-1} = Q_t R_t.

    Args:
        system: the network.
        drive: its inputs.
        flow: with orthonormal tangents.

    Returns:
        The flow after the step, and R_t [K, K], upper triangular with a diagonal >= 0. A growth that overflows counts
        as a step that is not finite.
    """
    flow = advance(system, drive, flow)
    frame, triangle = orthonormalise(flow.tangents)
    broken = (flow.first_nonfinite_step < 0) & ~jnp.all(jnp.isfinite(triangle))
    first_nonfinite_step = jnp.where(broken, flow.t - 1, flow.first_nonfinite_step)
    return dataclasses.replace(flow, tangents=frame, first_nonfinite_step=first_nonfinite_step), triangle


def log_growth(triangle: Array) -> Array:
    """Return ln R_ii, [K], nats; for a direction that the step lost -inf in float64, NaN in float32."""
    growth = jnp.diagonal(triangle)
    lost = growth == 0
    return jnp.where(lost, growth_of_lost(growth.dtype), jnp.log(jnp.where(lost, 1.0, growth)))
