"""Lyapunov spectra of driven networks."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.aligned_frames import Alignment, settle
from rnn_dynamics.dynamics.batch_means import BATCHES, mean_of_stretches
from rnn_dynamics.dynamics.chunks import Chunked, grow_in_chunks
from rnn_dynamics.dynamics.frames import householder, reframe
from rnn_dynamics.dynamics.growth import LONGEST_INTERVAL, STRETCHES, Growth, Interval, grow
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, fold, make_drive

METHODS = ("sequential", "chunked")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LyapunovSpectrum:
    """Exponents with what is needed to trust them, and to go on from where they end.

    Attributes:
        exponents: [K], nats per step, largest first; -inf for a direction that some step maps to nothing; NaN where the
            state did not stay finite, or for a direction that `qr_every` steps, or one in float32, shrink beyond
            resolution.
        standard_error: [K], nats per step, from the batch means; NaN where the exponent is not finite, or fewer than
            two blocks were run.
        batch_means: [B, K], nats per step: the exponents over B consecutive stretches of the run.
        growth: [R, K], nats, over R shorter stretches, in the order of the frame's vectors.
        growth_steps: [R], steps of each stretch.
        log_det_residual: largest |sum_i ln|R_ii| - ln|det J|| per step over the checked blocks, nats per step; rounding
            alone if all is well, 0 where singular Jacobians make an exponent -inf, NaN where they make it NaN or K < N.
        steps_per_qr: mean number of steps between orthonormalisations.
        largest_spread: nats, the largest ln(length of a tangent / R_ii) that one of them met: a relative error u
            exp(spread) in the growth of that block.
        sweep_residual: nats per step, the certificate of method="chunked": the most that the last sweep changed of an
            exponent that is a number; inf where there was but one sweep; 0 otherwise.
        sweeps: how many were made after the first; 0 for method="sequential".
        first_nonfinite_step: first step with an inf or NaN in the state or in the growth, -1 if there was none.
        final_step: steps made in all, the transients included.
        final_state: [N], the state after them.
        final_tangents: [N, K], orthonormal frame there, in the order of the QR.
    """

    exponents: Float[Array, "*E K"]
    standard_error: Float[Array, "*E K"]
    batch_means: Float[Array, "*E B K"]
    growth: Float[Array, "*E R K"]
    growth_steps: Int[Array, "*E R"]
    log_det_residual: Float[Array, "*E"]
    steps_per_qr: Float[Array, "*E"]
    largest_spread: Float[Array, "*E"]
    sweep_residual: Float[Array, "*E"]
    sweeps: Int[Array, "*E"]
    first_nonfinite_step: Int[Array, "*E"]
    final_step: Int[Array, "*E"]
    final_state: Float[Array, "*E N"]
    final_tangents: Float[Array, "*E N K"]

    @property
    def history(self) -> Array:
        """Exponents after each of the R stretches, [R, K], nats per step, in the order of `exponents`."""
        order = jnp.argsort(-jnp.sum(self.growth, axis=-2), axis=-1)
        ordered = jnp.take_along_axis(self.growth, order[..., None, :], axis=-1)
        return jnp.cumsum(ordered, axis=-2) / self.history_steps[..., :, None]

    @property
    def history_steps(self) -> Array:
        """Measured steps behind each row of `history`, [R]."""
        return jnp.cumsum(self.growth_steps, axis=-1)

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
    qr_every: int | str = 1,
    transient: int = 0,
    tangent_transient: int = 0,
    key: Array | None = None,
    resume_from: LyapunovSpectrum | None = None,
    method: str | Chunked = "sequential",
) -> LyapunovSpectrum:
    r"""Measure the leading k Lyapunov exponents of a network along one driven trajectory.

    Algorithm: Benettin et al. (Meccanica 15, 1980) in the QR form of Eckmann and Ruelle (Rev. Mod. Phys. 57, 1985). A
    frame Q of k orthonormal tangents is pushed through the linearised step and orthonormalised again:

    .. math:: J_t Q_{t-1} = Q_t R_t, \qquad \lambda_i = \frac{1}{T} \sum_t \ln |(R_t)_{ii}|

    The Jacobian is never formed. The QR is a fast one where the spread of the tangents allows it, Householder's where
    not (see `frames.reframe`). For driven networks these are the conditional exponents of the state given the inputs.

    Cost per step: 2 H^2 k flops for each gate of H units, and every `qr_every` steps the QR's 2 N k^2, or 4 N k^2 where
    it is Householder's. On CPUs LAPACK is faster for N near 128 with one BLAS thread than with several
    (OPENBLAS_NUM_THREADS=1). Memory: N k, whatever T; "chunked" needs that for each chunk.

    Standard errors are those of batch means over B = 10 consecutive stretches. 95 % intervals cover as they should from
    about 400 autocorrelation times of the growth on (benchmarks/coverage.py).

    |R_ii| below K u times the length of its column, u the unit roundoff, is indistinguishable from 0. In float64 with
    qr_every = 1 the Jacobian is then singular and the growth -inf. In float32, or after several steps, it may only have
    shrunk beyond what the arithmetic resolves (13 nats in float32), and the exponent is NaN.

    Under `jax.vmap` every member of an ensemble waits for the slowest "auto" interval, and the determinant check of a
    full spectrum then runs at every block: a fixed interval is faster there. An exponent of -inf has the
    derivative 0, and spoils none of the others'.

    Args:
        system: the network; `jax.vmap` for an ensemble of systems, inputs or keys.
        inputs: [T, F], including both transients; or a function of the step, t -> [F]; or None for an undriven run.
        steps: T where inputs is a function or None.
        k: number of exponents, 1 ... N (default: N).
        qr_every: steps between orthonormalisations. Exact while well below ln(1/u) / (lambda_1 - lambda_k), 36 nats
            over the spread in float64, 16 in float32; beyond it the smallest exponents are NaN. "auto" chooses each
            interval from the spreads before it, and does again, with half the steps, what spread further than
            `frames.resolved_spread`, 25 nats in float64; it has no reverse-mode derivative.
        transient: steps of the state thrown away first.
        tangent_transient: steps, after those, whose growth is thrown away while the tangent frame aligns.
        key: of the random orthonormal frame to start from (default: `jax.random.key(0)`).
        resume_from: an earlier result whose run goes on: from its state, frame and step, its growth counted in. Inputs
            are those that follow, `steps` counts them, and a function of the step is asked for the steps that follow.
        method: "sequential"; or "chunked", or a `Chunked` that says how, which runs all chunks of the trajectory at
            once and sweeps over them until their frames fit: the same answer, meant for accelerators, slower on CPUs.
            Where the network is chaotic its states part from those of the other method by rounding, as between any two
            programs, and exponents agree within their errors. Where the sweeps did not reach the tolerance,
            `sweep_residual` is above it. It has no reverse-mode derivative.

    Returns:
        The spectrum, exponents in nats per step, largest first.

    Raises:
        ValueError: inputs of the wrong rank or width, k outside 1 ... N, qr_every < 1, negative transients, no step
        left, a chunk longer than the run, an unknown method, a result to resume from that is of another system.
    """
    if not isinstance(resume_from, LyapunovSpectrum | None):
        raise ValueError(f"resume_from must be a LyapunovSpectrum, got {type(resume_from).__name__}")
    first_step = None if resume_from is None else resume_from.final_step
    drive = make_drive(system, inputs, steps, first_step=first_step)
    if k is None and resume_from is not None:
        k = resume_from.exponents.shape[-1]
    alignment = Alignment.checked(system, drive, k, transient, tangent_transient)
    if resume_from is not None:
        _check_resumable(system, resume_from, alignment)
    steps = drive.steps - alignment.steps
    interval = _interval(qr_every, steps)
    options = _Options(alignment, interval, _chunked(method, steps))
    measured = _run(system, drive, key, _place_of(resume_from), options)
    return _spectrum(measured, resume_from)


class _Options(NamedTuple):
    alignment: Alignment
    interval: Interval
    chunked: Chunked | None


def _interval(qr_every: Any, steps: int) -> Interval:
    if isinstance(qr_every, str):
        if qr_every != "auto":
            raise ValueError(f'qr_every must be a whole number >= 1 or "auto", got {qr_every!r}')
        return Interval(int(np.clip(steps // (2 * BATCHES), 1, LONGEST_INTERVAL)), chosen=True)
    return Interval(whole_number("qr_every", qr_every, least=1), chosen=False)


def _chunked(method: Any, steps: int) -> Chunked | None:
    if isinstance(method, Chunked):
        return method.checked(steps)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)} or a Chunked, got {method!r}")
    return None if method == "sequential" else Chunked().checked(steps)


def _check_resumable(system: DrivenSystem, earlier: LyapunovSpectrum, alignment: Alignment) -> None:
    expected, came = (system.state_size, alignment.k), earlier.final_tangents.shape
    if came != expected:
        raise ValueError(f"resume_from must hold a frame of shape {expected}, got {came}")
    expected, came = system.initial_state.dtype, earlier.final_state.dtype
    if came != expected:
        raise ValueError(f"resume_from must be of the system's dtype {expected}, got {came}")
    if alignment.steps:
        raise ValueError(
            f"transient and tangent_transient must be 0 with resume_from, got {alignment.steps} steps in all"
        )


def _place_of(earlier: LyapunovSpectrum | None) -> Flow | None:
    """Return where an earlier run ended; that is all that the compiled loop is told, and it has always one shape."""
    if earlier is None:
        return None
    return Flow(earlier.final_step, earlier.final_state, earlier.final_tangents.T, earlier.first_nonfinite_step)


class _Measured(NamedTuple):
    """The growth of one run in one or two parts, where it ended, and the certificate of its sweeps."""

    parts: tuple[Growth, ...]
    flow: Flow
    change: Array
    sweeps: Array


@partial(jax.jit, static_argnames="options")
def _run(system: DrivenSystem, drive: Drive, key: Array | None, place: Flow | None, options: _Options) -> _Measured:
    skipped = options.alignment.steps
    # Devices that share the inputs must not all fetch them to read the first few.
    head = drive if options.chunked is None else drive.part(0, skipped)
    flow = _aligned(system, head, key, options) if place is None else place
    steps = drive.steps - skipped
    change, sweeps = jnp.zeros((), flow.state.dtype), jnp.int32(0)
    parts = []
    if options.chunked is not None:
        length = options.chunked.length
        drives = drive.part(skipped, steps - steps % length).in_pieces(length)
        steps %= length
        drive = drive.part(drive.steps - steps, steps)
        part, flow, change, sweeps = grow_in_chunks(
            system, drives, flow, interval=options.interval, method=options.chunked
        )
        parts.append(part)
    if steps:
        part, flow = grow(system, drive, flow, steps=steps, interval=options.interval)
        parts.append(part)
    return _Measured(tuple(parts), flow, change, sweeps)


def _aligned(system: DrivenSystem, drive: Drive, key: Array | None, options: _Options) -> Flow:
    """Run both transients, the second with the same QR and interval as the measurement."""
    flow, length = settle(system, drive, options.alignment, key), options.alignment.tangent_transient
    if not length:
        return flow
    block = 1 if options.interval.chosen else options.interval.longest
    _, flow = fold(system, drive, flow, jnp.zeros((), flow.state.dtype), _align, steps=length, block=block)
    return dataclasses.replace(flow, tangents=householder(flow.tangents)[0])


def _align(spread: Array, before: Flow, after: Flow) -> tuple[Array, Flow]:
    reframed = reframe(after.tangents, spread)
    return reframed.spread, after.with_frame(reframed.frame, jnp.all(jnp.isfinite(reframed.frame)))


@jax.jit
def _spectrum(measured: _Measured, earlier: LyapunovSpectrum | None) -> LyapunovSpectrum:
    parts, flow, change, sweeps = measured
    sums = _merged(jnp.concatenate([part.totals for part in parts]))
    steps = _merged(jnp.concatenate([part.steps for part in parts]))
    if earlier is not None:
        sums = jnp.concatenate([_merged(earlier.growth), sums])
        steps = jnp.concatenate([_merged(earlier.growth_steps), steps])
    blocks = jnp.sum(jnp.stack([part.blocks for part in parts])).astype(sums.dtype)
    spread = jnp.max(jnp.stack([part.largest_spread for part in parts]))
    residual = jnp.max(jnp.stack([part.log_det_residual for part in parts]))
    if earlier is not None:
        blocks += jnp.sum(earlier.growth_steps) / earlier.steps_per_qr
        spread = jnp.maximum(spread, earlier.largest_spread)
        residual = jnp.maximum(residual, earlier.log_det_residual)
        change, sweeps = jnp.maximum(change, earlier.sweep_residual), jnp.maximum(sweeps, earlier.sweeps)
    total = jnp.sum(steps, promote_integers=False)
    exponents, standard_error, batch_means = mean_of_stretches(sums, steps)
    order = jnp.argsort(-exponents)
    return LyapunovSpectrum(
        exponents=exponents[order],
        standard_error=standard_error[order],
        batch_means=batch_means[:, order],
        growth=sums,
        growth_steps=steps,
        log_det_residual=residual,
        steps_per_qr=total / blocks,
        largest_spread=spread,
        sweep_residual=change,
        sweeps=sweeps,
        first_nonfinite_step=flow.first_nonfinite_step,
        final_step=flow.t,
        final_state=flow.state,
        final_tangents=flow.tangents.T,
    )


def _merged(stretches: Array) -> Array:
    """Add neighbours while there are more than `STRETCHES`, so that a result stays small."""
    while len(stretches) > STRETCHES:
        stretches = jnp.pad(stretches, ((0, len(stretches) % 2), *((0, 0),) * (stretches.ndim - 1)))
        stretches = stretches[0::2] + stretches[1::2]
    return stretches
