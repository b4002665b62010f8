"""Numbers that follow from a Lyapunov spectrum: the Kaplan-Yorke dimension and the entropy rate."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from rnn_dynamics.dynamics.batch_means import batched_mean
from rnn_dynamics.dynamics.lyapunov_exponents import LyapunovSpectrum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its error.

    Attributes:
        value: the number; NaN where the exponents do not determine it.
        standard_error: in the same unit, of B - 1 degrees of freedom for B batches; NaN where the value is, or where
            bare exponents were given.
    """

    value: Float[Array, "*E"]
    standard_error: Float[Array, "*E"]


def kaplan_yorke_dimension(exponents: LyapunovSpectrum | Any) -> Estimate:
    r"""Return the Kaplan-Yorke (Lyapunov) dimension that belongs to a spectrum of exponents.

    .. math:: D = m + \frac{\lambda_1 + \dots + \lambda_m}{|\lambda_{m+1}|},
              \qquad m = \max \{ j : \lambda_1 + \dots + \lambda_j \ge 0 \}

    the number of dimensions, interpolated, whose volume neither grows nor shrinks (Kaplan and Yorke, Lect. Notes Math.
    730, 1979); 0 where the largest exponent is negative. For typical systems it is conjectured to be the information
    dimension of the natural measure; of a driven network, that of the measure that the past of its inputs leaves (for
    independent ones: Ledrappier and Young, Commun. Math. Phys. 117, 1988). A limit cycle's exponent of 0 has an error:
    where that makes it negative, the dimension is 0 and not 1.

    Leading exponents may be too few for their sum to turn negative. The dimension is then at least their number and
    otherwise unknown: NaN. Where a `LyapunovSpectrum` holds all N and they sum to 0 or more, the dimension is N. An
    array does not tell N and gives NaN.

    The value comes from the whole run, so its bias falls with the length of the run. Its error is that of the batch
    means put through the derivatives of D, correlations between the exponents included: their sum often scatters far
    less than they do.

    Args:
        exponents: a `LyapunovSpectrum`, or exponents [K], nats per step, in any order; `jax.vmap` for an ensemble.

    Returns:
        The dimension and its standard error.

    Raises:
        ValueError: exponents of another shape than [K].
    """
    return _estimate(_dimension, exponents)


def entropy_rate(exponents: LyapunovSpectrum | Any) -> Estimate:
    r"""Return the sum of the positive exponents, in nats per step.

    .. math:: h = \sum_{\lambda_i > 0} \lambda_i

    It is the Kolmogorov-Sinai entropy where the measure is smooth along unstable directions (Pesin, Russ. Math. Surv.
    32, 1977; Ledrappier and Young, Ann. Math. 122, 1985), as is expected of chaotic attractors. In general it is an
    upper bound (Ruelle, Bol. Soc. Bras. Mat. 9, 1978), which is strict where trajectories escape or the invariant set
    is a repeller. Of a driven network it is the entropy given the inputs.

    NaN where the leading exponents are all positive and there may be more. An exponent of 0 adds its positive noise:
    0.4 standard errors each on average, which the error of the sum does not know.

    Args:
        exponents: a `LyapunovSpectrum`, or exponents [K], nats per step, in any order; `jax.vmap` for an ensemble.

    Returns:
        The entropy rate and its standard error, nats per step; the error as in `kaplan_yorke_dimension`.

    Raises:
        ValueError: exponents of another shape than [K].
    """
    return _estimate(_sum_of_positive, exponents)


_Number = Callable[[Array, bool], Array]


def _estimate(number: _Number, exponents: LyapunovSpectrum | Any) -> Estimate:
    """Put exponents, and the errors that a spectrum has, through a function of them.

    Args:
        number: of exponents [K] from the largest on, and of whether these are all N.
        exponents: a spectrum, or [K].

    Returns:
        The number and its error.

    Raises:
        ValueError: exponents of another shape than [K].
    """
    spectrum = exponents if isinstance(exponents, LyapunovSpectrum) else None
    values = jnp.asarray(spectrum.exponents if spectrum else exponents)
    if values.ndim != 1 or values.size == 0 or not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"exponents must be floating point numbers [K], got {values.dtype} of shape {values.shape}")
    if spectrum is None:
        return _of_array(values, number)
    return _of_batches(values, spectrum.batch_means, number, values.shape == spectrum.final_state.shape)


@partial(jax.jit, static_argnames="number")
def _of_array(exponents: Array, number: _Number) -> Estimate:
    value = number(-jnp.sort(-exponents), False)  # NaNs last
    return Estimate(value, jnp.full_like(value, jnp.nan))


@partial(jax.jit, static_argnames=("number", "whole"))
def _of_batches(exponents: Array, batch_means: Array, number: _Number, whole: bool) -> Estimate:
    value, slopes = jax.value_and_grad(number)(exponents, whole)
    deviations = batch_means - exponents[None]
    # An exponent of -inf that plays no part would make 0 * inf of it.
    per_batch = jnp.sum(jnp.where(slopes[None] == 0, 0.0, slopes[None] * deviations), axis=1)
    return Estimate(value, jnp.where(jnp.isnan(value), jnp.nan, batched_mean(per_batch).standard_error))


def _dimension(exponents: Array, whole: bool) -> Array:
    volumes = jnp.cumsum(exponents)
    m = jnp.sum(volumes >= 0)  # the exponents fall, so the sums >= 0 come first
    next_exponent = exponents[jnp.minimum(m, len(exponents) - 1)]
    volume = jnp.where(m > 0, volumes[jnp.maximum(m - 1, 0)], 0.0)
    shrinks = jnp.where(next_exponent < 0, next_exponent, -1.0)
    closed = jnp.where(next_exponent < 0, m - volume / shrinks, jnp.nan)
    unclosed = float(len(exponents)) if whole else jnp.nan
    return jnp.where(m == len(exponents), unclosed, closed)


def _sum_of_positive(exponents: Array, whole: bool) -> Array:
    known = jnp.any(exponents <= 0) | (whole & jnp.all(exponents > 0))
    return jnp.where(known, jnp.sum(jnp.where(exponents > 0, exponents, 0.0)), jnp.nan)
