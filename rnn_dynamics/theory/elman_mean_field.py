r"""Elman networks with random weights, in the limit of many units: variance, growth of perturbations, exponents.

With u the preactivations, :math:`h_t = \phi(u_t)` and

.. math:: u_t = W \phi(u_{t-1}) + W_x x_t + b, \qquad W_{ij} \sim \mathcal N(0, g^2 / N),

the preactivations of many units are Gaussian, with a variance that follows from that of the step before. That the same
weights act at every step changes nothing here: in discrete time averages over the units, of one trajectory or of two
at one moment, close on themselves (Molgedey, Schuchhardt and Schuster, Phys. Rev. Lett. 69, 3717, 1992). The equations
are those of layers that each have their own weights (Poole et al. 2016; Schoenholz et al. 2017). What is measured in
networks of N units differs by O(1/N), and by more at the edge of chaos, and at rest or under weak inputs, where the
exponent is nearly that of one matrix.

All functions take traced values, go through `jax.jit` and `jax.vmap`, and have derivatives of first order. Take
float64: at the edge of chaos half of the digits go. What is refused with a ValueError gives inf or NaN while traced.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from rnn_dynamics.arguments import whole_number
from rnn_dynamics.cells.activations import find_activation
from rnn_dynamics.theory.activation_slopes import mean_log_slope, slope_of
from rnn_dynamics.theory.allowed_numbers import Number, allowed, at_least_0
from rnn_dynamics.theory.gaussian_averages import average
from rnn_dynamics.theory.gaussian_products import gaussian_log_determinant
from rnn_dynamics.theory.scalar_fixed_points import settled


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RandomElman:
    r"""What Elman networks with random weights have in common.

    `ElmanCell` draws one with `recurrent_kernel_init=gaussian(gain)`. With its default `kernel_init`, inputs of F
    independent features of variance v give an input variance of v; F must be large, or the length of :math:`x_t`, and
    so the variance, is another at every step.

    Attributes:
        gain: g >= 0, [].
        bias_variance: :math:`\sigma_b^2`, over the units, of all that is added to the preactivations and stays as it is
            in time: biases, and constant inputs, [].
        input_variance: :math:`\sigma_x^2`, over the units, of :math:`W_x x_t` with inputs drawn anew at every step, [].
        activation: phi by name, see `cells.activations` (static).
    """

    gain: Number
    bias_variance: Number = 0.0
    input_variance: Number = 0.0
    activation: str = dataclasses.field(default="tanh", metadata={"static": True})

    def checked(self) -> "RandomElman":
        """Return this ensemble with its numbers as arrays of one dtype.

        Raises:
            ValueError: a number below 0, an unknown activation.
        """
        find_activation(self.activation)
        given = {name: getattr(self, name) for name in NUMBERS}
        dtype = jnp.result_type(*given.values(), 0.0)
        numbers = {name: at_least_0(name, number).astype(dtype) for name, number in given.items()}
        return RandomElman(**numbers, activation=self.activation)


NUMBERS = ("gain", "bias_variance", "input_variance")


def variance_map(network: RandomElman, variance: Number) -> Array:
    r"""Return the variance of the preactivations a step later (Poole et al. 2016; Schoenholz et al. 2017, section 2).

    .. math:: q_{t+1} = g^2 \langle \phi(u)^2 \rangle + \sigma_b^2 + \sigma_x^2, \qquad u \sim \mathcal N(0, q_t)

    Args:
        network: the ensemble.
        variance: :math:`q_t` >= 0, [].

    Returns:
        :math:`q_{t+1}`, [].

    Raises:
        ValueError: a number below 0, an unknown activation.
    """
    return _variance_after(network.checked(), at_least_0("variance", variance))


def stationary_variance(network: RandomElman, start: Number = 1.0) -> Array:
    """Return the variance q* at which the preactivations settle.

    Where several are stable, as for gelu, it is the one that the start leads to.

    Args:
        network: the ensemble.
        start: variance of the preactivations at some moment, > 0, []. At 0 a network without bias and inputs may rest
            for ever, though it does not come back to rest.

    Returns:
        q*, []; inf where the variance grows without bound, as for relu at g^2 > 2.

    Raises:
        ValueError: a variance that grows without bound; a number below 0, an unknown activation.
    """
    numbers, start = network.checked(), allowed("start", start, "> 0", lambda number: number > 0)
    variance = settled(_variance_and_slope, numbers, start.astype(jnp.result_type(numbers.gain)), 0.0)
    if not isinstance(variance, Tracer) and np.isinf(variance):
        raise ValueError(
            f"the variance of the preactivations must stay finite, and that of {network.activation} grows without "
            f"bound at gain {network.gain}"
        )
    return variance


def squared_growth(network: RandomElman, variance: Number) -> Array:
    r"""Return :math:`\chi_1`, by which squared small perturbations grow in a step (Schoenholz et al. 2017, section 2).

    .. math:: \chi_1 = g^2 \langle \phi'(u)^2 \rangle, \qquad u \sim \mathcal N(0, q)

    So do squared gradients, backwards. Above 1 there is chaos: trajectories under the same inputs part.

    Args:
        network: the ensemble.
        variance: q >= 0, []; at 0, where activations have kinks, the limit from above.

    Returns:
        :math:`\chi_1`, [].

    Raises:
        ValueError: a number below 0, an unknown activation.
    """
    return _squared_growth(network.checked(), at_least_0("variance", variance))


def leading_exponent(network: RandomElman, start: Number = 1.0) -> Array:
    r"""Return the largest Lyapunov exponent of a large network.

    .. math:: \lambda_1 = \tfrac12 \ln \chi_1(q^*)

    The correlation of two trajectories under the same inputs follows from its own value a step before
    (`correlation_map`), and near 1 its distance from 1 grows by :math:`\chi_1`. So averages over one time are enough,
    with inputs or without, in chaos or not. Where the network rests at a fixed point, this is the logarithm of the
    spectral radius of :math:`\mathrm{diag}(\phi'(u)) W`.

    Args:
        network: the ensemble.
        start: see `stationary_variance`.

    Returns:
        :math:`\lambda_1`, [], nats per step; NaN where the variance grows without bound.

    Raises:
        ValueError: a variance that grows without bound; a number below 0, an unknown activation.
    """
    return jnp.log(_squared_growth(network.checked(), stationary_variance(network, start))) / 2


def mean_exponent(network: RandomElman, size: int | None = None, start: Number = 1.0) -> Array:
    r"""Return the mean of all N Lyapunov exponents, from determinants.

    .. math:: \frac1N \sum_i \lambda_i = \langle \ln |\phi'(u)| \rangle + \frac1N \langle \ln |\det W| \rangle, \qquad
        \langle \ln |\det W| \rangle = N \ln \frac{g}{\sqrt N} + \frac12 \sum_{i=1}^N [\ln 2 + \psi(i/2)]

    The second is exact at every N (Goodman, Ann. Math. Stat. 34, 1963) and tends to N (ln g - 1/2); the first is that
    of many units.

    Args:
        network: the ensemble.
        size: N of the weights (default: the limit of many).
        start: see `stationary_variance`.

    Returns:
        The mean, [], nats per step; -inf where units have slope 0 with some probability, as those of relu; NaN where
        the variance grows without bound.

    Raises:
        ValueError: an activation whose slope is 0 at single points (gelu, sin); a size below 1; a variance that grows
            without bound; a number below 0, an unknown activation.
    """
    size = None if size is None else whole_number("size", size, least=1)
    variance = stationary_variance(network, start)
    gain = network.checked().gain
    of_weights = jnp.log(gain) - 0.5 if size is None else gaussian_log_determinant(size, gain)[0] / size
    return of_weights + _mean_log_slope(network.activation, variance)


def above_0(variance: Array) -> Array:
    """Return a variance that is not 0, where activations may have kinks, but next to it; for an infinite one NaN."""
    return jnp.where(variance == jnp.inf, jnp.nan, jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))


@jax.jit
def _variance_after(network: RandomElman, variance: Array) -> Array:
    activation = find_activation(network.activation)
    at_rest = activation(jnp.zeros_like(variance)) ** 2
    known = jnp.where(variance == 0, 1, variance)  # at 0 itself the average has no derivative
    square = jnp.where(variance == 0, at_rest, average(lambda u: activation(u) ** 2, known))
    return network.gain**2 * square + network.bias_variance + network.input_variance


def _variance_and_slope(network: RandomElman, variance: Array) -> tuple[Array, Array]:
    return jax.jvp(lambda variance: _variance_after(network, variance), (variance,), (jnp.ones_like(variance),))


@jax.jit
def _squared_growth(network: RandomElman, variance: Array) -> Array:
    slope = slope_of(find_activation(network.activation))
    return network.gain**2 * average(lambda u: slope(u) ** 2, above_0(variance))


@jax.jit(static_argnames="activation")
def _mean_log_slope(activation: str, variance: Array) -> Array:
    return mean_log_slope(find_activation(activation), above_0(variance))
