"""How Lyapunov exponents scatter along a run: their distribution over windows."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.aligned_frames import Alignment, align, log_growth, push
from rnn_dynamics.dynamics.batch_means import CompensatedSum, batched_mean
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, make_drive


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FiniteTimeExponents:
    """Exponents of W windows of tau steps each, one after the other.

    Attributes:
        samples: [W, K], nats per step: the growth in each window over tau, columns in the order of the exponents; -inf
            for a direction that a step of the window maps to nothing (NaN in float32, which cannot tell), NaN
            everywhere if the state did not stay finite.
        exponents: [K], nats per step, largest first: the mean of the samples, which is what `lyapunov_spectrum` gives
            for the same steps.
        standard_error: [K], of the exponents, from the batch means of the samples.
        diffusion: [K, K], nats^2 per step: tau times the covariance of the samples, NaN where W < 2.
        window: tau, steps (static).
        first_nonfinite_step: first step with an inf or NaN in the state, -1 if there was none.
    """

    samples: Float[Array, "*E W K"]
    exponents: Float[Array, "*E K"]
    standard_error: Float[Array, "*E K"]
    diffusion: Float[Array, "*E K K"]
    first_nonfinite_step: Int[Array, "*E"]
    window: int = dataclasses.field(metadata={"static": True})

    @property
    def variance(self) -> Array:
        """Variance of the samples, [K], nats^2 per step^2."""
        return jnp.diagonal(self.diffusion, axis1=-2, axis2=-1) / self.window


def finite_time_exponents(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    window: int,
    steps: int | None = None,
    k: int | None = None,
    transient: int = 0,
    tangent_transient: int = 0,
) -> FiniteTimeExponents:
    r"""Measure the leading k Lyapunov exponents in each of many windows of tau steps.

    .. math:: \Lambda_i^{(w)} = \frac{1}{\tau} \sum_{t = w \tau + 1}^{(w+1) \tau} \ln (R_t)_{ii},
              \qquad D_{ij} = \tau \, \mathrm{cov}(\Lambda_i, \Lambda_j)

    Algorithm: one run of the QR method as in `lyapunov_spectrum`, its logarithms summed window by window. With
    window = 1 the samples are the local growth rates.

    Large deviations: for tau beyond the growth's autocorrelation time the samples become independent, of density
    exp(-tau I(Lambda)), and D no longer depends on tau. Then I is (Lambda - lambda) D^-1 (Lambda - lambda) / 2 near
    its minimum, and the error of the exponents sqrt(D_ii / T) (Kuptsov and Politi, Phys. Rev. Lett. 107, 114101, 2011).
    Compare D at two windows before using it. The growth of the i-th volume is independent of coordinates for long
    windows only; `jacobian_product` has the singular values of one window, `covariant_lyapunov_vectors` the growth
    along covariant directions.

    Cost: that of `lyapunov_spectrum` with qr_every = 1. Memory: W K and N K.

    Args:
        system: the network; `jax.vmap` for an ensemble.
        inputs: [T, F], both transients included; or a function of the step, t -> [F]; or None for an undriven run.
        window: tau >= 1, steps. The last steps, where tau does not divide them, are left out.
        steps: T where inputs is a function or None.
        k: number of exponents, 1 ... N (default: N).
        transient: steps of the state thrown away first.
        tangent_transient: steps, after those, whose growth is thrown away while the tangent frame aligns.

    Returns:
        The samples with their mean, its error, and their covariance.

    Raises:
        ValueError: inputs of the wrong rank or width, k outside 1 ... N, negative transients, a window < 1 or longer
        than what the transients leave.
    """
    drive = make_drive(system, inputs, steps)
    alignment = Alignment.checked(system, drive, k, transient, tangent_transient)
    window, left = whole_number("window", window, least=1), drive.steps - alignment.steps
    if window > left:
        raise ValueError(f"window must be between 1 and the {left} steps after both transients, got {window}")
    return _windows(system, drive, window, alignment)


@partial(jax.jit, static_argnames=("window", "alignment"))
def _windows(system: DrivenSystem, drive: Drive, window: int, alignment: Alignment) -> FiniteTimeExponents:
    nothing = CompensatedSum.zero((alignment.k,), system.initial_state.dtype)

    def one_step(carry: tuple[Flow, CompensatedSum], _: None) -> tuple[tuple[Flow, CompensatedSum], None]:
        flow, growth = carry
        flow, triangle = push(system, drive, flow)
        return (flow, growth.plus(log_growth(triangle))), None

    def one_window(flow: Flow, _: None) -> tuple[Flow, Array]:
        flow, growth = jax.lax.scan(one_step, (flow, nothing), length=window)[0]
        return flow, (growth.total - growth.excess) / window

    count = (drive.steps - alignment.steps) // window
    flow, samples = jax.lax.scan(one_window, align(system, drive, alignment), None, length=count)
    samples = jnp.where(flow.first_nonfinite_step < 0, samples, jnp.nan)
    exponents, standard_error, _ = batched_mean(samples)
    order = jnp.argsort(-exponents)
    return FiniteTimeExponents(
        samples=samples[:, order],
        exponents=exponents[order],
        standard_error=standard_error[order],
        diffusion=window * _covariance(samples[:, order], exponents[order]),
        first_nonfinite_step=flow.first_nonfinite_step,
        window=window,
    )


def _covariance(samples: Array, mean: Array) -> Array:
    deviations = samples - mean[None]
    count = len(samples)
    return deviations.T @ deviations / (count - 1) if count > 1 else jnp.full((len(mean),) * 2, jnp.nan, mean.dtype)
