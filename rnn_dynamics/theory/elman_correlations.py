"""Two trajectories of one large random Elman network: how alike they become, and how soon."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.theory.activation_slopes import slope_of
from rnn_dynamics.theory.allowed_numbers import Number, allowed, at_least_0
from rnn_dynamics.theory.elman_mean_field import RandomElman, above_0, squared_growth, stationary_variance
from rnn_dynamics.theory.gaussian_averages import average_of_pair
from rnn_dynamics.theory.scalar_fixed_points import settled


def correlation_map(
    network: RandomElman, variance: Number, correlation: Number, input_correlation: Number = 1.0
) -> Array:
    r"""Return the correlation of the preactivations of two trajectories a step later.

    .. math:: c_{t+1} = \bigl( g^2 \langle \phi(u_1) \phi(u_2) \rangle + \sigma_b^2 + \rho\, \sigma_x^2 \bigr) / q,
        \qquad \langle u_1 u_2 \rangle = c_t q

    Both have the same weights and biases; their inputs have the correlation :math:`\rho`. With :math:`\rho = 1` they
    are two states under the same inputs. Then c = 1 is a fixed point, stable where :math:`\chi_1 < 1`: the network
    forgets where it started. With :math:`\rho = 0` they are states under two input sequences, or of one trajectory at
    two times, and 1 is no fixed point unless the input variance is 0 (Schoenholz et al. 2017, section 2, for constant
    inputs; Molgedey, Schuchhardt and Schuster 1992 for inputs drawn anew).

    Args:
        network: the ensemble.
        variance: q > 0 of both, at its stationary value, [].
        correlation: :math:`c_t`, in [-1, 1].
        input_correlation: :math:`\rho`, in [-1, 1].

    Returns:
        :math:`c_{t+1}`, [].

    Raises:
        ValueError: a variance that is not above 0, a correlation outside [-1, 1], a number below 0, an unknown
            activation.
    """
    variance = allowed("variance", variance, "> 0", lambda number: number > 0)
    correlation = allowed("correlation", correlation, "in [-1, 1]", _is_correlation)
    shared = allowed("input_correlation", input_correlation, "in [-1, 1]", _is_correlation)
    return _correlation_after(network.checked(), variance, correlation, shared)


def correlation_slope(network: RandomElman, variance: Number, correlation: Number) -> Array:
    r"""Return the slope of the correlation map, by which small deviations of a correlation change in a step.

    .. math:: \chi_c = g^2 \langle \phi'(u_1) \phi'(u_2) \rangle

    At c = 1 it is :math:`\chi_1`, for which `squared_growth` is faster (Schoenholz et al. 2017, section 3). Of
    piecewise linear activations it has 10 digits up to |c| = 0.999, and 4 at 0.999999.

    Args:
        network: the ensemble.
        variance: q >= 0 of both trajectories, []; at 0 the limit from above.
        correlation: c, in [-1, 1].

    Returns:
        :math:`\chi_c`, [].

    Raises:
        ValueError: a correlation outside [-1, 1], a number below 0, an unknown activation.
    """
    variance = at_least_0("variance", variance)
    correlation = allowed("correlation", correlation, "in [-1, 1]", _is_correlation)
    return _correlation_slope(network.checked(), variance, correlation)


def stationary_correlation(network: RandomElman, input_correlation: Number = 1.0, start: Number = 1.0) -> Array:
    r"""Return the correlation c* at which two trajectories of one network settle that had none at first.

    With :math:`\rho = 0` it is also the correlation of one trajectory at two times, however far apart: one step is as
    good as a hundred.

    Args:
        network: the ensemble.
        input_correlation: :math:`\rho` of `correlation_map`, in [0, 1].
        start: see `stationary_variance`.

    Returns:
        c*, []; 1 where both end up in the same state, the state 0 among them; NaN where the variance grows without
        bound.

    Raises:
        ValueError: an input correlation outside [0, 1]; a variance that grows without bound; a number below 0, an
            unknown activation.
    """
    shared = allowed("input_correlation", input_correlation, "in [0, 1]", lambda number: (number >= 0) & (number <= 1))
    variance = stationary_variance(network, start)
    return _stationary_correlation(network.checked(), variance, shared.astype(variance.dtype))


def memory_depth(network: RandomElman, input_correlation: Number = 1.0, start: Number = 1.0) -> Array:
    r"""Return the steps in which a correlation comes closer to c* by a factor e (Schoenholz et al. 2017, section 3).

    .. math:: \xi = -1 / \ln \chi_{c^*}

    Where c* = 1 it is :math:`-1 / (2 \lambda_1)`. Correlations are about squared distances, so perturbations and
    gradients reach twice as far.

    Args:
        network: the ensemble.
        input_correlation: :math:`\rho` of `correlation_map`, in [0, 1].
        start: see `stationary_variance`.

    Returns:
        :math:`\xi`, [], steps; inf at the edge of chaos; NaN where the variance grows without bound.

    Raises:
        ValueError: an input correlation outside [0, 1]; a variance that grows without bound; a number below 0, an
            unknown activation.
    """
    variance = stationary_variance(network, start)
    correlation = stationary_correlation(network, input_correlation, start)
    together = correlation == 1
    apart = correlation_slope(network, variance, jnp.where(together, 0, correlation))
    slope = jnp.where(together, squared_growth(network, variance), apart)
    return jnp.where(slope >= 1, jnp.inf, -1 / jnp.log(slope))


def _is_correlation(number: Any) -> Any:
    return (number >= -1) & (number <= 1)


@jax.jit
def _correlation_after(network: RandomElman, variance: Array, correlation: Array, shared: Array) -> Array:
    activation = find_activation(network.activation)
    product = average_of_pair(activation, activation, variance, correlation)
    return (network.gain**2 * product + network.bias_variance + shared * network.input_variance) / variance


@jax.jit
def _correlation_slope(network: RandomElman, variance: Array, correlation: Array) -> Array:
    slope = slope_of(find_activation(network.activation))
    return network.gain**2 * average_of_pair(slope, slope, above_0(variance), correlation)


def _correlation_and_slope(problem: tuple[RandomElman, Array, Array], correlation: Array) -> tuple[Array, Array]:
    network, variance, shared = problem
    after = _correlation_after(network, variance, correlation, shared)
    return after, _correlation_slope(network, variance, correlation)


@jax.jit
def _stationary_correlation(network: RandomElman, variance: Array, shared: Array) -> Array:
    same_inputs = (shared == 1) | (network.input_variance == 0)
    together = (variance == 0) | (same_inputs & (squared_growth(network, variance) <= 1))
    # At c = 1 derivatives are NaN; where that is the answer, a network without weights is settled in the place of this.
    apart = dataclasses.replace(network, gain=jnp.where(together, 0, network.gain))
    problem = apart, jnp.where(together, 1, variance), shared
    return jnp.where(together, 1, settled(_correlation_and_slope, problem, jnp.zeros_like(variance), 1.0))
