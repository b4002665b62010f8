"""Fixed and slow points of a network under a constant input, and the linear dynamics around them."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Complex, Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import jacobian, make_drive

ROUNDING = 32
"""Residuals of so many units in the last place, root mean square over the state, are what rounding leaves of 0."""

FIRST_DAMPING, EASE, TIGHTEN = 1e-3, 0.1, 10.0
"""The damping to start with, and what it is multiplied by after a step that was taken and one that was not."""


@dataclasses.dataclass(frozen=True)
class LinearisedPoints:
    r"""P states and the dynamics around them, :math:`\delta s_{t+1} = J \delta s_t`, in the order of their speeds.

    Attributes:
        states: [P, N].
        speeds: [P], q = |F(s) - s|^2 / 2, squared units of the state.
        eigenvalues: [P, N], of J, largest modulus first.
        hits: [P], candidates that ended there.
    """

    states: Float[np.ndarray, "P N"]
    speeds: Float[np.ndarray, " P"]
    eigenvalues: Complex[np.ndarray, "P N"]
    hits: Int[np.ndarray, " P"]

    @property
    def unstable_directions(self) -> Int[np.ndarray, " P"]:
        """Eigenvalues outside the unit circle, [P]; rounding decides on those that lie on it."""
        return np.sum(np.abs(self.eigenvalues) > 1, axis=1)

    @property
    def stable(self) -> Bool[np.ndarray, " P"]:
        """True where every eigenvalue lies inside the unit circle, [P]."""
        return np.all(np.abs(self.eigenvalues) < 1, axis=1)

    @property
    def time_constants(self) -> Float[np.ndarray, "P N"]:
        """-1 / ln|eigenvalue|, [P, N], steps to fall by a factor e: inf on the unit circle, negative outside it."""
        with np.errstate(divide="ignore"):
            return 1 / (0.0 - np.log(np.abs(self.eigenvalues)))


@dataclasses.dataclass(frozen=True)
class FixedPoints:
    """What a search found.

    Attributes:
        fixed: the points with F(s) = s, but for the tolerance.
        slow: points where the speed has a minimum, or the search its end, above the tolerance and below
            `slow_tolerance`; not fixed points, but the state lingers there.
        unplaced: number of candidates that ended at neither.
    """

    fixed: LinearisedPoints
    slow: LinearisedPoints
    unplaced: int


def fixed_points(
    system: DrivenSystem,
    candidates: Float[Array, "M N"] | Float[np.ndarray, "M N"],
    inputs_t: Any = None,
    *,
    tolerance: float | None = None,
    slow_tolerance: float = 1e-6,
    distance: float = 1e-4,
    max_iterations: int = 1000,
) -> FixedPoints:
    r"""Search for the fixed and slow points of a network under a constant input, from many states at once.

    .. math:: q(s) = \tfrac12 | F(s, x) - s |^2

    is minimised from every candidate, as by Sussillo and Barak (Neural Comput. 25, 2013) and Golub and Sussillo (J.
    Open Source Softw. 3, 1003, 2018), who take states of trajectories as candidates: `trajectory` gives them. Nothing
    says that all points were found; more candidates, also with noise on them, find more (Katz and Reggia, IEEE Trans.
    Neural Netw. Learn. Syst. 29, 2018, follow curves through fixed points instead).

    Algorithm: Levenberg and Marquardt with the dense Jacobian, A = J - I, and r = F(s) - s:

    .. math:: (A^T A + \mu I)\, d = -A^T r

    A step s + d is taken if it lowers q; :math:`\mu` then falls by 10, and rises by 10 otherwise, until no step helps
    or q is flat. Convergence to a fixed point with no eigenvalue 1 is quadratic and ends at rounding; lines of fixed
    points, and minima of q that are no fixed points, are converged to as well. All candidates go in one compiled
    program. Ends are compared by Euclidean distance, from the lowest speed on.

    It works on the host: the number of points is not known beforehand, and eigenvalues of matrices that are not
    symmetric are LAPACK's. So it goes neither through `jax.jit` nor `jax.vmap`; loop over an ensemble.

    Cost per iteration and candidate: 2 N^3 flops for each gate's Jacobian and 7 N^3 / 3 for the normal matrix and its
    factorisation; ten iterations are few, and hundreds usual where q has many minima. Memory: some 4 M N^2.

    Args:
        system: the network.
        candidates: [M, N], states to start from.
        inputs_t: x [F], the same at every step (default: zeros, or none for a system that knows no F).
        tolerance: the speed up to which a point counts as fixed (default: what rounding leaves, N (32 u |s|_max)^2 / 2
            with u the unit roundoff and |s|_max no less than 1).
        slow_tolerance: the speed up to which a point counts as slow.
        distance: points closer than this are one.
        max_iterations: of the search from each candidate.

    Returns:
        Fixed and slow points with their speeds and eigenvalues.

    Raises:
        ValueError: candidates that are not finite states [M, N] with M >= 1, inputs_t of another shape than [F],
        tolerances, a distance or iterations that are not positive.
    """
    states, drive_t = _checked(system, candidates, inputs_t)
    limits = {"slow_tolerance": slow_tolerance, "distance": distance}
    for name, limit in limits.items() if tolerance is None else {"tolerance": tolerance, **limits}.items():
        if not limit > 0:
            raise ValueError(f"{name} must be positive, got {limit}")
    max_iterations = whole_number("max_iterations", max_iterations, least=1)

    ends, speeds = (np.asarray(found) for found in _search(system, states, drive_t, jnp.int32(max_iterations)))
    is_fixed = speeds <= (_rounding(ends) if tolerance is None else tolerance)
    placed = is_fixed | (speeds <= slow_tolerance)
    order = np.argsort(speeds, kind="stable")
    representatives, hits = _distinct(ends, order[placed[order]], distance)
    groups = []
    for chosen in (is_fixed[representatives], ~is_fixed[representatives]):
        numbers = representatives[chosen]
        eigenvalues = _eigenvalues(system, drive_t, ends[numbers])
        groups.append(LinearisedPoints(ends[numbers], speeds[numbers], eigenvalues, hits[chosen]))
    return FixedPoints(fixed=groups[0], slow=groups[1], unplaced=int(np.sum(~placed)))


def _checked(system: DrivenSystem, candidates: Any, inputs_t: Any) -> tuple[Array, Array | None]:
    """Return candidates [M, N] and inputs [F] in the dtype of the system.

    Raises:
        ValueError: what `fixed_points` says of them.
    """
    drive = make_drive(system, None, steps=1)
    states = jnp.asarray(candidates, system.initial_state.dtype)
    if states.ndim != 2 or len(states) == 0 or states.shape[1] != system.state_size:
        raise ValueError(
            f"candidates must have shape [M, {system.state_size}] with at least one state, got {states.shape}"
        )
    if not bool(jnp.all(jnp.isfinite(states))):
        raise ValueError("candidates must be finite, got an inf or NaN")
    if inputs_t is None:
        return states, drive.at(jnp.int32(0), states.dtype)
    inputs_t = jnp.asarray(inputs_t)
    if inputs_t.ndim != 1 or (system.in_features is not None and inputs_t.shape != (system.in_features,)):
        features = "F" if system.in_features is None else system.in_features
        raise ValueError(f"inputs_t must have shape [{features}], got {inputs_t.shape}")
    return states, inputs_t.astype(states.dtype) if jnp.issubdtype(inputs_t.dtype, jnp.floating) else inputs_t


class _Descent(NamedTuple):
    """Where the search from one candidate stands.

    Attributes:
        state: [N].
        speed: q there.
        flatness: |A^T r| / (|A| |r|) at the state before, 0 in a minimum of q.
        damping: mu over the mean square of the columns of A.
        iterations: made.
    """

    state: Array
    speed: Array
    flatness: Array
    damping: Array
    iterations: Array


@jax.jit
def _search(
    system: DrivenSystem, candidates: Array, inputs_t: Array | None, max_iterations: Array
) -> tuple[Array, Array]:
    """Minimise the speed from each of [M, N] candidates: states [M, N] and their speeds [M]."""
    unit_roundoff = float(jnp.finfo(candidates.dtype).eps)

    def residual(state: Array) -> Array:
        return system.step(state, inputs_t) - state

    def speed(state: Array) -> Array:
        return jnp.sum(residual(state) ** 2) / 2

    def iterate(descent: _Descent) -> _Descent:
        slope = jax.jacfwd(residual)(descent.state)  # A = J - I
        normal = slope.T @ slope
        damping = descent.damping * jnp.mean(jnp.diagonal(normal))
        damped = normal + damping * jnp.eye(len(normal), dtype=normal.dtype)
        remainder = residual(descent.state)
        gradient = slope.T @ remainder
        steepest = jnp.linalg.norm(slope) * jnp.linalg.norm(remainder)
        trial = descent.state - jax.scipy.linalg.solve(damped, gradient, assume_a="pos")
        trial_speed = speed(trial)
        better = trial_speed < descent.speed  # not so for a NaN of a failed factorisation or an overflow
        eased = jnp.maximum(descent.damping * EASE, unit_roundoff)  # less is not felt next to the normal matrix
        return _Descent(
            jnp.where(better, trial, descent.state),
            jnp.where(better, trial_speed, descent.speed),
            jnp.linalg.norm(gradient) / steepest,
            jnp.where(better, eased, descent.damping * TIGHTEN),
            descent.iterations + 1,
        )

    def unfinished(descent: _Descent) -> Array:
        moves = descent.speed > candidates.shape[1] * unit_roundoff**2 / 2  # more than by a last place
        helped = descent.damping < 1 / unit_roundoff  # beyond it a step is lost in the rounding of the state
        slopes = ~(descent.flatness < unit_roundoff**0.5)  # below it q is constant to all digits
        return moves & helped & slopes & (descent.iterations < max_iterations)

    def descend(candidate: Array) -> tuple[Array, Array]:
        one, damping = jnp.ones((), candidate.dtype), jnp.asarray(FIRST_DAMPING, candidate.dtype)
        first = _Descent(candidate, speed(candidate), one, damping, jnp.int32(0))
        last = jax.lax.while_loop(unfinished, iterate, first)
        return last.state, last.speed

    return jax.vmap(descend)(candidates)


def _rounding(states: np.ndarray) -> np.ndarray:
    """Return the speed, [M], that rounding alone leaves at fixed points of the size of these states [M, N]."""
    unit = ROUNDING * np.finfo(states.dtype).eps * np.maximum(np.max(np.abs(states), axis=1), 1)
    return states.shape[1] * unit**2 / 2


def _distinct(states: np.ndarray, order: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Go through states in an order, and keep those not within `distance` of one kept: their numbers and hits, [P]."""
    kept, hits = [], []
    for number in order:
        distances = np.linalg.norm(states[kept] - states[number], axis=1)
        if kept and np.min(distances) <= distance:
            hits[int(np.argmin(distances))] += 1
        else:
            kept.append(number)
            hits.append(1)
    return np.array(kept, int), np.array(hits, int)


def _eigenvalues(system: DrivenSystem, inputs_t: Array | None, states: np.ndarray) -> np.ndarray:
    """Return the eigenvalues, [P, N], of the Jacobians at states [P, N], largest modulus first."""
    shape = (0, system.state_size, system.state_size)
    jacobians = [np.asarray(_jacobian(system, jnp.asarray(state), inputs_t)) for state in states]
    eigenvalues = np.linalg.eigvals(np.stack(jacobians) if jacobians else np.zeros(shape)).astype(complex)
    order = np.argsort(-np.abs(eigenvalues), axis=1, kind="stable")
    return np.take_along_axis(eigenvalues, order, axis=1)


_jacobian = jax.jit(jacobian)  # one point at a time: compiled once, however many points there are
