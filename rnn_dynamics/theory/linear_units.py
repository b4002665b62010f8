r"""How sensitive a linear recurrent unit is to its parameters: the curse of memory.

.. math:: h_t = \lambda h_{t-1} + x_t

driven by real inputs whose statistics do not change with time. As |lambda| -> 1 nothing explodes along the way back,
and yet the derivative of the state by lambda does, for it adds up over all that is remembered (Zucchet and Orvieto,
Recurrent neural networks: vanishing and exploding gradients are not the end of the story, NeurIPS 2024). A normalised
input and a parameter whose steps shrink near the unit circle take that back for the modulus, and not for the phase.

Inputs have mean square 1 and the autocorrelation R(k) = rho^|k|; all moments scale with the mean square.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Complex, Float

from rnn_dynamics.arguments import require, require_positive


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class UnitMoments:
    r"""Second moments of the state of a linear unit and of its derivative by the eigenvalue, in the steady state.

    Attributes:
        state: <|h|^2>, [...].
        cross: <conj(h) dh/dlambda>, [...], complex.
        sensitivity: <|dh/dlambda|^2>, [...].
    """

    state: Float[Array, "*S"]
    cross: Complex[Array, "*S"]
    sensitivity: Float[Array, "*S"]

    def of_parameter(self, scale: ArrayLike, eigenvalue_slope: ArrayLike, scale_slope: ArrayLike = 0.0) -> Array:
        r"""Return the mean square of the derivative of a scaled state by a real parameter p.

        .. math:: \left\langle \left| \tfrac{d}{dp} \gamma h \right|^2 \right\rangle = \gamma^2 |\lambda'|^2
            \langle |\partial_\lambda h|^2 \rangle + 2 \gamma \gamma' \mathrm{Re}\, \lambda'
            \langle \bar h \, \partial_\lambda h \rangle + \gamma'^2 \langle |h|^2 \rangle

        Args:
            scale: gamma, real, by which the inputs, and so the state, are multiplied.
            eigenvalue_slope: lambda' = d lambda / dp, real or complex.
            scale_slope: gamma' = d gamma / dp.

        Returns:
            The mean square, [...].
        """
        direct = jnp.square(scale) * jnp.square(jnp.abs(eigenvalue_slope)) * self.sensitivity
        mixed = 2 * jnp.asarray(scale) * scale_slope * jnp.real(eigenvalue_slope * self.cross)
        return direct + mixed + jnp.square(scale_slope) * self.state


def unit_moments(eigenvalue: ArrayLike, correlation: ArrayLike = 0.0) -> UnitMoments:
    r"""Return the moments of a unit whose inputs correlate as R(k) = rho^|k|; white inputs have rho = 0.

    .. math:: S(\alpha, \beta) = \sum_{k, l \ge 0} \alpha^k \beta^l R(k - l)
        = \frac{1 - \rho^2 \alpha \beta}{(1 - \alpha \beta) (1 - \rho \alpha) (1 - \rho \beta)}

    is <|h|^2> at alpha = lambda, beta = conj(lambda), and its derivatives by alpha, and by both, are the other two
    (Zucchet and Orvieto 2024). With white inputs

    .. math:: \langle |h|^2 \rangle = \frac{1}{1 - |\lambda|^2}, \qquad
        \langle |\partial_\lambda h|^2 \rangle = \frac{1 + |\lambda|^2}{(1 - |\lambda|^2)^3}

    Args:
        eigenvalue: lambda, real or complex [...], inside the unit circle.
        correlation: rho of neighbouring inputs, -1 ... 1; at 1 the inputs are constant.

    Returns:
        The moments, [...] each; of inputs with mean square 1.

    Raises:
        ValueError: an eigenvalue on or beyond the unit circle, a correlation beyond -1 ... 1.
    """
    _require_memory(eigenvalue)
    eigenvalue = _complex(eigenvalue)
    return _moments(eigenvalue, 1 - jnp.abs(eigenvalue) ** 2, correlation)


def _moments(eigenvalue: Array, gap: Array, correlation: ArrayLike) -> UnitMoments:
    """`unit_moments` with the gap 1 - |lambda|^2 given, which may be known to more digits than lambda shows."""
    require("correlation", correlation, "between -1 and 1", lambda rho: abs(rho) <= 1)
    correlation = jnp.asarray(correlation, jnp.result_type(correlation, float))
    filtered = 1 / (1 - correlation * eigenvalue)  # 1 / (1 - rho alpha), whose derivative is rho times its square
    weight, slope = jnp.abs(filtered) ** 2, correlation * filtered
    noise = 1 - correlation**2
    power = correlation**2 + noise / gap  # (1 - rho^2 P) / (1 - P), P = alpha beta
    by_product = noise / gap**2
    cross = weight * (by_product * jnp.conj(eigenvalue) + power * slope)
    along = jnp.real(eigenvalue * slope)
    sensitivity = weight * (by_product * ((2 - gap) / gap + 2 * along) + power * jnp.abs(slope) ** 2)
    return UnitMoments(state=weight * power, cross=cross, sensitivity=sensitivity)


def unit_moments_of_autocorrelation(eigenvalue: ArrayLike, autocorrelation: Float[Array, " L"]) -> UnitMoments:
    r"""Return the moments of a unit whose inputs have any autocorrelation.

    .. math:: S(\alpha, \beta) = \frac{1}{1 - \alpha \beta} \left[ R(0) + \sum_{k \ge 1} (\alpha^k + \beta^k) R(k)
        \right]

    of which the moments are made as in `unit_moments` (Zucchet and Orvieto 2024).

    Args:
        eigenvalue: lambda, real or complex [...], inside the unit circle.
        autocorrelation: R(0) ... R(L - 1), [L]; 0 from L on.

    Returns:
        The moments, [...] each, of inputs with mean square R(0).

    Raises:
        ValueError: an eigenvalue on or beyond the unit circle, an autocorrelation that is not [L] with L >= 1.
    """
    _require_memory(eigenvalue)
    autocorrelation = jnp.asarray(autocorrelation)
    if autocorrelation.ndim != 1 or autocorrelation.size == 0:
        raise ValueError(f"autocorrelation must have shape [lag], got {autocorrelation.shape}")
    eigenvalue = _complex(eigenvalue)
    gap = 1 - jnp.abs(eigenvalue) ** 2
    polynomial = partial(jnp.polyval, autocorrelation[::-1])  # sum R(k) lambda^k
    total, slope = jax.jvp(polynomial, (eigenvalue,), (jnp.ones_like(eigenvalue),))
    power = 2 * jnp.real(total) - autocorrelation[0]
    cross = jnp.conj(eigenvalue) * power / gap**2 + slope / gap
    sensitivity = (2 - gap) * power / gap**3 + 2 * jnp.real(eigenvalue * slope) / gap**2
    return UnitMoments(state=power / gap, cross=cross, sensitivity=sensitivity)


def edge_moments(distance: ArrayLike, phase: ArrayLike = 0.0, correlation: ArrayLike = 0.0) -> UnitMoments:
    r"""Return how the moments diverge as the eigenvalue nears the unit circle.

    .. math:: \langle |h|^2 \rangle \to \frac{f(\theta)}{2 \epsilon}, \qquad
        \langle \bar h \, \partial_\lambda h \rangle \to \frac{f(\theta) e^{-i\theta}}{4 \epsilon^2}, \qquad
        \langle |\partial_\lambda h|^2 \rangle \to \frac{f(\theta)}{4 \epsilon^3}

    for :math:`\lambda = (1 - \epsilon) e^{i\theta}`, where :math:`f(\theta) = \sum_k R(k) e^{-ik\theta} =
    (1 - \rho^2) / |1 - \rho e^{i\theta}|^2` is the power of the inputs at the unit's own frequency: whatever the inputs
    are, the sensitivity diverges with the cube of the memory. With normalised inputs, gamma^2 = 1 - |lambda|^2, the
    rates are 1, 1/epsilon and 1/epsilon^2.

    Args:
        distance: epsilon = 1 - |lambda| > 0, [...].
        phase: theta, radians, [...].
        correlation: rho, inside -1 ... 1.

    Returns:
        The leading terms; what they leave out is smaller by a factor epsilon.

    Raises:
        ValueError: a distance <= 0, a correlation of modulus 1 or more.
    """
    require_positive("distance", distance)
    require("correlation", correlation, "inside -1 ... 1", lambda rho: abs(rho) < 1)
    distance = jnp.asarray(distance, jnp.result_type(distance, float))
    turn = jnp.exp(1j * jnp.asarray(phase, jnp.result_type(phase, float)))
    spectrum = (1 - jnp.square(correlation)) / jnp.abs(1 - correlation * turn) ** 2
    return UnitMoments(
        state=spectrum / (2 * distance),
        cross=spectrum * jnp.conj(turn) / (4 * distance**2),
        sensitivity=spectrum / (4 * distance**3),
    )


def parameter_sensitivity(
    parametrisation: Callable[[Array], tuple[Array, Array]], parameter: ArrayLike, correlation: ArrayLike = 0.0
) -> Array:
    r"""Return <|d(gamma h)/dp|^2> for a real parameter p of which eigenvalue and input scale are any functions.

    Args:
        parametrisation: p [...] -> (lambda, gamma), [...] each, entry by entry; gamma is real. For example
            `lambda p: (jnp.exp(-jnp.exp(p)), 1.0 + 0 * p)`.
        parameter: where, [...].
        correlation: rho of the inputs, see `unit_moments`.

    Returns:
        The mean square, [...].

    Raises:
        ValueError: an eigenvalue on or beyond the unit circle, a correlation beyond -1 ... 1.
    """
    parameter = jnp.asarray(parameter, jnp.result_type(parameter, float))
    (eigenvalue, scale), (eigenvalue_slope, scale_slope) = jax.jvp(
        parametrisation, (parameter,), (jnp.ones_like(parameter),)
    )
    return unit_moments(eigenvalue, correlation).of_parameter(scale, eigenvalue_slope, scale_slope)


class LRUSensitivity(NamedTuple):
    """Mean squares of the state of a unit of an `LRUCell` and of its derivatives by the unit's parameters.

    Attributes:
        state: <|h|^2>, [...].
        nu_log: <|dh/dnu|^2>, [...], by the logarithm of the decay rate.
        theta_log: <|dh/dtheta|^2>, [...], by the logarithm of the phase.
        gamma_log: <|dh/dgamma|^2>, [...], by the logarithm of the input scale.
    """

    state: Array
    nu_log: Array
    theta_log: Array
    gamma_log: Array


def lru_sensitivity(nu_log: ArrayLike, theta_log: ArrayLike, correlation: ArrayLike = 0.0) -> LRUSensitivity:
    r"""Return how sensitive a unit of an LRU is to each of its parameters, with its inputs normalised.

    .. math:: \lambda = \exp(-e^\nu + i e^\theta), \qquad \gamma = \ln \sqrt{1 - |\lambda|^2}, \qquad
        h_t = \lambda h_{t-1} + e^\gamma x_t

    with gamma a parameter of its own, as in `LRUCell` (Orvieto et al. 2023). With f the inputs' power at the phase, see
    `edge_moments`, and the memory :math:`e^{-\nu} \to \infty`

    .. math:: \langle |h|^2 \rangle \to f, \qquad \langle |\partial_\nu h|^2 \rangle \to f / 2, \qquad
        \langle |\partial_\theta h|^2 \rangle \to e^{2\theta - 2\nu} f / 2

    so the logarithm of the decay rate lifts the curse of memory from the modulus, and the phase still has it.

    Args:
        nu_log: nu, [...]; small decay rates keep all digits.
        theta_log: theta, [...].
        correlation: rho of the inputs, which reach the unit with the weight 1; see `unit_moments`.

    Returns:
        The mean squares, [...] each; times |B|^2 for another weight.

    Raises:
        ValueError: a correlation beyond -1 ... 1.
    """
    rate = jnp.exp(jnp.asarray(nu_log, jnp.result_type(nu_log, float)))
    turn = jnp.exp(jnp.asarray(theta_log, jnp.result_type(theta_log, float)))
    eigenvalue, gap = jnp.exp(-rate + 1j * turn), -jnp.expm1(-2 * rate)
    moments = _moments(eigenvalue, gap, correlation)
    scale = jnp.sqrt(gap)
    state = gap * moments.state
    return LRUSensitivity(
        state=state,
        nu_log=moments.of_parameter(scale, rate * eigenvalue),
        theta_log=moments.of_parameter(scale, turn * eigenvalue),
        gamma_log=state,
    )


def _require_memory(eigenvalue: ArrayLike) -> None:
    require("eigenvalue", eigenvalue, "inside the unit circle", lambda value: abs(value) < 1)


def _complex(eigenvalue: ArrayLike) -> Array:
    return jnp.asarray(eigenvalue, jnp.result_type(eigenvalue, complex))
