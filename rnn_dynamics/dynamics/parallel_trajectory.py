"""All states of a trajectory at once, where the network forgets: Newton's method, with a certificate or a refusal."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jaxtyping import Bool, Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, InputSource, make_drive

TRUSTED = 10.0
"""Times the largest state: up to there an update is taken as Newton's method has it. Larger ones only lead away."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ParallelTrajectory:
    """States that were found all at once, and what says that they are those of the network.

    Attributes:
        states: [T, N], s_1 ... s_T; NaN throughout where they were not accepted, and from `first_nonfinite_step` on.
        residual: the largest |s_t - F(s_{t-1}, x_t)| of a unit at a step, in units of the state.
        error_estimate: the largest error of a unit at a step to be expected, in units of the state: the residuals and
            the rounding of every step, carried on by the Jacobians that follow.
        largest_exponent: nats per step, lambda_1 along these states, from the growth of ||J_t ... J_1|| over the second
            half of the steps; transient growth, which a longer run forgets, is in the first.
        accepted: whether the exponent is negative and the error within the tolerance.
        iterations: how often all states were updated.
        first_nonfinite_step: first step with an inf or NaN in the state, -1 if there was none, or the error is above
            the tolerance.
    """

    states: Float[Array, "*E T N"]
    residual: Float[Array, "*E"]
    error_estimate: Float[Array, "*E"]
    largest_exponent: Float[Array, "*E"]
    accepted: Bool[Array, "*E"]
    iterations: Int[Array, "*E"]
    first_nonfinite_step: Int[Array, "*E"]


def parallel_trajectory(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    steps: int | None = None,
    tolerance: float | None = None,
    max_iterations: int = 100,
) -> ParallelTrajectory:
    r"""Run a system at all steps at once, if it forgets where it started, and refuse otherwise.

    Algorithm: Newton's method for the T equations s_t = F(s_{t-1}, x_t) together (DEER: Lim et al., ICLR 2024; Danieli
    et al., NeurIPS 2023). Every update is the solution of a linear recurrence along the states at hand, found in about
    log2 T rounds of an associative scan over affine maps:

    .. math:: e_t = J_t e_{t-1} + r_t, \qquad r_t = F(s_{t-1}, x_t) - s_t, \qquad e_0 = 0

    e is what the states are off by, up to its square. So the same scan along the states that are returned is their
    certificate. A second right-hand side, u |s_t| with random signs, is solved with it: what the rounding of every step
    becomes. From the first step on where e is far beyond the scale of the states, plain steps are made in its place.

    How well these equations are conditioned is a matter of the largest Lyapunov exponent (Gonzalez et al.,
    Predictability enables parallelization of nonlinear state space models, NeurIPS 2025). Above 0 the iteration takes
    up to T rounds, or ends at a pseudo-orbit: small residuals, wrong states. So the exponent along the states found
    must be negative, and the estimated error within the tolerance. Approximate Jacobians, such as diagonal ones
    (Gonzalez et al., NeurIPS 2024), are not offered: the certificate would need the full ones all the same.

    Outside of `jax.jit` and `jax.vmap` what is not accepted is refused by a ValueError; inside, where nothing can be
    raised, `accepted` is False and all states are NaN.

    Cost per step and iteration: N linearised steps, 2 N^2 flops each for each gate, and some 4 N^3 of the scan, N times
    the cost of `trajectory` and more; in exchange fewer operations wait for each other, about 2 log2 T an iteration in
    the place of T in all. It is meant for accelerators, long sequences and small N. Memory: T N^2. No reverse-mode
    derivative.

    Args:
        system: the network; `jax.vmap` for an ensemble.
        inputs: [T, F]; or a function of the step, t -> [F]; or None for an undriven run.
        steps: T where inputs is a function or None.
        tolerance: largest error that is accepted, relative to the largest entry of the states (default: sqrt(u), 1.5e-8
            in float64, 3.5e-4 in float32). The iteration ends with the first update that is smaller, so that what is
            left is about its square, or rounding.
        max_iterations: of updates, at most.

    Returns:
        The states of `trajectory`, up to rounding times the condition of the run, with their error.

    Raises:
        ValueError: inputs of the wrong rank or width, a tolerance that is not > 0, max_iterations below 1; a run that
        is refused, for its largest exponent or its error.
    """
    drive = make_drive(system, inputs, steps)
    max_iterations = whole_number("max_iterations", max_iterations, least=1)
    if tolerance is None:
        tolerance = math.sqrt(jnp.finfo(system.initial_state.dtype).eps)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be a number > 0, relative to the largest state, got {tolerance!r}")
    result = _solve(system, drive, tolerance, max_iterations)
    if not isinstance(result.accepted, Tracer) and not result.accepted:
        _refuse(result, tolerance)
    return result


def _refuse(result: ParallelTrajectory, tolerance: float) -> None:
    """Say why.

    Raises:
        ValueError: always.
    """
    if not result.largest_exponent < 0:
        why = f"the largest exponent along the states is {result.largest_exponent:.3g} nats per step, and not below 0"
    else:
        why = (
            f"after {result.iterations} iterations the estimated error is {result.error_estimate:.3g}, "
            f"above the tolerance of {tolerance:.3g} times the largest state"
        )
    raise ValueError(f"the states cannot be computed in parallel: {why}; use trajectory")


class _Affine(NamedTuple):
    """Maps e -> exp(log_scale) matrix e + offset; the scale keeps products of many steps from overflowing.

    Attributes:
        matrix: [..., N, N].
        log_scale: [...].
        offset: [..., N, R], for R right-hand sides.
    """

    matrix: Array
    log_scale: Array
    offset: Array


class _Iterate(NamedTuple):
    """States [T, N] that the loop has come to, and what is known of them; the last four are as in the result.

    Attributes:
        states: s_t, [T, N].
        stepped: F(s_{t-1}, x_t), [T, N].
        errors: e_t, [T, N].
        settled: whether the last update was within the tolerance.
        iterations: updates so far; the first iterate is a guess, made by none.
        residual: see the result.
        error_estimate: likewise.
        largest_exponent: likewise.
        first_nonfinite_step: likewise.
    """

    states: Array
    stepped: Array
    errors: Array
    settled: Array
    iterations: Array
    residual: Array
    error_estimate: Array
    largest_exponent: Array
    first_nonfinite_step: Array


@jax.jit
def _solve(
    system: DrivenSystem, drive: Drive, tolerance: float | Array, max_iterations: int | Array
) -> ParallelTrajectory:
    def unfinished(iterate: _Iterate) -> Array:
        return ~iterate.settled & (iterate.iterations < max_iterations)

    def update(iterate: _Iterate) -> _Iterate:
        # As far as the linearisation is to be trusted; behind that plain steps, which cannot leave bounded states. The
        # first state that is not right yet becomes right by either.
        size = jnp.max(jnp.where(jnp.isfinite(iterate.stepped), jnp.abs(iterate.stepped), 0.0))
        trusted = jnp.cumprod(jnp.all(jnp.abs(iterate.errors) <= TRUSTED * size, axis=1)).astype(bool)
        states = jnp.where(trusted[:, None], iterate.states + iterate.errors, iterate.stepped)
        alive = _before(iterate.first_nonfinite_step, drive.steps)
        settled = _within(tolerance, _largest(iterate.errors, alive), states, alive)
        return _examined(system, drive, states, settled, iterate.iterations + 1)

    iterate = jax.lax.while_loop(unfinished, update, _guess(system, drive))
    alive = _before(iterate.first_nonfinite_step, drive.steps)
    small = _within(tolerance, iterate.error_estimate, iterate.states, alive)
    accepted = (iterate.largest_exponent < 0) & small
    return ParallelTrajectory(
        states=jnp.where(accepted & alive[:, None], iterate.states, jnp.nan),
        residual=iterate.residual,
        error_estimate=iterate.error_estimate,
        largest_exponent=iterate.largest_exponent,
        accepted=accepted,
        iterations=iterate.iterations,
        # Of states that are not those of the network nothing follows.
        first_nonfinite_step=jnp.where(small, iterate.first_nonfinite_step, -1),
    )


def _guess(system: DrivenSystem, drive: Drive) -> _Iterate:
    """Let all states be the initial one, by an update that is yet to be made; nothing is known of them."""
    states = jnp.broadcast_to(system.initial_state, (drive.steps, system.state_size))
    unknown = jnp.full((), jnp.nan, states.dtype)
    return _Iterate(
        states=states,
        stepped=states,
        errors=jnp.full_like(states, jnp.inf),
        settled=jnp.bool_(False),
        iterations=jnp.int32(-1),
        residual=unknown,
        error_estimate=unknown,
        largest_exponent=unknown,
        first_nonfinite_step=jnp.int32(-1),
    )


def _examined(system: DrivenSystem, drive: Drive, states: Array, settled: Array, iterations: Array) -> _Iterate:
    """Linearise every step along the states, and solve for what they are off by."""
    dtype, (steps, size) = states.dtype, states.shape
    unit = jnp.finfo(dtype).eps

    def linearised(t: Array, state: Array) -> tuple[Array, Array]:
        stepped, push = jax.linearize(lambda s: system.step(s, drive.at(t, dtype)), state)
        return stepped, jax.vmap(push, out_axes=1)(jnp.eye(size, dtype=dtype))

    before = jnp.concatenate([system.initial_state[None], states[:-1]])
    stepped, jacobians = jax.vmap(linearised)(drive.first_step + jnp.arange(steps, dtype=jnp.int32), before)
    residuals = stepped - states
    signs = jax.random.rademacher(jax.random.key(0), states.shape, dtype)
    rounding = unit * jnp.max(jnp.abs(states), axis=1, keepdims=True) * signs
    sides = jnp.stack([residuals, rounding], axis=-1)
    with jax.default_matmul_precision("highest"):
        runs = jax.lax.associative_scan(_composed, _Affine(jacobians, jnp.zeros(steps, dtype), sides))

    finite = jnp.all(jnp.isfinite(stepped), axis=1)
    first_nonfinite_step = jnp.where(jnp.all(finite), -1, jnp.argmin(finite)).astype(jnp.int32)
    alive = _before(first_nonfinite_step, steps)
    return _Iterate(
        states=states,
        stepped=stepped,
        errors=runs.offset[..., 0],
        settled=settled,
        iterations=iterations,
        residual=_largest(residuals, alive),
        error_estimate=_largest(jnp.sum(jnp.abs(runs.offset), axis=-1), alive),
        largest_exponent=_exponent(runs, jnp.sum(alive)),
        first_nonfinite_step=first_nonfinite_step,
    )


def _composed(first: _Affine, then: _Affine) -> _Affine:
    """Make one map of two."""
    matrix = then.matrix @ first.matrix
    size = jnp.max(jnp.abs(matrix), axis=(-2, -1))
    size = jnp.where((size > 0) & jnp.isfinite(size), size, jnp.ones((), size.dtype))
    scale = jnp.exp(then.log_scale)[..., None, None]
    return _Affine(
        matrix=matrix / size[..., None, None],
        log_scale=first.log_scale + then.log_scale + jnp.log(size),
        offset=scale * (then.matrix @ first.offset) + then.offset,
    )


def _exponent(runs: _Affine, steps: Array) -> Array:
    """Return the growth of the product's norm over the second half of so many steps, nats per step.

    It is 0 where it is rounding, -inf where the product is 0, and NaN of no steps at all.
    """
    half = steps // 2
    last, before = _log_norm(runs, steps), jnp.where(half > 0, _log_norm(runs, half), 0.0)
    growth = jnp.where(last == -jnp.inf, last, last - before) / (steps - half)
    least = runs.matrix.shape[-1] * jnp.finfo(growth.dtype).eps
    return jnp.where(jnp.abs(growth) <= least, 0.0, growth)


def _log_norm(runs: _Affine, steps: Array) -> Array:
    return jnp.log(jnp.linalg.norm(runs.matrix[steps - 1], 2)) + runs.log_scale[steps - 1]


def _before(first_nonfinite_step: Array, steps: int) -> Array:
    """Tell which steps, [T], come before the first that is not finite."""
    return (jnp.arange(steps) < first_nonfinite_step) | (first_nonfinite_step < 0)


def _within(tolerance: float | Array, error: Array, states: Array, alive: Array) -> Array:
    return jnp.isfinite(error) & (error <= tolerance * _largest(states, alive))


def _largest(values: Array, alive: Array) -> Array:
    """Return the largest modulus in [T, N] at the steps that are alive, [T]; inf where one is not finite."""
    moduli = jnp.where(alive[:, None], jnp.abs(values), 0.0)
    # Said aloud, for in float32 XLA's maximum on CPUs may overlook a NaN.
    return jnp.where(jnp.all(jnp.isfinite(moduli)), jnp.max(moduli), jnp.inf)
