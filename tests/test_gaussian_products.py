"""Products of Gaussian matrices: finite N against simulation and mpmath, large N against moments and one another."""

import math

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from networks import slow_but

from rnn_dynamics.theory.gaussian_products import (
    fuss_catalan_curve,
    fuss_catalan_density,
    fuss_catalan_edge,
    fuss_catalan_moment,
    gaussian_log_determinant,
    gaussian_product_exponents,
    gaussian_product_variances,
    triangular_cdf,
    triangular_density,
)
from rnn_dynamics.theory.random_matrices import marchenko_pastur_density


def gaussian(shape, gain, seed):
    return np.random.default_rng(seed).normal(size=shape) * gain / np.sqrt(shape[-1])


def test_exponents_and_variances_in_high_precision():
    """Degrees of freedom counted from the other end, and the known values of N = 2 and 3."""
    with mpmath.workdps(30):
        degrees = [mpmath.mpf(k) / 2 for k in range(7, 0, -1)]
        exponents = [float(mpmath.log(1.5) + (mpmath.log(mpmath.mpf(2) / 7) + mpmath.digamma(k)) / 2) for k in degrees]
        variances = [float(mpmath.psi(1, k) / (4 * 9)) for k in degrees]
    np.testing.assert_allclose(gaussian_product_exponents(7, 1.5), exponents, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gaussian_product_variances(7, 9), variances, rtol=1e-14, atol=0)
    np.testing.assert_allclose(gaussian_product_exponents(2), [-0.28860783, -0.98175501], rtol=0, atol=1e-8)
    np.testing.assert_allclose(gaussian_product_exponents(3)[::2], [-0.18448757, -1.18448757], rtol=0, atol=1e-8)


def test_finite_time_exponents_have_these_means_and_variances():
    """Of a frame with a QR at every step, at any T: here 2 000 products of 6 matrices."""
    size, steps, samples, gain = 4, 6, 2000, 0.8
    frames, growth = np.broadcast_to(np.eye(size), (samples, size, size)), np.zeros((samples, size))
    for step in range(steps):
        frames, triangles = np.linalg.qr(gaussian((samples, size, size), gain, seed=step) @ frames)
        growth += np.log(np.abs(np.diagonal(triangles, axis1=1, axis2=2))) / steps
    mean = np.asarray(gaussian_product_exponents(size, gain))
    variances = np.asarray(gaussian_product_variances(size, steps))
    assert np.all(np.abs(np.mean(growth, axis=0) - mean) < 4 * np.sqrt(variances / samples))
    squares = (growth - mean) ** 2
    error = np.std(squares, axis=0) / np.sqrt(samples)
    assert np.all(error < 0.05 * variances)
    assert np.all(np.abs(np.mean(squares, axis=0) - variances) < 4 * error)
    assert np.all(np.abs(np.corrcoef(growth.T) - np.eye(size)) < 4 / np.sqrt(samples))  # independent


def test_singular_values_come_to_the_same_variances():
    """Of products of 2 x 2 matrices, sigma_2 by determinants; means from the growth between steps 100 and 400, for the
    logarithms themselves are off by a constant."""
    samples, steps = 1500, (100, 400)
    product, logs = np.broadcast_to(np.eye(2), (samples, 2, 2)), np.zeros((samples, 2))  # of sigma_1 and |det|
    log_values = []
    for step in range(1, steps[1] + 1):
        factor = gaussian((samples, 2, 2), 1.0, seed=100 + step)
        product = factor @ product
        norm = np.linalg.norm(product, axis=(1, 2))
        product = product / norm[:, None, None]
        logs += np.log(np.stack([norm, np.abs(np.linalg.det(factor))], axis=1))
        if step in steps:
            first = logs[:, 0] + np.log(np.linalg.norm(product, 2, axis=(1, 2)))
            log_values.append(np.stack([first, logs[:, 1] - first], axis=1))
    between = (log_values[1] - log_values[0]) / (steps[1] - steps[0])
    error = np.std(between, axis=0, ddof=1) / np.sqrt(samples)
    assert np.all(np.abs(np.mean(between, axis=0) - gaussian_product_exponents(2)) < 4 * error)
    variances = np.var(log_values[1] / steps[1], axis=0) / gaussian_product_variances(2, steps[1])
    assert np.all(np.abs(variances - 1) < 4 * np.sqrt(2 / samples))  # Gaussian by then


def test_log_determinant_of_one_matrix():
    size, samples, gain = 10, 4000, 1.4
    values = np.linalg.slogdet(gaussian((samples, size, size), gain, seed=5))[1]
    mean, variance = (float(value) for value in gaussian_log_determinant(size, gain))
    assert abs(np.mean(values) - mean) < 4 * math.sqrt(variance / samples)
    squares = (values - mean) ** 2
    assert abs(np.mean(squares) - variance) < 4 * np.std(squares) / math.sqrt(samples)
    # N = 1 is ln of one normal variable: mean -(gamma + ln 2) / 2, variance pi^2 / 8.
    one = [float(value) for value in gaussian_log_determinant(1)]
    np.testing.assert_allclose(one, [-(np.euler_gamma + math.log(2)) / 2, math.pi**2 / 8], rtol=1e-14, atol=0)


@pytest.mark.slow
def test_the_triangular_law_is_where_the_exponents_go():
    """Of N = 1000 the k-th from below has the share (k - 1/2) / N below it, up to O(1/N)."""
    exponents = gaussian_product_exponents(1000, 1.7)
    shares = (np.arange(1000, 0, -1) - 0.5) / 1000
    np.testing.assert_allclose(triangular_cdf(exponents, 1.7), shares, rtol=0, atol=1e-3)
    # psi(k/2) ~ ln((k-1)/2) + O(1/k^2)
    upper_half = (np.arange(1000, 500, -1) - 1) / 1000
    np.testing.assert_allclose(triangular_cdf(exponents[:500], 1.7), upper_half, rtol=0, atol=1e-6)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for x in (-2.0, 0.1, 0.5):
        below = x + 10 * (nodes - 1)  # 20 nats, of which the lower end holds e^-40
        integral = 10 * np.sum(weights * triangular_density(below, 1.7))
        assert integral == pytest.approx(float(triangular_cdf(x, 1.7)), rel=0, abs=1e-12)
    np.testing.assert_allclose(triangular_density(jnp.array([0.53, 0.54]), 1.7) > 0, [True, False], rtol=0, atol=0)


def test_fuss_catalan_with_one_step_is_marchenko_pastur():
    squares = 1.3**2 * jnp.array([1e-12, 0.01, 0.5, 2.0, 3.9, 3.9999])
    np.testing.assert_allclose(
        fuss_catalan_density(squares, 1, 1.3), marchenko_pastur_density(squares, 1.3), rtol=1e-10, atol=0
    )
    assert [fuss_catalan_moment(order, 1) for order in range(5)] == [1, 1, 2, 5, 14]  # Catalan's numbers


@pytest.mark.parametrize("steps", slow_but([2], [1, 2, 5]))
def test_fuss_catalan_density_has_the_moments(steps):
    """Integrated along the angle, with dx from differences in high precision."""
    gain, last = 1.2, math.pi / (steps + 1)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    angles = last * (1 + nodes) / 2
    squares, density = (np.asarray(values) for values in fuss_catalan_curve(angles, steps, gain))

    def log_square(angle):
        whole = (steps + 1) * mpmath.log(mpmath.sin((steps + 1) * angle))
        return whole - mpmath.log(mpmath.sin(angle)) - steps * mpmath.log(mpmath.sin(steps * angle))

    with mpmath.workdps(30):
        slopes = np.array([float(mpmath.diff(log_square, mpmath.mpf(angle))) for angle in angles])
    for order in range(4):
        moment = np.sum(last / 2 * weights * density * squares ** (order + 1) * -slopes)
        assert moment == pytest.approx(fuss_catalan_moment(order, steps, gain), rel=1e-9)
    # At the edge, where the density is a root, rounding of the square is magnified.
    np.testing.assert_allclose(fuss_catalan_density(squares, steps, gain), density, rtol=1e-9, atol=1e-11)
    edge = float(fuss_catalan_edge(steps, gain))
    assert edge == pytest.approx(gain ** (2 * steps) * (steps + 1) ** (steps + 1) / steps**steps, rel=1e-14)
    assert float(fuss_catalan_curve(1e-5, steps, gain)[0]) == pytest.approx(edge, rel=1e-8)
    ends = fuss_catalan_density(jnp.array([-1.0, 0.0, edge * 1.001]), steps, gain)
    np.testing.assert_allclose(ends, [0, np.inf, 0], rtol=0, atol=0)


@pytest.mark.slow
def test_singular_values_of_products_follow_fuss_catalan():
    """Means of traces are polynomials in 1/N, so extrapolate from N = 25, 50 and 100."""
    steps, gain, sizes = 3, 0.9, (25, 50, 100)
    means, errors = [], []
    for size, samples in zip(sizes, (1000, 300, 100), strict=True):
        product = gaussian((samples, size, size), gain, seed=size)
        for step in range(1, steps):
            product = gaussian((samples, size, size), gain, seed=1000 * step + size) @ product
        squares = np.linalg.svd(product, compute_uv=False) ** 2
        moments = np.stack([np.mean(squares, axis=1), np.mean(squares**2, axis=1)])
        means.append(np.mean(moments, axis=1))
        errors.append(np.std(moments, axis=1, ddof=1) / np.sqrt(samples))
    # c0 + c1/N + c2/N^2 through three sizes, at 1/N = 0.
    weights = np.array([1 / 3, -2.0, 8 / 3])
    limit, error = weights @ np.array(means), np.sqrt(weights**2 @ np.array(errors) ** 2)
    expected = np.array([fuss_catalan_moment(order, steps, gain) for order in (1, 2)])
    assert np.all(error < 0.05 * expected)
    assert np.all(np.abs(limit - expected) < 4 * error)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gaussian_product_exponents(0), "size must be a whole number >= 1, got 0"),
        (lambda: gaussian_product_exponents(3, 0.0), "gain must be a finite number > 0, got 0.0"),
        (lambda: gaussian_product_variances(3, 0), "steps must be a whole number >= 1, got 0"),
        (lambda: triangular_cdf(0.0, -1.0), "gain must be a finite number > 0, got -1.0"),
        (lambda: fuss_catalan_moment(-1, 2), "order must be a whole number >= 0, got -1"),
        (lambda: fuss_catalan_density(1.0, 0), "steps must be a whole number >= 1, got 0"),
        (lambda: fuss_catalan_curve(1.1, 2), "angle must be inside 0 ... pi / 3, got 1.1"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
