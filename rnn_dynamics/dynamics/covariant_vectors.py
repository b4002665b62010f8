"""Covariant Lyapunov vectors: the directions that the Jacobians map onto each other, each growing by its exponent."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.aligned_frames import Alignment, align, push
from rnn_dynamics.dynamics.batch_means import batched_mean
from rnn_dynamics.dynamics.frames import growth_of_lost
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, make_drive


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CovariantLyapunovVectors:
    r"""Covariant vectors in a window of T steps, t = 1 ... T, in the order of the QR: fastest growth first.

    :math:`J_t v_{t-1} = e^{g_t} v_t` with unit vectors v and growth g. All is NaN if the state did not stay finite.

    Attributes:
        exponents: [K], nats per step: the mean growth; -inf for a direction that a step of the window maps to nothing
            (NaN in float32, which cannot tell).
        standard_error: [K], of the exponents, from batch means.
        growth: [T, K], nats: g_t, the growth of each vector in step t.
        vectors: [T, N, K], v_t at s_t as columns of unit length.
        participation_ratio: [K], 1 ... N: the mean over time of 1 / sum_n v[n]^4, the number of units that a vector
            lives on: 1 if on a single one, N if spread evenly.
        participation_ratio_standard_error: [K], from batch means.
        states: [T, N], s_t.
        first_nonfinite_step: first step with an inf or NaN in the state or in the growth, -1 if there was none.
    """

    exponents: Float[Array, "*E K"]
    standard_error: Float[Array, "*E K"]
    growth: Float[Array, "*E T K"]
    vectors: Float[Array, "*E T N K"]
    participation_ratio: Float[Array, "*E K"]
    participation_ratio_standard_error: Float[Array, "*E K"]
    states: Float[Array, "*E T N"]
    first_nonfinite_step: Int[Array, "*E"]

    @property
    def angles(self) -> Float[Array, "*E T K K"]:
        """Angles between the lines along each two vectors, [T, K, K], radians, 0 ... pi/2; computed when asked for.

        Small ones are as exact as the vectors; the arc cosine of a scalar product would lose half the digits. Their
        minimum over time tells how nearly two directions touch. Cost: N K^2 operations a step.
        """
        return _angles(self.vectors)

    def angle_between_subspaces(self, dimension: int) -> Float[Array, "*E T"]:
        """Return the smallest angle between the span of the first vectors and the span of the others.

        Hyperbolic dynamics keeps it away from 0, with `dimension` the number of positive exponents (Ginelli et al.
        2007); tangencies show as a distribution that reaches 0. Accurate to the square root of the unit roundoff.

        Args:
            dimension: vectors in the first span, 1 ... K-1.

        Returns:
            [T], radians, 0 ... pi/2.

        Raises:
            ValueError: a dimension outside 1 ... K-1.
        """
        count = self.vectors.shape[-1]
        if not 1 <= whole_number("dimension", dimension, least=1) < count:
            raise ValueError(f"dimension must be between 1 and {count - 1}, one less than the vectors, got {dimension}")
        fast = jnp.linalg.qr(self.vectors[..., :dimension])[0]
        slow = jnp.linalg.qr(self.vectors[..., dimension:])[0]
        cosines = jnp.linalg.svd(jnp.swapaxes(fast, -1, -2) @ slow, compute_uv=False)
        return jnp.arccos(jnp.minimum(cosines[..., 0], 1.0))


def covariant_lyapunov_vectors(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    tangent_transient: int,
    backward_transient: int,
    steps: int | None = None,
    k: int | None = None,
    transient: int = 0,
) -> CovariantLyapunovVectors:
    r"""Compute the leading k covariant Lyapunov vectors of a network along a stretch of one trajectory.

    Algorithm: Ginelli et al. (Phys. Rev. Lett. 99, 130601, 2007; review: Kuptsov and Parlitz, J. Nonlinear Sci. 22,
    2012). The QR method goes forward, :math:`J_t Q_{t-1} = Q_t R_t`. In the basis Q the covariant vectors are the
    columns of an upper triangular matrix C, which the inverse dynamics attracts:

    .. math:: C_{t-1} = R_t^{-1} C_t D_t, \qquad V_t = Q_t C_t, \qquad g_{t,i} = \ln (D_t)_{ii}

    with D diagonal and such that the columns have unit length. C starts as the identity at the end of the backward
    transient. Their growth averages to the exponents of the QR but for a boundary term that falls as 1/T.

    The run is cut into transient, tangent_transient, the window of T steps, and backward_transient. Vector i approaches
    its direction as exp(-gap t) in both the tangent and the backward transient, gap being the smaller difference
    between its exponent and the two next to it (exponent K + 1 counts): 37 / gap steps reach float64's last digit.
    Where exponents are equal, as for a complex pair, only their subspace is covariant, and the vectors in it depend on
    the transients. A direction that a step maps to nothing has growth -inf there and lies in the step's kernel, and
    before that it is what leads into the kernel; one that the step could not have led to is NaN before it.

    Each step fulfils J v = e^g v to rounding times the size of J. So of a vector that shrinks by n nats against the
    fastest growth in one step, e^n u of its direction is rounding, u the unit roundoff.

    Cost per step: 2 N^2 K flops for each gate, the QR's 4 N K^2, and on the way back K^3 and 2 N K^2 for the vectors.
    The Jacobian is never formed. Memory: 2 T N K for frames and vectors, and (T + backward_transient) K^2 for
    triangles; the backward transient stores nothing else. Under `jax.jit` what the caller does not use is not stored:
    exponents alone need neither frames nor vectors.

    Args:
        system: the network; `jax.vmap` for an ensemble.
        inputs: [time, F], all transients included; or a function of the step, t -> [F]; or None for an undriven run.
        tangent_transient: steps, after the transient, in which the frame aligns.
        backward_transient: steps at the end in which C aligns on the way back.
        steps: of the whole run where inputs is a function or None.
        k: number of vectors, 1 ... N (default: N).
        transient: steps of the state thrown away first.

    Returns:
        The vectors in the window, their growth and participation ratios.

    Raises:
        ValueError: inputs of the wrong rank or width, k outside 1 ... N, negative transients, no step left.
    """
    drive = make_drive(system, inputs, steps)
    alignment = Alignment.checked(system, drive, k, transient, tangent_transient)
    backward_transient = whole_number("backward_transient", backward_transient, least=0)
    window = drive.steps - alignment.steps - backward_transient
    if window < 1:
        transients = f"{alignment.transient} + {alignment.tangent_transient} + {backward_transient}"
        raise ValueError(
            "transient + tangent_transient + backward_transient must leave a step to measure: "
            f"got {transients} of {drive.steps} steps"
        )
    return _vectors(system, drive, alignment, window, backward_transient)


class _Visited(NamedTuple):
    """What the way back needs of a step: R_t [K, K], and of a step in the window s_t [N] and Q_t [K, N] too."""

    triangle: Array
    state: Array
    frame: Array


@partial(jax.jit, static_argnames=("alignment", "window", "backward_transient"))
def _vectors(
    system: DrivenSystem, drive: Drive, alignment: Alignment, window: int, backward_transient: int
) -> CovariantLyapunovVectors:
    def visit(flow: Flow, _: None) -> tuple[Flow, _Visited]:
        flow, triangle = push(system, drive, flow)
        return flow, _Visited(triangle, flow.state, flow.tangents)

    flow = align(system, drive, alignment)
    flow, visited = jax.lax.scan(visit, flow, None, length=window)
    flow, later = jax.lax.scan(lambda flow, _: push(system, drive, flow), flow, None, length=backward_transient)
    whole = flow.first_nonfinite_step < 0

    def realign(coefficients: Array, triangle: Array) -> tuple[Array, None]:
        return _pull_back(coefficients, triangle)[0], None

    def look(coefficients: Array, visited: _Visited) -> tuple[Array, tuple[Array, Array]]:
        before, growth = _pull_back(coefficients, visited.triangle)
        return before, (growth, visited.frame.T @ coefficients)

    identity = jnp.eye(alignment.k, dtype=flow.state.dtype)
    coefficients, _ = jax.lax.scan(realign, identity, later, reverse=True)
    _, looks = jax.lax.scan(look, coefficients, visited, reverse=True)
    growth, vectors = (jnp.where(whole, values, jnp.nan) for values in looks)
    exponents, standard_error, _ = batched_mean(growth)
    participation_ratio, participation_error, _ = batched_mean(1 / jnp.sum(vectors**4, axis=1))
    return CovariantLyapunovVectors(
        exponents=exponents,
        standard_error=standard_error,
        growth=growth,
        vectors=vectors,
        participation_ratio=participation_ratio,
        participation_ratio_standard_error=participation_error,
        states=visited.state,
        first_nonfinite_step=flow.first_nonfinite_step,
    )


def _pull_back(coefficients: Array, triangle: Array) -> tuple[Array, Array]:
    """Make one step back: C_t [K, K], R_t [K, K] -> C_{t-1} of unit columns, and their growth g_t [K].

    Where R_ii = 0, column i becomes the vector of the kernel that the first i directions span, and its growth is -inf.
    A later column that is not in the kernel itself has no pre-image: NaN.
    """
    lost = jnp.diagonal(triangle) == 0
    identity = jnp.eye(len(lost), dtype=triangle.dtype)
    solvable = jnp.where(lost[:, None], identity, triangle)
    # Column i of the kernel: 1 at i and 0 at other lost places, with R times it 0 elsewhere.
    targets = jnp.where(lost[None, :], jnp.where(lost[:, None], identity, 0.0), coefficients)
    columns = jax.scipy.linalg.solve_triangular(solvable, targets)
    without_origin = ~lost & (jnp.cumsum(lost) > 0)
    columns = jnp.where(without_origin[None, :], jnp.nan, columns)
    lengths = jnp.linalg.norm(columns, axis=0)
    growth = jnp.where(lost, growth_of_lost(triangle.dtype), -jnp.log(lengths))
    return columns / lengths[None, :], growth


@jax.jit
def _angles(vectors: Array) -> Array:
    """Return the angles [..., K, K] between the lines along unit columns [..., N, K]: 2 asin(|u - v| / 2), u.v >= 0."""

    def at_one_time(vectors: Array) -> Array:
        signs = jnp.where(vectors.T @ vectors < 0, -1, 1).astype(vectors.dtype)
        distances = jnp.sum((vectors[:, :, None] - signs[None] * vectors[:, None, :]) ** 2, axis=0)
        same = distances == 0  # where a square root has no derivative
        return jnp.where(same, 0.0, 2 * jnp.arcsin(jnp.sqrt(jnp.where(same, 1.0, distances)) / 2))

    *times, _, count = vectors.shape
    return jax.lax.map(at_one_time, vectors.reshape(-1, *vectors.shape[-2:])).reshape(*times, count, count)
