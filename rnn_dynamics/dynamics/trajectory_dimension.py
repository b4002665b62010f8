"""How many dimensions a trajectory fills: the participation ratio of its principal components."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.batch_means import first_times, with_row
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, advance_by, fold, make_drive, start


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrajectoryDimension:
    """The linear dimension of a trajectory and the moments behind it; NaN if the state did not stay finite.

    Attributes:
        dimension: 1 ... N; 0 if the state did not move at all.
        standard_error: jackknife over B = 10 consecutive stretches; NaN where fewer than three steps were measured.
        bias: what the jackknife finds the dimension to be off by, as the run is finite; `dimension - bias` is corrected
            to first order.
        mean: [N], of the state.
        covariance: [N, N], of the state, unbiased for independent states; its eigenvectors are the principal
            components.
        first_nonfinite_step: first step with an inf or NaN in the state, -1 if there was none.
    """

    dimension: Float[Array, "*E"]
    standard_error: Float[Array, "*E"]
    bias: Float[Array, "*E"]
    mean: Float[Array, "*E N"]
    covariance: Float[Array, "*E N N"]
    first_nonfinite_step: Int[Array, "*E"]


def trajectory_dimension(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    steps: int | None = None,
    transient: int = 0,
) -> TrajectoryDimension:
    r"""Measure the participation-ratio dimension of the states that a network visits.

    .. math:: D = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2} = \frac{(\mathrm{tr}\, C)^2}{\mathrm{tr}\, C^2}

    with C the covariance of the state over time and :math:`\lambda_i` its eigenvalues: N if the variance is spread
    evenly, 1 if it lies in one direction (Abbott, Rajan and Sompolinsky, arXiv 0912.3832, 2009; Gao et al., bioRxiv
    214262, 2017). Unlike `kaplan_yorke_dimension` it is a linear dimension, and depends on the scale of each unit: c
    and h of an LSTM count alike.

    Algorithm: mean and scatter in one pass, without cancellation however far the mean lies from 0 (Welford,
    Technometrics 4, 1962), for B = 10 consecutive stretches, merged at the end by Chan, Golub and LeVeque (Am. Stat.
    37, 1983). The error is that of a jackknife that leaves out one stretch at a time, right when these are longer than
    the slowest fluctuations.

    Cost per step: 2 N^2 flops for each gate and 3 N^2 for the moments. Memory: B N^2, whatever T.

    Args:
        system: the network; `jax.vmap` for an ensemble.
        inputs: [T, F], the transient included; or a function of the step, t -> [F]; or None for an undriven run.
        steps: T where inputs is a function or None.
        transient: steps of the state thrown away first.

    Returns:
        The dimension with its error and bias, and the moments.

    Raises:
        ValueError: inputs of the wrong rank or width, a negative transient, fewer than two steps left.
    """
    drive = make_drive(system, inputs, steps)
    transient = whole_number("transient", transient, least=0)
    if transient + 2 > drive.steps:
        raise ValueError(f"transient must leave two steps to measure: got {transient} of {drive.steps} steps")
    return _measure(system, drive, transient)


class _Moments(NamedTuple):
    """Of the states of a stretch: how many, their mean [N] and sum of (s - mean)(s - mean)^T [N, N]."""

    steps: Array
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, state: Array) -> "_Moments":
        """Return the moments of one state [N]."""
        size = len(state)
        return cls(jnp.ones((), state.dtype), state, jnp.zeros((size, size), state.dtype))

    def merged_with(self, other: "_Moments") -> "_Moments":
        """Return the moments of both stretches together."""
        steps = self.steps + other.steps
        share = other.steps / jnp.maximum(steps, 1)
        shift = other.mean - self.mean
        scatter = self.scatter + other.scatter + self.steps * share * jnp.outer(shift, shift)
        return _Moments(steps, self.mean + share * shift, scatter)

    @property
    def dimension(self) -> Array:
        """Of the scatter, which is the covariance but for a factor that cancels."""
        total = jnp.trace(self.scatter)
        still = total == 0
        shares = self.scatter / jnp.where(still, 1.0, total)  # squares of the scatter itself could underflow
        return jnp.where(still, 0.0, 1 / jnp.where(still, 1.0, jnp.sum(shares**2)))


@partial(jax.jit, static_argnames="transient")
def _measure(system: DrivenSystem, drive: Drive, transient: int) -> TrajectoryDimension:
    steps = drive.steps - transient
    flow = advance_by(system, drive, start(system), transient)
    first_steps = flow.t + first_times(steps)

    def add(stretches: _Moments, before: Flow, after: Flow) -> tuple[_Moments, Flow]:
        batch = jnp.sum(before.t >= first_steps[1:-1])
        return with_row(stretches, batch, lambda moments: moments.merged_with(_Moments.of(after.state))), after

    one = _Moments.of(flow.state)
    stretches = jax.tree.map(lambda leaf: jnp.zeros((len(first_steps) - 1, *leaf.shape), leaf.dtype), one)
    stretches, flow = fold(system, drive, flow, stretches, add, steps=steps)
    whole = flow.first_nonfinite_step < 0
    stretches = jax.tree.map(lambda leaf: jnp.where(whole, leaf, jnp.nan), stretches)
    run, standard_error, bias = _jackknife(stretches)
    unknown = jnp.where(steps > 2, 0.0, jnp.nan)  # of two states, one left out leaves one, which has no dimension
    return TrajectoryDimension(
        dimension=run.dimension,
        standard_error=standard_error + unknown.astype(standard_error.dtype),
        bias=bias + unknown.astype(bias.dtype),
        mean=run.mean,
        covariance=run.scatter / (steps - 1),
        first_nonfinite_step=flow.first_nonfinite_step,
    )


def _jackknife(stretches: _Moments) -> tuple[_Moments, Array, Array]:
    """Merge B stretches: their moments, and the standard error and bias of the dimension of these."""

    def merged(kept: Array) -> _Moments:
        """Merge the stretches where kept, [B], is 1 and not 0."""
        chosen = stretches._replace(steps=kept * stretches.steps, scatter=kept[:, None, None] * stretches.scatter)
        nothing = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), stretches)
        return jax.lax.scan(lambda merged, stretch: (merged.merged_with(stretch), None), nothing, chosen)[0]

    batches = len(stretches.steps)
    run = merged(jnp.ones_like(stretches.steps))
    left_out = jax.lax.map(lambda kept: merged(kept).dimension, 1 - jnp.eye(batches, dtype=stretches.steps.dtype))
    deviations = left_out - run.dimension
    return run, jnp.sqrt((batches - 1) * jnp.var(deviations)), (batches - 1) * jnp.mean(deviations)
