"""Finite-time singular values of Jacobian products, however many nats they span."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.aligned_frames import frame_size
from rnn_dynamics.dynamics.frames import growth_of_lost, orthonormalise
from rnn_dynamics.dynamics.graded import GradedTriangle
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, advance, advance_by, make_drive, start


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JacobianProduct:
    """Singular values of J_{t+tau} ... J_{t+1} for each horizon tau, as natural logarithms.

    Attributes:
        horizons: [M], number of Jacobian factors.
        log_singular_values: [M, K], nats, largest first; -inf where the product is singular (NaN in float32, which
            cannot tell), NaN where the state did not stay finite.
        log_determinant: [M], ln|det| of the product, nats, as singular as the values are.
        left_vectors: [M, N, K], in the columns; None unless asked for.
        right_vectors: [M, N, K], in the columns, the perturbations of s_t that grow by the singular values; zeros where
            the product is exactly singular. None unless asked for.
        first_nonfinite_step: first step with an inf or NaN in the state, -1 if there was none.
    """

    horizons: Int[Array, "*E M"]
    log_singular_values: Float[Array, "*E M K"]
    log_determinant: Float[Array, "*E M"]
    left_vectors: Float[Array, "*E M N K"] | None
    right_vectors: Float[Array, "*E M N K"] | None
    first_nonfinite_step: Int[Array, "*E"]

    @property
    def log_norm(self) -> Array:
        """Logarithm of the spectral norm, [M], nats."""
        return self.log_singular_values[..., 0]

    @property
    def log_condition_number(self) -> Array:
        """Logarithm of the largest over the smallest kept singular value, [M], nats."""
        return self.log_singular_values[..., 0] - self.log_singular_values[..., -1]

    @property
    def finite_time_exponents(self) -> Array:
        """Log singular values over the horizon, [M, K], nats per step."""
        return self.log_singular_values / self.horizons[..., :, None]

    def histogram(self, bins: int | Sequence[float] = 20) -> tuple[np.ndarray, np.ndarray]:
        """Return the density of the finite-time exponents at each horizon, over the ensemble where there is one.

        Args:
            bins: how many, of equal width over all horizons, or their edges in nats per step.

        Returns:
            Densities [M, bins], per nat per step, of the values that are finite; edges [bins + 1].
        """
        exponents = np.asarray(self.finite_time_exponents)
        finite = exponents[np.isfinite(exponents)]
        edges = np.histogram_bin_edges(finite, bins)  # pyright: ignore[reportArgumentType]
        by_horizon = np.moveaxis(exponents, -2, 0).reshape(exponents.shape[-2], -1)
        return np.stack([np.histogram(row[np.isfinite(row)], edges, density=True)[0] for row in by_horizon]), edges


def jacobian_product(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    horizons: int | Sequence[int] | np.ndarray,
    steps: int | None = None,
    k: int | None = None,
    transient: int = 0,
    vectors: bool = False,
) -> JacobianProduct:
    r"""Measure the singular values of products of successive state Jacobians, many horizons in one pass.

    .. math:: J_{t+\tau} \cdots J_{t+1} = \partial s_{t+\tau} / \partial s_t, \qquad t = \mathrm{transient}

    Algorithm: the product is carried as Q D U with D in logarithms (see `graded`), one QR and one triangular matmul a
    step; at each horizon one-sided Jacobi gives every singular value, though they span
    thousands of nats. QR alone, as in `lyapunov_spectrum`, has only the asymptotic growth rates.

    Each step is backward stable: values are right to many digits while growth keeps its direction, however many nats
    they span. What has shrunk by more than 1/u against the rest and then grows back is lost, as to any such method. The
    result has no reverse-mode derivative, as the horizons make the loop's length dynamic.

    Cost per step: 2 N^3 flops for each gate, 8 N^3 / 3 for the QR and 2 N^3 for the product; per horizon some tens of
    N^3.
    Memory: N^2, whatever the horizon.

    Args:
        system: the network; `jax.vmap` for an ensemble.
        inputs: [T, F], the transient included; or a function of the step, t -> [F]; or None for an undriven run.
        horizons: one or several numbers of factors, each >= 1, increasing.
        steps: T where inputs is a function; for an undriven run transient + the longest horizon is the default.
        k: how many of the leading values to return (default: all N).
        transient: steps of the state thrown away first.
        vectors: whether to return the singular vectors, 2 M N K numbers.

    Returns:
        The log singular values by horizon, in nats.

    Raises:
        ValueError: inputs of the wrong rank or width, a horizon < 1, out of order or beyond the inputs, k outside 1 ...
        N.
    """
    taus = np.atleast_1d(np.asarray(horizons))
    if taus.ndim != 1 or taus.size == 0 or not np.issubdtype(taus.dtype, np.integer) or taus[0] < 1:
        raise ValueError(f"horizons must be whole numbers >= 1, got {horizons}")
    taus = taus.astype(np.int64)  # differences of unsigned numbers wrap around
    if np.any(np.diff(taus) <= 0):
        raise ValueError(f"horizons must increase, got {horizons}")
    transient = whole_number("transient", transient, least=0)
    needed = transient + int(taus[-1])
    if steps is None and (inputs is None or callable(inputs)):
        steps = needed
    drive = make_drive(system, inputs, steps)
    if needed > drive.steps:
        raise ValueError(
            f"horizons must end within the inputs: transient {transient} + horizon {taus[-1]} > {drive.steps} steps"
        )
    k = frame_size(system, k)
    return _products(system, drive, jnp.asarray(taus, jnp.int32), k, transient, vectors)


@partial(jax.jit, static_argnames=("k", "transient", "vectors"))
def _products(
    system: DrivenSystem, drive: Drive, horizons: Array, k: int, transient: int, vectors: bool
) -> JacobianProduct:
    size, dtype = system.state_size, system.initial_state.dtype
    # Any orthogonal start leaves the singular values as they are; a random one keeps the triangle well conditioned.
    first_frame = jax.random.orthogonal(jax.random.key(0), size, dtype=dtype)
    flow = advance_by(system, drive, start(system), transient)
    flow = dataclasses.replace(flow, tangents=first_frame)

    def multiply(_: Array, carry: tuple[GradedTriangle, Flow]) -> tuple[GradedTriangle, Flow]:
        product, flow = carry
        flow = advance(system, drive, flow)
        frame, triangle = orthonormalise(flow.tangents)
        return product.multiplied_by(triangle), dataclasses.replace(flow, tangents=frame)

    def to_horizon(
        carry: tuple[GradedTriangle, Flow], factors: Array
    ) -> tuple[tuple[GradedTriangle, Flow], tuple[Array, Array, Any, Any]]:
        product, flow = jax.lax.fori_loop(0, factors, multiply, carry)
        singular = product.singular_values()
        known = partial(_known, broken=flow.first_nonfinite_step >= 0)
        left = (singular.left[:k] @ flow.tangents).T if vectors else None
        right = (singular.right[:k] @ first_frame).T if vectors else None
        return (product, flow), (known(singular.log_values[:k]), known(product.log_determinant), left, right)

    first = (GradedTriangle.identity(size, dtype), flow)
    (_, flow), (values, determinant, left, right) = jax.lax.scan(to_horizon, first, jnp.diff(horizons, prepend=0))
    return JacobianProduct(horizons, values, determinant, left, right, flow.first_nonfinite_step)


def _known(logarithms: Array, *, broken: Array) -> Array:
    """Set to NaN what is not known: behind a state that overflowed, or lost in float32."""
    logarithms = jnp.where(logarithms == -jnp.inf, growth_of_lost(logarithms.dtype), logarithms)
    return jnp.where(broken, jnp.nan, logarithms)
