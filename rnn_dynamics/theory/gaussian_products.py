r"""Products of independent Gaussian matrices, the one network whose Jacobian products are known in closed form.

Every factor has independent entries :math:`N(0, g^2 / N)`, g the gain. Exponents are known at every N, the density of
the singular values of T factors in the limit of large N.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma, polygamma
from jax.typing import ArrayLike

from rnn_dynamics.arguments import require, require_positive, whole_number

HALVINGS = 80
"""Of the interval that an angle is searched in: 700 nats at most, so that less than rounding is left."""


def gaussian_product_exponents(size: int, gain: ArrayLike = 1.0) -> Array:
    r"""Return the Lyapunov exponents of products of real Gaussian N x N matrices, at any N.

    .. math:: \lambda_i = \ln g + \tfrac{1}{2} \left[ \ln \tfrac{2}{N} + \psi\!\left( \tfrac{N - i + 1}{2} \right)
        \right], \qquad i = 1 \dots N

    (Newman, Commun. Math. Phys. 103, 121, 1986). A frame that is orthonormalised at every step grows by the root of
    independent :math:`\chi^2` variables of N - i + 1 degrees of freedom, so this is the mean at every horizon.

    Args:
        size: N.
        gain: g > 0.

    Returns:
        The exponents [N], nats per step, largest first.

    Raises:
        ValueError: a size below 1, a gain <= 0.
    """
    require_positive("gain", gain)
    half_degrees = _half_degrees(size)
    return jnp.log(gain) + (math.log(2 / size) + digamma(half_degrees)) / 2


def gaussian_product_variances(size: int, steps: int = 1) -> Array:
    r"""Return the variances of the exponents that T steps of such a product have.

    .. math:: \mathrm{Var}\, \lambda_i = \frac{1}{4T} \psi'\!\left( \tfrac{N - i + 1}{2} \right)

    Of what a QR at every step finds this is exact for every T, and exponents are independent of each other. Of the
    singular values' exponents it is the limit of large T (Akemann, Burda and Kieburg, J. Phys. A 47, 395202, 2014, for
    complex matrices, whose variances are psi'(N - i + 1) / 4T; Ipsen, J. Phys. A 48, 155204, 2015, for real ones).

    Args:
        size: N.
        steps: T.

    Returns:
        The variances [N], nats^2 per step^2, in the order of the exponents; any gain has the same.

    Raises:
        ValueError: a size or steps below 1.
    """
    return polygamma(1, _half_degrees(size)) / (4 * whole_number("steps", steps, least=1))


def gaussian_log_determinant(size: int, gain: ArrayLike = 1.0) -> tuple[Array, Array]:
    r"""Return the mean and the variance of ln|det W| of one real Gaussian N x N matrix, at any N.

    .. math:: \langle \ln |\det W| \rangle = N \ln g + \tfrac{1}{2} \sum_{k=1}^N \left[ \ln \tfrac{2}{N} +
        \psi\!\left( \tfrac{k}{2} \right) \right], \qquad
        \mathrm{Var} = \tfrac{1}{4} \sum_{k=1}^N \psi'\!\left( \tfrac{k}{2} \right)

    (Goodman, Ann. Math. Stat. 34, 178, 1963: the determinant is a product of independent chi variables.)

    Args:
        size: N.
        gain: g > 0.

    Returns:
        The mean, nats, and the variance, nats^2; of a product of T matrices both are T times that.

    Raises:
        ValueError: a size below 1, a gain <= 0.
    """
    return jnp.sum(gaussian_product_exponents(size, gain)), jnp.sum(gaussian_product_variances(size))


def triangular_density(exponents: ArrayLike, gain: ArrayLike = 1.0) -> Array:
    r"""Return the density of the exponents of Gaussian products for large N, the triangular law.

    .. math:: \varrho(\lambda) = 2 e^{2 \lambda} / g^2, \qquad \lambda \le \ln g

    so that :math:`e^{2\lambda}` is uniform on (0, g^2), and the density of :math:`e^\lambda` a triangle (Newman 1986;
    Isopi and Newman, Commun. Math. Phys. 143, 591, 1992).

    Args:
        exponents: lambda, nats per step, [...].
        gain: g > 0.

    Returns:
        The density, per nat per step, [...].

    Raises:
        ValueError: a gain <= 0.
    """
    share = triangular_cdf(exponents, gain)
    return jnp.where(jnp.asarray(exponents) <= jnp.log(gain), 2 * share, 0.0)


def triangular_cdf(exponents: ArrayLike, gain: ArrayLike = 1.0) -> Array:
    r"""Return the share of the exponents up to a number, :math:`\min(e^{2 \lambda} / g^2, 1)`.

    Args:
        exponents: lambda, nats per step, [...].
        gain: g > 0.

    Returns:
        The share, [...].

    Raises:
        ValueError: a gain <= 0.
    """
    require_positive("gain", gain)
    return jnp.exp(2 * jnp.minimum(jnp.asarray(exponents) - jnp.log(gain), 0.0))


def fuss_catalan_moment(order: int, steps: int, gain: float = 1.0) -> float:
    r"""Return a moment of the squared singular values of T steps for large N.

    .. math:: m_k = \frac{g^{2Tk}}{Tk + 1} \binom{Tk + k}{k}

    (Fuss-Catalan numbers: Penson and Zyczkowski, Phys. Rev. E 83, 061118, 2011.)

    Args:
        order: k >= 0.
        steps: T >= 1.
        gain: g > 0.

    Returns:
        The mean over singular values of their 2 k-th power.

    Raises:
        ValueError: an order below 0, steps below 1, a gain <= 0.
    """
    order, steps = whole_number("order", order, least=0), whole_number("steps", steps, least=1)
    require_positive("gain", gain)
    return math.comb(steps * order + order, order) // (steps * order + 1) * float(gain) ** (2 * steps * order)


def fuss_catalan_edge(steps: int, gain: ArrayLike = 1.0) -> Array:
    r"""Return the largest squared singular value of T steps for large N, :math:`g^{2T} (T + 1)^{T + 1} / T^T`.

    At the gain 1 it is e (T + 1/2) up to O(1/T): of Gaussian weights the norm grows with the root of the horizon.

    Args:
        steps: T >= 1.
        gain: g > 0.

    Returns:
        The upper edge; the lower one is 0.

    Raises:
        ValueError: steps below 1, a gain <= 0.
    """
    steps = whole_number("steps", steps, least=1)
    require_positive("gain", gain)
    return jnp.exp(2 * steps * jnp.log(gain) + _log_edge(steps))


def fuss_catalan_curve(angle: ArrayLike, steps: int, gain: ArrayLike = 1.0) -> tuple[Array, Array]:
    r"""Return squared singular values of T steps for large N, and their density there, from the edge to 0.

    .. math:: x(\varphi) = g^{2T} \frac{\sin^{T+1} (T+1)\varphi}{\sin \varphi \, \sin^T T\varphi}, \qquad
        \varrho(\varphi) = g^{-2T} \frac{\sin^2 \varphi \, \sin^{T-1} T\varphi}{\pi \sin^T (T+1)\varphi}

    (Haagerup and Moeller, in Operator Algebra and Dynamics, 2013; Forrester and Liu, J. Stat. Phys. 158, 1051, 2015).

    Args:
        angle: phi, [...], inside 0 ... pi / (T + 1).
        steps: T >= 1.
        gain: g > 0.

    Returns:
        The squares x and the densities, [...] each; x falls as the angle grows.

    Raises:
        ValueError: an angle beyond its range, steps below 1, a gain <= 0.
    """
    steps = whole_number("steps", steps, least=1)
    require_positive("gain", gain)
    last = math.pi / (steps + 1)
    require("angle", angle, f"inside 0 ... pi / {steps + 1}", lambda phi: (phi > 0) & (phi < last))
    angle, log_scale = jnp.asarray(angle, jnp.result_type(angle, float)), 2 * steps * jnp.log(gain)
    opposite = last - angle
    return (
        jnp.exp(_log_square(angle, opposite, steps) + log_scale),
        jnp.exp(_log_density(angle, opposite, steps) - log_scale),
    )


def fuss_catalan_density(squares: ArrayLike, steps: int, gain: ArrayLike = 1.0) -> Array:
    """Return the density of the squared singular values of T steps for large N.

    Algorithm: the angle of `fuss_catalan_curve` that belongs to a square, by bisection.

    Args:
        squares: x, [...].
        steps: T >= 1; with one it is the Marchenko-Pastur density of a square matrix.
        gain: g > 0.

    Returns:
        The density, [...]; it integrates to 1, and is inf at 0.

    Raises:
        ValueError: steps below 1, a gain <= 0.
    """
    steps = whole_number("steps", steps, least=1)
    require_positive("gain", gain)
    squares, log_scale = jnp.asarray(squares, jnp.result_type(squares, float)), 2 * steps * jnp.log(gain)
    log_square, last = jnp.log(jnp.maximum(squares, 0.0)) - log_scale, math.pi / (steps + 1)
    inside = (squares > 0) & (log_square < _log_edge(steps))

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        below = _log_square(last - jnp.exp(middle), jnp.exp(middle), steps) < log_square
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    # The opposite angle and not the angle itself, in logarithms: it keeps its digits however small the square is.
    least = math.log(float(jnp.finfo(squares.dtype).tiny))
    bounds = jnp.full_like(squares, least), jnp.full_like(squares, math.log(last))
    opposite = jnp.exp(jax.lax.fori_loop(0, HALVINGS, halve, bounds)[0])
    density = jnp.exp(_log_density(last - opposite, opposite, steps) - log_scale)
    return jnp.where(inside, density, jnp.where(squares == 0, jnp.inf, 0.0))


def _half_degrees(size: int) -> Array:
    """Half the degrees of freedom of each direction's growth, N/2 ... 1/2."""
    return jnp.arange(whole_number("size", size, least=1), 0, -1) / 2.0


def _log_edge(steps: int) -> float:
    return (steps + 1) * math.log(steps + 1) - steps * math.log(steps)


def _log_sines(angle: Array, opposite: Array, steps: int) -> tuple[Array, Array, Array]:
    """Logarithms of sin of phi, T phi, (T+1) phi; the last is 0 at both ends, and taken from the nearer one."""
    whole = jnp.sin((steps + 1) * jnp.minimum(angle, opposite))
    return jnp.log(jnp.sin(angle)), jnp.log(jnp.sin(steps * angle)), jnp.log(whole)


def _log_square(angle: Array, opposite: Array, steps: int) -> Array:
    one, all_but_one, whole = _log_sines(angle, opposite, steps)
    return (steps + 1) * whole - one - steps * all_but_one


def _log_density(angle: Array, opposite: Array, steps: int) -> Array:
    one, all_but_one, whole = _log_sines(angle, opposite, steps)
    return 2 * one + (steps - 1) * all_but_one - steps * whole - jnp.log(jnp.pi)
