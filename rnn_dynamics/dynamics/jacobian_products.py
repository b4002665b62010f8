"""Finite-time singular values of Jacobian products, however many nats they span."""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.dynamics.frames import growth_of_lost, orthonormalise
from rnn_dynamics.dynamics.graded import GradedTriangle
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import (
    Drive,
    Flow,
    InputSource,
    advance,
    advance_by,
    make_drive,
    start,
    whole_number,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JacobianProduct:
    """Singular values of J_{t+tau} ... J_{t+1} for each horizon tau, as natural logarithms.

    Attributes:
        horizons: [M], number of Jacobian factors.
        log_singular_values: [M, K], nats, largest first; -inf where the product is singular (NaN in float32, which
            cannot tell), NaN where the state did not stay finite.
        first_nonfinite_step: first step with an inf or NaN in the state, -1 if there was none.
    """

    horizons: Int[Array, "*E M"]
    log_singular_values: Float[Array, "*E M K"]
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


def jacobian_product(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    horizons: int | Sequence[int],
    steps: int | None = None,
    k: int | None = None,
    transient: int = 0,
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

    Returns:
        The log singular values by horizon, in nats.

    Raises:
        ValueError: inputs of the wrong rank or width, a horizon < 1, out of order or beyond the inputs, k outside 1 ...
        N.
    """
    taus = np.atleast_1d(np.asarray(horizons))
    if taus.ndim != 1 or taus.size == 0 or not np.issubdtype(taus.dtype, np.integer) or taus[0] < 1:
        raise ValueError(f"horizons must be whole numbers >= 1, got {horizons}")
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
    size = system.state_size
    k = size if k is None else whole_number("k", k, least=1)
    if k > size:
        raise ValueError(f"k must be between 1 and the state size {size}, got {k}")
    return _products(system, drive, jnp.asarray(taus, jnp.int32), k, transient)


@partial(jax.jit, static_argnames=("k", "transient"))
def _products(system: DrivenSystem, drive: Drive, horizons: Array, k: int, transient: int) -> JacobianProduct:
    size, dtype = system.state_size, system.initial_state.dtype
    # Any orthogonal start leaves the singular values as they are; a random one keeps the triangle well conditioned.
    frame = jax.random.orthogonal(jax.random.key(0), size, dtype=dtype)
    flow = advance_by(system, drive, start(system), transient) if transient else start(system)
    flow = dataclasses.replace(flow, tangents=frame)

    def multiply(_: Array, carry: tuple[GradedTriangle, Flow]) -> tuple[GradedTriangle, Flow]:
        product, flow = carry
        flow = advance(system, drive, flow)
        frame, triangle = orthonormalise(flow.tangents)
        return product.multiplied_by(triangle), dataclasses.replace(flow, tangents=frame)

    def to_horizon(carry: tuple[GradedTriangle, Flow], factors: Array) -> tuple[tuple[GradedTriangle, Flow], Array]:
        product, flow = jax.lax.fori_loop(0, factors, multiply, carry)
        values = product.log_singular_values()[:k]
        values = jnp.where(values == -jnp.inf, growth_of_lost(dtype), values)
        values = jnp.where(flow.first_nonfinite_step < 0, values, jnp.nan)
        return (product, flow), values

    first = (GradedTriangle.identity(size, dtype), flow)
    (_, flow), log_singular_values = jax.lax.scan(to_horizon, first, jnp.diff(horizons, prepend=0))
    return JacobianProduct(horizons, log_singular_values, flow.first_nonfinite_step)
