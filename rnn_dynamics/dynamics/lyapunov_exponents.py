"""Lyapunov spectra of driven networks."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.dynamics.frames import factor, growth_of_lost, lost_in_rounding
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import (
    Drive,
    Flow,
    InputSource,
    advance,
    advance_by,
    fold,
    make_drive,
    start,
    whole_number,
)

BATCHES = 10
"""Batch means behind a standard error. More make each shorter than the slow parts of the growth's autocorrelation, and
intervals that cover too little: with 32, 95 % intervals of 2,000 steps of a slow GRU covered 88 %
(benchmarks/coverage.py; Schmeiser, Oper. Res. 30, 1982, on choosing 10 to 30)."""

CHECK_EVERY = 256
"""Blocks between two determinant checks: half a percent of the run time."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LyapunovSpectrum:
    """Exponents with what is needed to trust them.

    Attributes:
        exponents: [K], nats per step, largest first; -inf for a direction that some step maps to nothing; NaN where the
            state did not stay finite, or for a direction that `qr_every` steps, or one in float32, shrink beyond
            resolution.
        standard_error: [K], nats per step, from the batch means; NaN where the exponent is not finite, or fewer than
            two blocks were run.
        batch_means: [B, K], nats per step: the exponents over B consecutive stretches of the run.
        log_det_residual: largest |sum_i ln|R_ii| - ln|det J|| per step over the checked blocks, nats per step; rounding
            alone if all is well, 0 where all Jacobians are singular, NaN if K < N.
        first_nonfinite_step: first step with an inf or NaN in the state or in the growth, -1 if there was none.
        final_state: [N], s_T.
        final_tangents: [N, K], orthonormal frame at s_T, in the order of the QR.
    """

    exponents: Float[Array, "*E K"]
    standard_error: Float[Array, "*E K"]
    batch_means: Float[Array, "*E B K"]
    log_det_residual: Float[Array, "*E"]
    first_nonfinite_step: Int[Array, "*E"]
    final_state: Float[Array, "*E N"]
    final_tangents: Float[Array, "*E N K"]

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper ends, [K] each, of Student-t intervals for the exponents.

        Args:
            level: coverage, between 0 and 1.

        Returns:
            exponents -+ t * standard_error with t of B - 1 degrees of freedom.

        Raises:
            ValueError: a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        from scipy.stats import t

        half = t.ppf((1 + level) / 2, max(self.batch_means.shape[-2] - 1, 1)) * np.asarray(self.standard_error)
        return np.asarray(self.exponents) - half, np.asarray(self.exponents) + half


def lyapunov_spectrum(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    steps: int | None = None,
    k: int | None = None,
    qr_every: int = 1,
    transient: int = 0,
    tangent_transient: int = 0,
    key: Array | None = None,
) -> LyapunovSpectrum:
    r"""Measure the leading k Lyapunov exponents of a network along one driven trajectory.

    Algorithm: Benettin et al. (Meccanica 15, 1980) in the QR form of Eckmann and Ruelle (Rev. Mod. Phys. 57, 1985). A
    frame Q of k orthonormal tangents is pushed through the linearised step and orthonormalised again by a Householder
    QR:

    .. math:: J_t Q_{t-1} = Q_t R_t, \qquad \lambda_i = \frac{1}{T} \sum_t \ln |(R_t)_{ii}|

    The Jacobian is never formed. For driven networks these are the conditional exponents of the state given the inputs.

    Cost per step: 2 N^2 k flops for each gate, and 4 N k^2 - 4 k^3 / 3 for the QR every `qr_every` steps. On CPUs
    LAPACK's QR of N near 128 is faster with one BLAS thread than with several (OPENBLAS_NUM_THREADS=1). Memory: N k,
    whatever T.

    Standard errors are those of batch means over B = 10 consecutive stretches. 95 % intervals cover as they should from
    about 400 autocorrelation times of the growth on (benchmarks/coverage.py).

    |R_ii| below K u times the length of its column, u the unit roundoff, is indistinguishable from 0. In float64 with
    qr_every = 1 the Jacobian is then singular and the growth -inf. In float32, or after several steps, it may only have
    shrunk beyond what the arithmetic resolves (13 nats in float32), and the exponent is NaN.

    Args:
        system: the network; `jax.vmap` for an ensemble of systems, inputs or keys.
        inputs: [T, F], including both transients; or a function of the step, t -> [F]; or None for an undriven run.
        steps: T where inputs is a function or None.
        k: number of exponents, 1 ... N (default: N).
        qr_every: steps between orthonormalisations. Exact while well below ln(1/u) / (lambda_1 - lambda_k), 36 nats
            over the spread in float64, 16 in float32; beyond it the smallest exponents are NaN.
        transient: steps of the state thrown away first.
        tangent_transient: steps, after those, whose growth is thrown away while the tangent frame aligns.
        key: of the random orthonormal frame to start from (default: `jax.random.key(0)`).

    Returns:
        The spectrum, exponents in nats per step, largest first.

    Raises:
        ValueError: inputs of the wrong rank or width, k outside 1 ... N, qr_every < 1, negative transients, no step
        left.
    """
    drive = make_drive(system, inputs, steps)
    size = system.state_size
    k = size if k is None else whole_number("k", k, least=1)
    if k > size:
        raise ValueError(f"k must be between 1 and the state size {size}, got {k}")
    qr_every = whole_number("qr_every", qr_every, least=1)
    transient = whole_number("transient", transient, least=0)
    tangent_transient = whole_number("tangent_transient", tangent_transient, least=0)
    if transient + tangent_transient >= drive.steps:
        raise ValueError(
            f"transient + tangent_transient must leave a step to measure: got {transient} + {tangent_transient} "
            f"of {drive.steps} steps"
        )
    key = jax.random.key(0) if key is None else key
    options = _Options(k, qr_every, transient, tangent_transient)
    return _spectrum(system, drive, key, options)


class _Options(NamedTuple):
    k: int
    qr_every: int
    transient: int
    tangent_transient: int


class _Growth(NamedTuple):
    """Running sums of log growth, [B, K], with their rounding errors (Kahan), and the worst determinant check."""

    sums: Array
    compensation: Array
    log_det_residual: Array


@partial(jax.jit, static_argnames="options")
def _spectrum(system: DrivenSystem, drive: Drive, key: Array, options: _Options) -> LyapunovSpectrum:
    size, dtype = system.state_size, system.initial_state.dtype
    frame, _ = factor(jax.random.normal(key, (options.k, size), dtype))

    flow = advance_by(system, drive, start(system), options.transient) if options.transient else start(system)
    flow = dataclasses.replace(flow, tangents=frame)
    if options.tangent_transient:
        _, flow = fold(system, drive, flow, None, _align, steps=options.tangent_transient, block=options.qr_every)

    steps = drive.steps - options.transient - options.tangent_transient
    blocks = -(-steps // options.qr_every)
    batches = min(BATCHES, blocks)
    first_blocks = -(-np.arange(batches + 1) * blocks // batches)  # of each batch; then the number of all blocks
    update = partial(_accumulate, system, drive, options, first_blocks)
    zeros = jnp.zeros((batches, options.k), dtype)
    growth = _Growth(zeros, zeros, jnp.array(0.0 if options.k == size else jnp.nan, dtype))
    growth, flow = fold(system, drive, flow, growth, update, steps=steps, block=options.qr_every)
    return _finalise(growth, flow, np.minimum(first_blocks * options.qr_every, steps))


def _align(accumulator: None, before: Flow, after: Flow, number: Array) -> tuple[None, Flow]:
    return accumulator, dataclasses.replace(after, tangents=factor(after.tangents)[0])


def _accumulate(
    system: DrivenSystem,
    drive: Drive,
    options: _Options,
    first_blocks: np.ndarray,
    growth: _Growth,
    before: Flow,
    after: Flow,
    number: Array,
) -> tuple[_Growth, Flow]:
    passive, passive_before, steps = jax.lax.stop_gradient((system, before, after.t - before.t))
    frame, triangle = factor(after.tangents)
    diagonal = jnp.abs(jnp.diagonal(triangle))
    broken = (after.first_nonfinite_step < 0) & ~jnp.all(jnp.isfinite(diagonal))
    first_nonfinite_step = jnp.where(broken, after.t - 1, after.first_nonfinite_step)
    # After one step a column lost in rounding is a singular Jacobian's; after several it may be the interval's fault.
    lost = growth_of_lost(triangle.dtype) if options.qr_every == 1 else jnp.nan
    log_growth = jnp.where(lost_in_rounding(jax.lax.stop_gradient(triangle)), lost, jnp.log(diagonal))
    # Behind a state that overflowed there is no Jacobian: relu'(NaN) = 0 would count as a gradient that vanishes.
    log_growth = jnp.where(first_nonfinite_step < 0, log_growth, jnp.nan)
    batch = jnp.sum(number >= first_blocks[1:-1])
    addend = log_growth - growth.compensation[batch]
    total = growth.sums[batch] + addend
    lost = jnp.where(jnp.isfinite(total), (total - growth.sums[batch]) - addend, 0.0)
    residual = growth.log_det_residual
    if options.k == system.state_size:
        residual = jax.lax.cond(
            number % CHECK_EVERY == 0,
            lambda: jnp.maximum(residual, _log_det_residual(passive, drive, passive_before, steps, log_growth)),
            lambda: residual,
        )
    growth = _Growth(growth.sums.at[batch].set(total), growth.compensation.at[batch].set(lost), residual)
    return growth, dataclasses.replace(after, tangents=frame, first_nonfinite_step=first_nonfinite_step)


def _log_det_residual(system: DrivenSystem, drive: Drive, before: Flow, steps: Array, log_growth: Array) -> Array:
    """Compare a block's growth with the determinants of its Jacobians, taken one by one: nats per step."""
    identity = jnp.eye(system.state_size, dtype=log_growth.dtype)

    def add_step(_: Array, carry: tuple[Array, Flow]) -> tuple[Array, Flow]:
        log_det, flow = carry
        flow = advance(system, drive, dataclasses.replace(flow, tangents=identity))
        return log_det + jnp.linalg.slogdet(flow.tangents)[1], flow

    log_det, _ = jax.lax.fori_loop(0, steps, add_step, (jnp.zeros((), log_growth.dtype), before))
    total = jax.lax.stop_gradient(jnp.sum(log_growth))
    return jnp.where(total == -jnp.inf, 0.0, jnp.abs(total - log_det)) / steps  # singular: nothing to compare


def _finalise(growth: _Growth, flow: Flow, first_steps: np.ndarray) -> LyapunovSpectrum:
    batches, steps = growth.sums.shape[0], int(first_steps[-1])
    lengths = np.diff(first_steps)
    exponents = jnp.sum(growth.sums, axis=0) / steps
    batch_means = growth.sums / jnp.asarray(lengths[:, None], growth.sums.dtype)
    deviations = batch_means - exponents[None, :]
    weights = jnp.asarray(lengths[:, None] / lengths.mean(), deviations.dtype)  # a short batch scatters more
    variance = (
        jnp.sum(weights * deviations**2, axis=0) / (batches - 1) if batches > 1 else jnp.full_like(exponents, jnp.nan)
    )
    order = jnp.argsort(-exponents)
    return LyapunovSpectrum(
        exponents=exponents[order],
        standard_error=jnp.sqrt(variance / batches)[order],
        batch_means=batch_means[:, order],
        log_det_residual=growth.log_det_residual,
        first_nonfinite_step=flow.first_nonfinite_step,
        final_state=flow.state,
        final_tangents=flow.tangents.T,
    )
