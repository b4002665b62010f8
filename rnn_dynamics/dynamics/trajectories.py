"""The one loop over time. Every quantity drives it with three small pieces of its own: init, update, finalise.

Memory does not grow with the number of steps: inputs are read one step at a time, from an array or from a function of
the step, and what an update returns is carried and not stacked.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.system import DrivenSystem

Accumulator = TypeVar("Accumulator")
InputSource = Any
"""Inputs [T, F]; or a function of the step, t -> [F] with t a traced int32; or None for an undriven system.

A function is compiled in, by its identity: it must be pure, and what it closes over must not change between calls.
"""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Drive:
    """The inputs of a run, readable at any step t = first_step ... first_step + steps-1.

    Attributes:
        values: [T, F], or None.
        first_step: the step that values[0] belongs to; 0 but for a run that goes on from an earlier one.
        function: t -> [F], or None (static).
        steps: T (static).
        in_features: F where the system knows it, for the zeros that drive an undriven cell (static).
    """

    values: Array | None
    first_step: Array
    function: Callable[[Array], Array] | None = dataclasses.field(metadata={"static": True})
    steps: int = dataclasses.field(metadata={"static": True})
    in_features: int | None = dataclasses.field(metadata={"static": True})

    def at(self, t: Array, dtype: Any) -> Array | None:
        """Return inputs_t [F] at step t, or None for an undriven system of unknown input width."""
        if self.values is not None:
            return _floats_as(dtype, jax.lax.dynamic_index_in_dim(self.values, t - self.first_step, keepdims=False))
        if self.function is not None:
            return _floats_as(dtype, jnp.asarray(self.function(t)))
        return None if self.in_features is None else jnp.zeros(self.in_features, dtype)

    def part(self, skipped: int, steps: int) -> "Drive":
        """Return the drive of the `steps` steps that follow the first `skipped`."""
        values = None if self.values is None else self.values[skipped : skipped + steps]
        return dataclasses.replace(self, values=values, first_step=self.first_step + skipped, steps=steps)

    def in_pieces(self, length: int) -> "Drive":
        """Cut the run into pieces of `length` steps, which divides it: a drive whose arrays have a leading axis."""
        pieces = self.steps // length
        values = None if self.values is None else self.values.reshape(pieces, length, -1)
        first_step = self.first_step + length * jnp.arange(pieces, dtype=jnp.int32)
        return dataclasses.replace(self, values=values, first_step=first_step, steps=length)


def _floats_as(dtype: Any, inputs_t: Array) -> Array:
    return inputs_t.astype(dtype) if jnp.issubdtype(inputs_t.dtype, jnp.floating) else inputs_t


def make_drive(
    system: DrivenSystem, inputs: InputSource, steps: int | None, *, first_step: Array | None = None
) -> Drive:
    """Check a system and its inputs against each other.

    Args:
        system: one system; an ensemble goes through `jax.vmap`.
        inputs: [T, F], a function t -> [F], or None.
        steps: T where inputs is a function or None; otherwise None, or at most the inputs' length.
        first_step: that of a run that goes on from an earlier one (default: 0).

    Returns:
        The drive.

    Raises:
        ValueError: a stacked system, inputs of the wrong rank or width, steps missing, below 1 or beyond the inputs.
    """
    if not isinstance(system, DrivenSystem):
        made = "DrivenSystem.from_cell or DrivenSystem.from_step"
        raise ValueError(f"system must be a DrivenSystem, got {type(system).__name__}; make one with {made}")
    if system.initial_state.ndim != 1:
        raise ValueError(
            f"system must be one network with a state [N], got a state of shape {system.initial_state.shape}; "
            "measure an ensemble with jax.vmap"
        )
    steps = None if steps is None else whole_number("steps", steps, least=1)
    begin = jnp.int32(0) if first_step is None else first_step
    function: Any = inputs if callable(inputs) else None
    if inputs is None or function is not None:
        if steps is None:
            raise ValueError(f"steps must be given when inputs is {'None' if inputs is None else 'a function'}")
        if function is not None and system.in_features is not None:
            shape = jax.eval_shape(function, jax.ShapeDtypeStruct((), jnp.int32)).shape
            if shape != (system.in_features,):
                raise ValueError(f"inputs must give {system.in_features} features at each step, got shape {shape}")
        return Drive(None, begin, function, steps, system.in_features)
    inputs = jnp.asarray(inputs)
    if inputs.ndim != 2:
        raise ValueError(f"inputs must have shape [time, feature], got {inputs.shape}; vmap over a batch of sequences")
    if system.in_features is not None and inputs.shape[1] != system.in_features:
        raise ValueError(f"inputs must have {system.in_features} features, got {inputs.shape[1]}")
    if inputs.shape[0] < (steps or 1):
        raise ValueError(f"steps must be between 1 and the {inputs.shape[0]} steps of the inputs, got {steps or 0}")
    return Drive(inputs, begin, None, steps or inputs.shape[0], system.in_features)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Flow:
    """Where a run stands: what the loop carries from step to step.

    Attributes:
        t: steps made.
        state: [N].
        tangents: [K, N], tangent vectors as rows; K = 0 while only the state is of interest.
        first_nonfinite_step: the step whose state was the first with an inf or NaN, -1 while there is none.
    """

    t: Array
    state: Array
    tangents: Array
    first_nonfinite_step: Array

    def with_frame(self, frame: Array, finite: Array) -> "Flow":
        """Return the flow with another frame [K, N]; if `finite` is false, its last step counts as not finite."""
        broken = (self.first_nonfinite_step < 0) & ~finite
        first_nonfinite_step = jnp.where(broken, self.t - 1, self.first_nonfinite_step)
        return dataclasses.replace(self, tangents=frame, first_nonfinite_step=first_nonfinite_step)


def start(system: DrivenSystem) -> Flow:
    """Stand at the initial state, without tangents."""
    state = system.initial_state
    return Flow(jnp.int32(0), state, jnp.zeros((0, state.shape[0]), state.dtype), jnp.int32(-1))


def advance(system: DrivenSystem, drive: Drive, flow: Flow) -> Flow:
    """Make one step of the state, and apply its Jacobian to the tangents: a linearised step, never a matrix."""
    inputs_t = drive.at(flow.t, flow.state.dtype)
    if flow.tangents.shape[0] == 0:
        state, tangents = system.step(flow.state, inputs_t), flow.tangents
    else:
        state, push = jax.linearize(lambda s: system.step(s, inputs_t), flow.state)
        tangents = jax.vmap(push)(flow.tangents)
    after = dataclasses.replace(flow, t=flow.t + 1, state=state)
    return after.with_frame(tangents, jnp.all(jnp.isfinite(state)))


def advance_by(system: DrivenSystem, drive: Drive, flow: Flow, steps: int | Array) -> Flow:
    """Make several steps without touching the tangents in between; `steps` may be traced."""
    if isinstance(steps, int):
        if steps == 0:
            return flow
        if steps == 1:
            return advance(system, drive, flow)
        return jax.lax.scan(lambda flow, _: (advance(system, drive, flow), None), flow, None, length=steps)[0]
    return jax.lax.fori_loop(0, steps, lambda _, flow: advance(system, drive, flow), flow)


def fold(
    system: DrivenSystem,
    drive: Drive,
    flow: Flow,
    accumulator: Accumulator,
    update: Callable[[Accumulator, Flow, Flow], tuple[Accumulator, Flow]],
    *,
    steps: int,
    block: int = 1,
) -> tuple[Accumulator, Flow]:
    """Fold a quantity over time: advance by a block of steps, let the quantity look and re-frame the tangents, repeat.

    Args:
        system: the network.
        drive: its inputs.
        flow: where to start.
        accumulator: the quantity's own running result, any pytree.
        update: (accumulator, flow before the block, flow after it) -> (accumulator, flow).
        steps: how many steps in all; the last block is shorter where `block` does not divide it.
        block: steps between two updates.

    Returns:
        The accumulator and the flow after the last update.
    """

    def body(_: Any, carry: tuple[Accumulator, Flow], length: int) -> tuple[Accumulator, Flow]:
        accumulator, before = carry
        return update(accumulator, before, advance_by(system, drive, before, length))

    whole, rest = divmod(steps, block)
    carry = (accumulator, flow)
    if whole:
        carry = jax.lax.fori_loop(0, whole, partial(body, length=block), carry)
    if rest:
        carry = body(whole, carry, rest)
    return carry


def fold_adaptively(
    system: DrivenSystem,
    drive: Drive,
    flow: Flow,
    accumulator: Accumulator,
    update: Callable[[Accumulator, Flow, Flow], tuple[Accumulator, Flow]],
    *,
    steps: int,
    block: Callable[[Accumulator], Array],
) -> tuple[Accumulator, Flow]:
    """Fold a quantity over time by blocks whose length it chooses as it goes; no reverse-mode derivative.

    Args:
        system: the network.
        drive: its inputs.
        flow: where to start.
        accumulator: the quantity's own running result, any pytree.
        update: (accumulator, flow before the block, flow after it) -> (accumulator, flow). It may return the flow
            before the block, to have it done again with another length.
        steps: how many steps in all.
        block: accumulator -> length of the next block.

    Returns:
        The accumulator and the flow after the last update.
    """
    end = flow.t + steps

    def body(carry: tuple[Accumulator, Flow]) -> tuple[Accumulator, Flow]:
        accumulator, before = carry
        length = jnp.minimum(block(accumulator), end - before.t)
        return update(accumulator, before, advance_by(system, drive, before, length))

    return jax.lax.while_loop(lambda carry: carry[1].t < end, body, (accumulator, flow))


def trajectory(system: DrivenSystem, inputs: InputSource = None, *, steps: int | None = None) -> Float[Array, "T N"]:
    """Run a system and keep its states.

    Args:
        system: the network.
        inputs: [T, F]; or a function of the step, t -> [F]; or None for an undriven run.
        steps: T where inputs is a function or None.

    Returns:
        States s_1 ... s_T, [T, N]; s_0 is `system.initial_state`.

    Raises:
        ValueError: inputs of the wrong rank or width, steps missing, below 1 or beyond the inputs.
    """
    return _states(system, make_drive(system, inputs, steps))


@jax.jit
def _states(system: DrivenSystem, drive: Drive) -> Array:
    def body(flow: Flow, _: None) -> tuple[Flow, Array]:
        flow = advance(system, drive, flow)
        return flow, flow.state

    return jax.lax.scan(body, start(system), None, length=drive.steps)[1]


def jacobian(system: DrivenSystem, state: Float[Array, " N"], inputs_t: Array | None = None) -> Float[Array, "N N"]:
    r"""Return the state Jacobian of one step as a matrix, for small N and for checks.

    Args:
        system: the network.
        state: s_{t-1}, where to take it.
        inputs_t: x_t [F] of that step (default: zeros, or nothing for a system that is not driven).

    Returns:
        :math:`J_t = \partial s_t / \partial s_{t-1}`, row i column j = d s_t[i] / d s_{t-1}[j].
    """
    if inputs_t is None and system.in_features is not None:
        inputs_t = jnp.zeros(system.in_features, jnp.asarray(state).dtype)
    return jax.jacfwd(lambda s: system.step(s, inputs_t))(state)
