r"""Spectra of one large Gaussian matrix: eigenvalues by the elliptic law, singular values by Marchenko-Pastur.

The matrices are recurrent weights at the start, :math:`W_{ij} \sim N(0, g^2 / N)` with g the gain, in the limit of
large N. Products of them are in `gaussian_products`.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from rnn_dynamics.arguments import require, require_positive


def elliptic_semi_axes(gain: ArrayLike = 1.0, correlation: ArrayLike = 0.0) -> tuple[Array, Array]:
    r"""Return the semi-axes of the ellipse that holds the eigenvalues of a matrix whose mirrored entries correlate.

    .. math:: N \langle W_{ij}^2 \rangle = g^2, \quad N \langle W_{ij} W_{ji} \rangle = \tau g^2, \quad
        a = g (1 + \tau), \quad b = g (1 - \tau)

    (Sommers, Crisanti, Sompolinsky and Stein, Phys. Rev. Lett. 60, 1895, 1988). A network in continuous time loses the
    stability of its rest at a = 1, one in discrete time at `spectral_radius` 1.

    Args:
        gain: g > 0.
        correlation: tau, from -1 (antisymmetric) over 0 (all entries independent) to 1 (symmetric).

    Returns:
        The semi-axes a, along the real axis, and b, along the imaginary one.

    Raises:
        ValueError: a gain <= 0, a correlation beyond -1 ... 1.
    """
    require_positive("gain", gain)
    require("correlation", correlation, "between -1 and 1", lambda tau: abs(tau) <= 1)
    gain, correlation = _floats(gain), _floats(correlation)
    return gain * (1 + correlation), gain * (1 - correlation)


def spectral_radius(gain: ArrayLike = 1.0, correlation: ArrayLike = 0.0) -> Array:
    r"""Return the largest modulus of an eigenvalue, :math:`g (1 + |\tau|)`.

    Args:
        gain: g > 0.
        correlation: tau of mirrored entries, see `elliptic_semi_axes`.

    Returns:
        The larger semi-axis.

    Raises:
        ValueError: a gain <= 0, a correlation beyond -1 ... 1.
    """
    return jnp.maximum(*elliptic_semi_axes(gain, correlation))


def elliptic_density(eigenvalues: ArrayLike, gain: ArrayLike = 1.0, correlation: ArrayLike = 0.0) -> Array:
    r"""Return the density of eigenvalues in the complex plane, the same anywhere within the ellipse.

    .. math:: \varrho(x + iy) = \frac{1}{\pi g^2 (1 - \tau^2)} \quad \text{where}
        \quad \frac{x^2}{a^2} + \frac{y^2}{b^2} \le 1

    Args:
        eigenvalues: where, complex [...].
        gain: g > 0.
        correlation: tau, inside -1 ... 1, at whose ends all eigenvalues lie on a line; see `elliptic_semi_axes`.

    Returns:
        The density per unit of area, [...]; it integrates to 1.

    Raises:
        ValueError: a gain <= 0, a correlation of modulus 1 or more.
    """
    _require_area(correlation)
    real_axis, imaginary_axis = elliptic_semi_axes(gain, correlation)
    inside = _squared_scale(eigenvalues, gain, correlation) <= 1
    return jnp.where(inside, 1 / (jnp.pi * real_axis * imaginary_axis), 0.0)


def elliptic_cdf(eigenvalues: ArrayLike, gain: ArrayLike = 1.0, correlation: ArrayLike = 0.0) -> Array:
    r"""Return the share of eigenvalues within the ellipse through a point that is similar to the one that holds all.

    .. math:: \min\!\left( \frac{x^2}{a^2} + \frac{y^2}{b^2},\; 1 \right)

    For real matrices of finite N and tau = 0 the share is larger by 1/2N, well inside the disc.

    Args:
        eigenvalues: the points x + iy, [...].
        gain: g > 0.
        correlation: tau, inside -1 ... 1; see `elliptic_semi_axes`.

    Returns:
        The share, [...]; with tau = 0 the cumulative distribution of the modulus.

    Raises:
        ValueError: a gain <= 0, a correlation of modulus 1 or more.
    """
    _require_area(correlation)
    return jnp.minimum(_squared_scale(eigenvalues, gain, correlation), 1.0)


def circular_density(eigenvalues: ArrayLike, gain: ArrayLike = 1.0) -> Array:
    r"""Return the density of eigenvalues of a matrix of independent entries, :math:`1 / \pi g^2` for |x| <= g.

    (Girko, Theory Probab. Appl. 29, 694, 1985.)

    Args:
        eigenvalues: where, complex [...].
        gain: g > 0.

    Returns:
        The density per unit of area, [...].

    Raises:
        ValueError: a gain <= 0.
    """
    return elliptic_density(eigenvalues, gain)


def circular_cdf(radius: ArrayLike, gain: ArrayLike = 1.0) -> Array:
    r"""Return the share of eigenvalues of modulus up to a radius, :math:`\min(r^2 / g^2, 1)`.

    Args:
        radius: r >= 0, [...].
        gain: g > 0.

    Returns:
        The share, [...].

    Raises:
        ValueError: a gain <= 0, a negative radius.
    """
    require("radius", radius, "a number >= 0", lambda r: r >= 0)
    return elliptic_cdf(radius, gain)


def marchenko_pastur_edges(gain: ArrayLike = 1.0, aspect: ArrayLike = 1.0) -> tuple[Array, Array]:
    r"""Return the smallest and the largest squared singular value that is not 0.

    .. math:: x_\pm = g^2 (1 \pm \sqrt{q})^2, \qquad q = M / N

    of a matrix with M outputs, N inputs and independent entries of variance :math:`g^2 / N` (Marchenko and Pastur,
    Math. USSR Sb. 1, 457, 1967).

    Args:
        gain: g > 0.
        aspect: q > 0, outputs per input.

    Returns:
        The edges x_- and x_+.

    Raises:
        ValueError: a gain or an aspect <= 0.
    """
    require_positive("gain", gain)
    require_positive("aspect", aspect)
    gain, root = _floats(gain), jnp.sqrt(_floats(aspect))
    return (gain * (1 - root)) ** 2, (gain * (1 + root)) ** 2


def marchenko_pastur_density(squares: ArrayLike, gain: ArrayLike = 1.0, aspect: ArrayLike = 1.0) -> Array:
    r"""Return the density of the squared singular values of one step, of the M that W W^T has.

    .. math:: \varrho(x) = \frac{\sqrt{(x_+ - x)(x - x_-)}}{2 \pi g^2 q x}, \qquad x_- < x < x_+

    Where there are more outputs than inputs, q > 1, a share 1 - 1/q of the M is exactly 0 and not in this density.

    Args:
        squares: where, [...].
        gain: g > 0.
        aspect: q > 0, outputs per input; see `marchenko_pastur_edges`.

    Returns:
        The density, [...]; it integrates to min(1, 1/q).

    Raises:
        ValueError: a gain or an aspect <= 0.
    """
    lower, upper = marchenko_pastur_edges(gain, aspect)
    squares = _floats(squares)
    inside = (lower < squares) & (squares < upper)
    x = jnp.where(inside, squares, upper)
    density = jnp.sqrt((upper - x) * (x - lower)) / (2 * jnp.pi * _floats(gain) ** 2 * _floats(aspect) * x)
    return jnp.where(inside, density, 0.0)


def marchenko_pastur_cdf(squares: ArrayLike, gain: ArrayLike = 1.0, aspect: ArrayLike = 1.0) -> Array:
    r"""Return the share of the M squared singular values of one step up to a number, those that are 0 included.

    .. math:: F(x) = \max(0, 1 - \tfrac{1}{q}) + \frac{1}{2 \pi g^2 q} \left[ r +
        \tfrac{x_+ + x_-}{2} \left( \tfrac{\pi}{2} + \arctan \tfrac{2x - x_+ - x_-}{2 r} \right)
        - s \left( \tfrac{\pi}{2} + \arctan \tfrac{(x_+ + x_-) x - 2 s^2}{2 s r} \right) \right]

    with :math:`r^2 = (x_+ - x)(x - x_-)` and :math:`s^2 = x_+ x_-`, the integral of the density.

    Args:
        squares: x, [...].
        gain: g > 0.
        aspect: q > 0, outputs per input; see `marchenko_pastur_edges`.

    Returns:
        The share, [...].

    Raises:
        ValueError: a gain or an aspect <= 0.
    """
    lower, upper = marchenko_pastur_edges(gain, aspect)
    squares, gain, aspect = _floats(squares), _floats(gain), _floats(aspect)
    x = jnp.clip(squares, lower, upper)
    root, mean_edge, geometric = jnp.sqrt((upper - x) * (x - lower)), (upper + lower) / 2, jnp.sqrt(upper * lower)
    from_lower = jnp.pi / 2 + jnp.arctan2(x - mean_edge, root)
    from_zero = jnp.pi / 2 + jnp.arctan2(mean_edge * x - geometric**2, geometric * root)
    integral = (root + mean_edge * from_lower - geometric * from_zero) / (2 * jnp.pi * gain**2 * aspect)
    return jnp.where(squares < 0, 0.0, jnp.maximum(1 - 1 / aspect, 0.0) + integral)


def _require_area(correlation: ArrayLike) -> None:
    require("correlation", correlation, "inside -1 ... 1, for at the ends the ellipse is a line", lambda t: abs(t) < 1)


def _squared_scale(eigenvalues: ArrayLike, gain: ArrayLike, correlation: ArrayLike) -> Array:
    """Return the square of what the whole ellipse is to be scaled by for it to go through a point."""
    real_axis, imaginary_axis = elliptic_semi_axes(gain, correlation)
    return (jnp.real(eigenvalues) / real_axis) ** 2 + (jnp.imag(eigenvalues) / imaginary_axis) ** 2


def _floats(value: ArrayLike) -> Array:
    return jnp.asarray(value, jnp.result_type(value, float))
