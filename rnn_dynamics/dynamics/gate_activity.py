"""How open gates are along a run, and how long the state is kept past them."""

import dataclasses
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.batch_means import CompensatedSum
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, advance, advance_by, make_drive, start
from rnn_dynamics.types import NamedGates

_Measured = TypeVar("_Measured")

LEFT_SATURATED, RIGHT_SATURATED = 0.1, 0.9
"""A gate below or above is saturated (Karpathy, Johnson and Fei-Fei 2015)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GateStatistics:
    """How open gates are; the axes are said where this is used. NaN where the state did not stay finite.

    Attributes:
        mean: of the gate's value, between 0 (closed) and 1 (open).
        left_saturated: the fraction below 0.1.
        right_saturated: the fraction above 0.9.
    """

    mean: Float[Array, "*axes"]
    left_saturated: Float[Array, "*axes"]
    right_saturated: Float[Array, "*axes"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GateActivity:
    """The G gates of a cell along a run.

    Attributes:
        by_step: [T, G], statistics over the units after every step.
        by_unit: [G, H], statistics over time of every unit.
        time_scale: [N], steps: -1 / (mean over time of ln|d s_i(t) / d s_i(t-1)|), all gates held; of an LSTM's c,
            -1 / mean ln f. 0 where nothing is kept past the gates, inf where nothing fades, negative where it grows.
        first_nonfinite_step: first step with an inf or NaN in the state, -1 if there was none.
        gates: names along G: the cell's gates that lie in (0, 1).
    """

    by_step: GateStatistics
    by_unit: GateStatistics
    time_scale: Float[Array, "*E N"]
    first_nonfinite_step: Int[Array, "*E"]
    gates: tuple[str, ...] = dataclasses.field(metadata={"static": True})


def gate_activity(
    system: DrivenSystem, inputs: InputSource = None, *, steps: int | None = None, transient: int = 0
) -> GateActivity:
    r"""Measure how open the gates of a cell are along a run, and in how many steps is forgotten what they hold.

    The numbers are those of `gate_decomposition`, without its paths and exponents: with a step
    :math:`s_t = C(s_{t-1}, g_1, \dots, g_G)`, the time scale of unit i is

    .. math:: -1 \Big/ \Bigl\langle \ln \Bigl| \frac{\partial C_i}{\partial s_i} \Bigr| \Bigr\rangle_t

    with all gates held: what Tallec and Ollivier (2018) set by the biases of the forget gate.

    Algorithm: the network is run, and each step's gates are looked at as it goes.

    Cost: that of the run, and N^2 a step for the derivative of C, which has no matmul. Memory: 3 G T.

    Args:
        system: made by `DrivenSystem.from_cell` of a cell that names its gates; `jax.vmap` for an ensemble.
        inputs: [T, F], the transient included; or a function of the step, t -> [F]; or None for an undriven run.
        steps: T where inputs is a function or None.
        transient: steps thrown away first.

    Returns:
        How open the gates are, by step and by unit, and the time scales.

    Raises:
        ValueError: a system whose gates have no names, inputs of the wrong rank or width, a negative transient, no step
            left.
    """
    drive = make_drive(system, inputs, steps)
    system.gated_cell()
    transient = whole_number("transient", transient, least=0)
    if transient >= drive.steps:
        raise ValueError(f"transient must leave a step of the {drive.steps}, got {transient}")
    return _activity(system, drive, transient)


class _AtStep(NamedTuple):
    """What is averaged over time: statistics [G, H], and [N]."""

    gates: GateStatistics
    log_retention: Array


@partial(jax.jit, static_argnames="transient")
def _activity(system: DrivenSystem, drive: Drive, transient: int) -> GateActivity:
    flow, steps = advance_by(system, drive, start(system), transient), drive.steps - transient
    flat, unflatten = ravel_pytree(_measure_step(system, drive, flow)[1])  # for its shapes: the values are not compiled

    def body(carry: tuple[Flow, CompensatedSum], _: None) -> tuple[tuple[Flow, CompensatedSum], GateStatistics]:
        flow, sums = carry
        flow, at_step = _measure_step(system, drive, flow)
        over_units = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=1), at_step.gates)
        return (flow, sums.plus(ravel_pytree(at_step)[0])), over_units

    sums = CompensatedSum.zero(flat.shape, flat.dtype)
    (flow, sums), by_step = jax.lax.scan(body, (flow, sums), length=steps)
    mean = unflatten(sums.total / steps)
    return GateActivity(
        by_step=by_step,
        by_unit=mean.gates,
        time_scale=time_scale(mean.log_retention),
        first_nonfinite_step=flow.first_nonfinite_step,
        gates=gate_names(system.gated_cell()),
    )


def _measure_step(system: DrivenSystem, drive: Drive, flow: Flow) -> tuple[Flow, _AtStep]:
    """Make one step, and look at its gates."""
    after = advance(system, drive, flow)
    cell, layout = system.gated_cell(), system.layout
    inputs_t = drive.at(flow.t, flow.state.dtype)
    assert inputs_t is not None, "a cell says how many inputs it has, so an undriven one gets zeros"
    with jax.default_matmul_precision("highest"):
        gates = cell.gates_from_drive(layout.unflatten(flow.state), cell.project(inputs_t), {})

    def past_the_gates(state: Array) -> Array:
        return layout.flatten(cell.combine(layout.unflatten(state), gates))

    retention = jnp.diagonal(jax.jacfwd(past_the_gates)(flow.state))
    at_step = _AtStep(statistics_by_unit(cell, gates), log_size(retention))
    return after, where_finite(after, at_step)


def where_finite(after: Flow, measured: _Measured) -> _Measured:
    """Return what a step made, NaN behind a state that overflowed: else NaN < 0.1 would count as a gate not shut."""
    whole = after.first_nonfinite_step < 0
    return jax.tree.map(lambda leaf: jnp.where(whole, leaf, jnp.nan), measured)


def gate_names(cell: NamedGates) -> tuple[str, ...]:
    """Name the gates of a cell that lie in (0, 1)."""
    return tuple(name for name in cell.gate_order if name not in cell.candidates)


def statistics_by_unit(cell: NamedGates, gates: dict[str, Array]) -> GateStatistics:
    """Return every unit's value and whether it is saturated, as 0 or 1: each [G, H].

    Args:
        cell: whose gates they are.
        gates: name -> [H], candidates among them.
    """
    rows = [cell.gate_order.index(name) for name in gate_names(cell)]
    every = jnp.stack([jnp.real(gates[name]) for name in cell.gate_order])  # candidates alone may be complex
    values = every[np.array(rows, int)]  # [0, H] of candidates alone
    below, above = values < LEFT_SATURATED, values > RIGHT_SATURATED
    return GateStatistics(values, below.astype(values.dtype), above.astype(values.dtype))


def log_size(values: Array) -> Array:
    """Return ln|values|, whose gradient at 0 is 0 and not NaN."""
    return jnp.where(values == 0, -jnp.inf, jnp.log(jnp.abs(jnp.where(values == 0, 1.0, values))))


def time_scale(log_retention: Array) -> Array:
    """Return the steps in which what is kept falls by a factor e, from the mean of the logarithm of what one keeps."""
    for_ever = log_retention == 0
    return jnp.where(for_ever, jnp.inf, -1 / jnp.where(for_ever, 1.0, log_retention))
