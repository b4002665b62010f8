"""Which gate carries the gradient: the state Jacobian of a gated cell as a sum over paths."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from rnn_dynamics.dynamics.aligned_frames import Alignment, align, push
from rnn_dynamics.dynamics.batch_means import CompensatedSum, first_times, mean_of_batches, with_row
from rnn_dynamics.dynamics.gate_activity import (
    GateStatistics,
    gate_names,
    log_size,
    statistics_by_unit,
    time_scale,
    where_finite,
)
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, make_drive
from rnn_dynamics.types import NamedGates

DIRECT = "direct"
"""The path past all gates: that of the state when every gate is held."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GateDecomposition:
    """The Jacobians of T steps as sums over P paths, and the G gates that shape them.

    Attributes:
        path_norm: [T, P], ||J_t^p||_F / sqrt(N), the root mean square growth along the path alone, after every step;
            NaN from where the state did not stay finite.
        share: [P], mean over time of the path's share of the growth of the leading tangent; they sum to 1, and one
            alone may be negative or beyond 1. NaN if some step mapped the tangent to nothing.
        share_standard_error: [P], from batch means; NaN of fewer than two steps.
        exponent: lambda_1, nats per step: the mean log growth that is shared out.
        exponent_standard_error: nats per step.
        time_scale: [N], steps: -1 / (mean over time of ln|d s_i(t) / d s_i(t-1)|) along the direct path; of an LSTM's
            c, -1 / mean ln f. 0 where there is no such path, inf where nothing fades, negative where it grows.
        by_step: [T, G], statistics over the units after every step.
        by_unit: [G, H], statistics over time of every unit.
        residual: largest ||sum_p J_p v - J v|| / ||J v|| of the leading tangent over the steps; rounding alone unless
            the cell's step is not what its gates and its state equation make.
        first_nonfinite_step: first step with an inf or NaN in the state or in the growth, -1 if there was none.
        paths: names along P: "direct", then all of the cell's gates, candidates among them.
        gates: names along G: the cell's gates that lie in (0, 1).
    """

    path_norm: Float[Array, "*E T P"]
    share: Float[Array, "*E P"]
    share_standard_error: Float[Array, "*E P"]
    exponent: Float[Array, "*E"]
    exponent_standard_error: Float[Array, "*E"]
    time_scale: Float[Array, "*E N"]
    by_step: GateStatistics
    by_unit: GateStatistics
    residual: Float[Array, "*E"]
    first_nonfinite_step: Int[Array, "*E"]
    paths: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    gates: tuple[str, ...] = dataclasses.field(metadata={"static": True})


def gate_decomposition(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    steps: int | None = None,
    transient: int = 0,
    tangent_transient: int = 0,
    key: Array | None = None,
) -> GateDecomposition:
    r"""Split the state Jacobian of a gated cell by path, and say what each contributes to the growth.

    Algorithm: a step is :math:`s_t = C(s_{t-1}, g_1, \dots, g_G)` with gates :math:`g_k = G_k(s_{t-1}, x_t, g_{<k})`.
    By the chain rule, exactly,

    .. math:: J_t = \frac{\partial C}{\partial s} + \sum_k \frac{\mathrm{d} C}{\mathrm{d} g_k}
                    \frac{\partial G_k}{\partial s}

    The first term is the direct path, all gates held: of an LSTM diag(f) from c to c, and on through o tanh' to h. Gate
    k's path is what the state does to it with all other gates held, and all that follows from it (d: gates that read
    g_k respond). So of a GRU, whose candidate n reads the reset gate r, "candidate" is the path into n with r held, and
    "reset" the one through r into n. For what gates do to the Jacobians and spectra of LSTM and GRU see Can,
    Krishnamurthy and Schwab (Proc. Mach. Learn. Res. 107, 476, 2020).

    The shares are those in the leading direction: with v the unit tangent of the largest exponent and J v = growth u,

    .. math:: \mathrm{share}_p = \langle u, J_p v \rangle / \mathrm{growth}, \qquad \sum_p \mathrm{share}_p = 1

    at every step. This is how the pushed tangent is made up. It is not the derivative of the exponent by the strength
    of a path, in which the leading adjoint stands in the place of u.

    Standard errors are those of batch means, as of `lyapunov_spectrum`.

    Cost per step: that of one dense Jacobian, 2 N H^2 flops for each gate, for the paths share the matmul. Memory:
    P N^2, and (P + 3 G) T for what is kept of every step; reverse-mode differentiation keeps P N^2 of every step.

    Args:
        system: made by `DrivenSystem.from_cell` of a cell that names its gates; `jax.vmap` for an ensemble.
        inputs: [T, F], including both transients; or a function of the step, t -> [F]; or None for an undriven run.
        steps: T where inputs is a function or None.
        transient: steps of the state thrown away first.
        tangent_transient: steps, after those, that are thrown away while the leading tangent aligns.
        key: of the random tangent to start from (default: `jax.random.key(0)`).

    Returns:
        Norms and shares of the paths, time scales, and how open the gates are.

    Raises:
        ValueError: a system whose gates have no names, inputs of the wrong rank or width, negative transients, no step
        left.
    """
    drive = make_drive(system, inputs, steps)
    system.gated_cell()
    return _decomposition(system, drive, key, Alignment.checked(system, drive, 1, transient, tangent_transient))


def jacobian_by_path(
    system: DrivenSystem, state: Float[Array, " N"], inputs_t: Float[Array, " F"]
) -> dict[str, Float[Array, "N N"]]:
    """Return the state Jacobian of one step path by path as matrices, for small N and for checks.

    Args:
        system: made by `DrivenSystem.from_cell` of a cell that names its gates.
        state: s_{t-1}, where to take it.
        inputs_t: x_t of that step.

    Returns:
        Name of the path, "direct" first -> matrix, row i column j from s_{t-1}[j] to s_t[i]; they sum to `jacobian`.

    Raises:
        ValueError: a system whose gates have no names.
    """
    matrices, _ = _split_step(system, state, inputs_t)
    return dict(zip(_path_names(system.gated_cell()), matrices, strict=True))


def _path_names(cell: NamedGates) -> tuple[str, ...]:
    return (DIRECT, *cell.gate_order)


@jax.jit
def _split_step(system: DrivenSystem, state: Array, inputs_t: Array) -> tuple[Array, dict[str, Array]]:
    """Return the Jacobian of each path, [P, N, N], and the gates, name -> [H], of the step from this state."""
    cell, layout = system.gated_cell(), system.layout
    carry, drive = layout.unflatten(state), cell.project(inputs_t)
    gates = cell.gates_from_drive(carry, drive, {})

    def ends(moving_state: Array) -> Array:
        """Make the step P times, [P, N], each time with the state moving along one path and held along the others."""
        moving = layout.unflatten(moving_state)
        carries = [cell.combine(moving, gates)]
        for name in cell.gate_order:
            others = {other: value for other, value in gates.items() if other != name}
            gate = {name: cell.gates_from_drive(moving, drive, others)[name]}
            carries.append(cell.combine(carry, cell.gates_from_drive(carry, drive, gate) | gate))
        return jnp.stack([layout.flatten(end) for end in carries])

    return jax.jacfwd(ends)(state), gates


class _AtStep(NamedTuple):
    """What is kept of every step: [P], and statistics [G]."""

    path_norm: Array
    gates: GateStatistics


class _Averaged(NamedTuple):
    """What is averaged over time: [P], [], [N], and statistics [G, H]."""

    share: Array
    log_growth: Array
    log_retention: Array
    gates: GateStatistics


@partial(jax.jit, static_argnames="alignment")
def _decomposition(system: DrivenSystem, drive: Drive, key: Array | None, alignment: Alignment) -> GateDecomposition:
    flow = align(system, drive, alignment, key)
    first_steps = flow.t + first_times(drive.steps - alignment.steps)
    flat, unflatten = ravel_pytree(_measure_step(system, drive, flow)[1])  # for its shapes: the values are not compiled

    def body(carry: tuple[Flow, CompensatedSum, Array], _: None) -> tuple[tuple[Flow, CompensatedSum, Array], _AtStep]:
        before, sums, worst = carry
        flow, averaged, at_step, residual = _measure_step(system, drive, before)
        batch = jnp.sum(before.t >= first_steps[1:-1])
        sums = with_row(sums, batch, lambda sum_: sum_.plus(ravel_pytree(averaged)[0]))
        return (flow, sums, jnp.maximum(worst, residual)), at_step

    sums = CompensatedSum.zero((len(first_steps) - 1, flat.size), flat.dtype)
    carry = (flow, sums, jnp.zeros((), flat.dtype))
    (flow, sums, residual), series = jax.lax.scan(body, carry, length=drive.steps - alignment.steps)
    averages = mean_of_batches(sums.total, jnp.diff(first_steps))
    mean, error = unflatten(averages.mean), unflatten(averages.standard_error)
    cell = system.gated_cell()
    return GateDecomposition(
        path_norm=series.path_norm,
        share=mean.share,
        share_standard_error=error.share,
        exponent=mean.log_growth,
        exponent_standard_error=error.log_growth,
        time_scale=time_scale(mean.log_retention),
        by_step=series.gates,
        by_unit=mean.gates,
        residual=residual,
        first_nonfinite_step=flow.first_nonfinite_step,
        paths=_path_names(cell),
        gates=gate_names(cell),
    )


def _measure_step(system: DrivenSystem, drive: Drive, flow: Flow) -> tuple[Flow, _Averaged, _AtStep, Array]:
    """Make one step: the flow after it, what is averaged, what is kept, and the residual of the sum over paths."""
    after, triangle = push(system, drive, flow)
    direction, growth = after.tangents[0], triangle[0, 0]
    inputs_t = drive.at(flow.t, flow.state.dtype)
    assert inputs_t is not None, "a cell says how many inputs it has, so an undriven one gets zeros"
    matrices, gates = _split_step(system, flow.state, inputs_t)
    pushed = matrices @ flow.tangents[0]
    apart = jnp.sum(pushed, axis=0) - growth * direction
    error = jnp.linalg.norm(jax.lax.stop_gradient(apart / jnp.where(growth > 0, growth, 1.0)))
    fractions = statistics_by_unit(system.gated_cell(), gates)
    averaged = _Averaged(
        share=pushed @ direction / growth,
        log_growth=jnp.log(growth),
        log_retention=log_size(jnp.diagonal(matrices[0])),
        gates=fractions,
    )
    at_step = _AtStep(_norms(matrices), jax.tree.map(lambda leaf: jnp.mean(leaf, axis=1), fractions))
    return after, *where_finite(after, (averaged, at_step, error))


def _norms(matrices: Array) -> Array:
    """Return the Frobenius norm over sqrt(N) of matrices [P, N, N]; neither squares nor gradients at 0 go astray."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(matrices), axis=(1, 2)))
    scale = jnp.where(largest > 0, largest, 1.0)
    squares = jnp.sum((matrices / scale[:, None, None]) ** 2, axis=(1, 2)) / matrices.shape[1]
    return jnp.where(largest > 0, scale * jnp.sqrt(jnp.where(largest > 0, squares, 1.0)), 0.0)
