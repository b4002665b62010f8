"""A frame of tangents carried along a run: aligned to it first, then pushed and orthonormalised step by step."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.frames import growth_of_lost, householder, orthonormalise
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, advance, advance_by, start


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
    def checked(
        cls, system: DrivenSystem, drive: Drive, k: int | None, transient: int, tangent_transient: int
    ) -> "Alignment":
        """Check the options of that name.

        Args:
            system: the network.
            drive: its inputs, which must be longer than both transients.
            k: 1 ... N, or None for N.
            transient: >= 0.
            tangent_transient: >= 0.

        Returns:
            The alignment.

        Raises:
            ValueError: k outside 1 ... N, negative transients, no step left.
        """
        k, transient = frame_size(system, k), whole_number("transient", transient, least=0)
        alignment = cls(k, transient, whole_number("tangent_transient", tangent_transient, least=0))
        if alignment.steps >= drive.steps:
            raise ValueError(
                f"transient + tangent_transient must leave a step to measure: got {transient} + {tangent_transient} "
                f"of {drive.steps} steps"
            )
        return alignment

    @property
    def steps(self) -> int:
        """Steps of both transients."""
        return self.transient + self.tangent_transient


def frame_size(system: DrivenSystem, k: int | None) -> int:
    """Return how many tangents were asked for: k, or N if that is None.

    Raises:
        ValueError: k outside 1 ... N.
    """
    size = system.state_size
    k = size if k is None else whole_number("k", k, least=1)
    if k > size:
        raise ValueError(f"k must be between 1 and the state size {size}, got {k}")
    return k


def settle(system: DrivenSystem, drive: Drive, alignment: Alignment, key: Array | None = None) -> Flow:
    """Run the state through its transient, and give it a frame that is random, orthonormal and not yet aligned.

    Args:
        system: the network.
        drive: its inputs.
        alignment: K and the transient.
        key: of the frame (default: `jax.random.key(0)`).

    Returns:
        The flow where the tangents' transient starts.
    """
    flow = advance_by(system, drive, start(system), alignment.transient)
    key = jax.random.key(0) if key is None else key
    tangents = jax.random.normal(key, (alignment.k, system.state_size), flow.state.dtype)
    return dataclasses.replace(flow, tangents=householder(tangents)[0])


def align(system: DrivenSystem, drive: Drive, alignment: Alignment, key: Array | None = None) -> Flow:
    """Run both transients, with a QR at every step of the second: the flow where the measurement starts."""
    flow, length = settle(system, drive, alignment, key), alignment.tangent_transient
    if not length:
        return flow
    return jax.lax.scan(lambda flow, _: (push(system, drive, flow)[0], None), flow, length=length)[0]


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
    return flow.with_frame(frame, jnp.all(jnp.isfinite(triangle))), triangle


def log_growth(triangle: Array) -> Array:
    """Return ln R_ii, [K], nats; for a direction that the step lost -inf in float64, NaN in float32."""
    growth = jnp.diagonal(triangle)
    lost = growth == 0
    return jnp.where(lost, growth_of_lost(growth.dtype), jnp.log(jnp.where(lost, 1.0, growth)))
