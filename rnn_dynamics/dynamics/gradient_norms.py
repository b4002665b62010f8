"""How far back a gradient reaches: norms of the state's derivative by the earlier state, against the lag."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.dynamics.batch_means import mean_of_batches
from rnn_dynamics.dynamics.system import DrivenSystem
from rnn_dynamics.dynamics.trajectories import Drive, Flow, InputSource, advance, advance_by, make_drive, start

NORMS = ("frobenius", "spectral")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GradientNormByLag:
    """The norm of d s_T / d s_{T-lag}, averaged over end times T.

    Attributes:
        lags: [L+1], steps back, 0 ... L.
        log_norm: [L+1], mean over end times of ln ||d s_T / d s_{T-lag}||, nats; 0 at lag 0, NaN where the state did
            not stay finite.
        standard_error: [L+1], of log_norm, from stretches that do not overlap; NaN if there was only one.
        samples: [S, L+1], the logarithm at each of the S end times, nats.
        reach: lag, interpolated, at which log_norm has fallen by 1; inf if it does not within L, NaN if the state did
            not stay finite.
        reach_standard_error: in steps; NaN where the reach is inf or there was one end time.
        first_nonfinite_step: first step with an inf or NaN in the state, -1 if there was none.
    """

    lags: Int[Array, "*E L"]
    log_norm: Float[Array, "*E L"]
    standard_error: Float[Array, "*E L"]
    samples: Float[Array, "*E S L"]
    reach: Float[Array, "*E"]
    reach_standard_error: Float[Array, "*E"]
    first_nonfinite_step: Int[Array, "*E"]


def gradient_norm_by_lag(
    system: DrivenSystem,
    inputs: InputSource = None,
    *,
    max_lag: int,
    steps: int | None = None,
    norm: str = "frobenius",
    along: Callable[[Array], Array] | None = None,
    probes: int | None = None,
    transient: int = 0,
    key: Array | None = None,
) -> GradientNormByLag:
    r"""Measure how the gradient that reaches a state fades or grows with the distance back in time.

    .. math:: \ln \Bigl\| \frac{\partial s_T}{\partial s_{T-\tau}} \Bigr\|
              = \ln \| J_T J_{T-1} \cdots J_{T-\tau+1} \|, \qquad \tau = 0 \dots L

    Algorithm: back-propagation proper. The run is cut into stretches of L steps; from the end of each, N cotangents go
    back by vector-Jacobian products, rescaled at every step with the scale kept as a logarithm, so nothing under- or
    overflows (Hochreiter 1991; Bengio, Simard and Frasconi 1994 for what it tells). The Frobenius norm is divided
    by sqrt(N): the root mean square over directions, 1 at lag 0. A few random cotangents estimate it (Hutchinson,
    Commun. Stat. Simul. Comput. 19, 1990), and the gradient of a loss needs that one alone.

    Cost: one stored stretch, L N, and 2 N^3 flops for each gate and step; "spectral" adds an SVD a step. With `along`
    or `probes` it is that of one back-propagation, or of as many.

    Args:
        system: the network; `jax.vmap` for an ensemble.
        inputs: [T, F], the transient included; or a function of the step, t -> [F]; or None for an undriven run.
        max_lag: L >= 1. The (T - transient) // L stretches give as many end times.
        steps: T where inputs is a function or None.
        norm: "frobenius" (over sqrt(N)) or "spectral".
        along: s_T [N] -> the gradient of a loss by it, [N]: the norm is then that of this gradient alone on its way
            back, over its own at lag 0; NaN where one is 0. Compiled in by its identity.
        probes: number of random cotangents, signs, drawn anew at each end time, that stand for all N of them. The
            squared norm is unbiased; its logarithm is too small by the relative variance over 4, which is below 1 /
            (2 probes).
        transient: steps of the state thrown away first.
        key: of the probes (default: `jax.random.key(0)`).

    Returns:
        The log norm by lag with its errors, and the reach.

    Raises:
        ValueError: inputs of the wrong rank or width, max_lag < 1 or longer than the run, an unknown norm, probes < 1,
        more than one of `along`, `probes` and the spectral norm.
    """
    drive = make_drive(system, inputs, steps)
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    if (along is not None) + (probes is not None) + (norm == "spectral") > 1:
        raise ValueError(f"give one of along, probes and norm='spectral', got norm={norm!r}, probes={probes}, {along=}")
    probes = None if probes is None else whole_number("probes", probes, least=1)
    transient, max_lag = whole_number("transient", transient, least=0), whole_number("max_lag", max_lag, least=1)
    if max_lag > drive.steps - transient:
        raise ValueError(
            f"max_lag must be between 1 and the {drive.steps - transient} steps after the transient, got {max_lag}"
        )
    key = jax.random.key(0) if key is None else key
    return _by_lag(system, drive, key, max_lag, _Looked(norm, along, probes), transient)


class _Looked(NamedTuple):
    """Which cotangents are sent back, and what is taken of them."""

    norm: str
    along: Callable[[Array], Array] | None
    probes: int | None

    def start(self, state: Array, key: Array) -> Array:
        """Return the cotangents at the end of a stretch, [P, N]."""
        size, dtype = state.shape[0], state.dtype
        if self.along is not None:
            return jnp.asarray(self.along(state), dtype).reshape(1, size)
        if self.probes is not None:
            return jax.random.rademacher(key, (self.probes, size), dtype)
        return jnp.eye(size, dtype=dtype)

    def log_norm(self, cotangents: Array) -> Array:
        """Return their logarithm, nats."""
        if self.norm == "spectral":
            return jnp.log(jnp.linalg.norm(cotangents, 2))
        return 0.5 * jnp.log(jnp.sum(cotangents**2))


@partial(jax.jit, static_argnames=("max_lag", "looked", "transient"))
def _by_lag(
    system: DrivenSystem, drive: Drive, key: Array, max_lag: int, looked: _Looked, transient: int
) -> GradientNormByLag:
    flow = advance_by(system, drive, start(system), transient)

    def forward(flow: Flow, _: None) -> tuple[Flow, tuple[Array, Array]]:
        return advance(system, drive, flow), (flow.state, flow.t)

    def backward(carry: tuple[Array, Array], visited: Any) -> tuple[tuple[Array, Array], Array]:
        cotangents, log_scale = carry
        state, t = visited
        _, pull = jax.vjp(lambda s: system.step(s, drive.at(t, s.dtype)), state)
        cotangents = jax.vmap(lambda row: pull(row)[0])(cotangents)
        size = jnp.max(jnp.abs(cotangents))
        size = jnp.where(size > 0, size, 1.0)
        cotangents, log_scale = cotangents / size, log_scale + jnp.log(size)
        return (cotangents, log_scale), log_scale + looked.log_norm(cotangents)

    def stretch(flow: Flow, _: None) -> tuple[Flow, Array]:
        flow, visited = jax.lax.scan(forward, flow, length=max_lag)
        cotangents = looked.start(flow.state, jax.random.fold_in(key, flow.t))
        size = jnp.max(jnp.abs(cotangents))
        cotangents = cotangents / jnp.where(size > 0, size, 1.0)
        at_lag_0 = looked.log_norm(cotangents)
        log_norms = jax.lax.scan(backward, (cotangents, -at_lag_0), visited, reverse=True)[1]
        log_norms = jnp.where(flow.first_nonfinite_step < 0, log_norms, jnp.nan)
        return flow, jnp.concatenate([(at_lag_0 - at_lag_0)[None], log_norms[::-1]])  # NaN after a gradient of 0

    stretches = (drive.steps - transient) // max_lag
    flow, samples = jax.lax.scan(stretch, flow, None, length=stretches)
    log_norm, standard_error, _ = mean_of_batches(samples, np.ones(stretches))
    reach, reach_standard_error = reach_of(log_norm, standard_error)
    return GradientNormByLag(
        lags=jnp.arange(max_lag + 1),
        log_norm=log_norm,
        standard_error=standard_error,
        samples=samples,
        reach=reach,
        reach_standard_error=reach_standard_error,
        first_nonfinite_step=flow.first_nonfinite_step,
    )


def reach_of(log_norm: Array, standard_error: Array) -> tuple[Array, Array]:
    """Find the first crossing of -1, linear between lags, and its error by the delta method.

    Args:
        log_norm: [L+1] by lag, nats.
        standard_error: [L+1], its own, nats.

    Returns:
        The reach and its standard error, steps; see `GradientNormByLag` for when they are inf and NaN.
    """
    fallen = log_norm <= -1
    after = jnp.argmax(fallen)
    before = jnp.maximum(after - 1, 0)
    drop = log_norm[before] - log_norm[after]
    # A norm that vanishes at once (-inf) is crossed where it vanishes.
    fraction = jnp.where(jnp.isfinite(drop), (log_norm[before] + 1) / drop, 1.0)
    crossed = jnp.any(fallen)
    reach = jnp.where(crossed, before + fraction, jnp.where(jnp.isnan(log_norm[-1]), jnp.nan, jnp.inf))
    return reach, jnp.where(crossed, standard_error[after] / drop, jnp.nan)
