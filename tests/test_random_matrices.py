"""Laws of random matrices against simulated ones, exact moments, quadrature and each other."""

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from rnn_dynamics.theory.random_matrices import (
    circular_cdf,
    circular_density,
    elliptic_cdf,
    elliptic_density,
    elliptic_semi_axes,
    marchenko_pastur_cdf,
    marchenko_pastur_density,
    marchenko_pastur_edges,
    spectral_radius,
)


def mean_and_error(samples):
    """Over the first axis."""
    return np.mean(samples, axis=0), np.std(samples, axis=0, ddof=1) / np.sqrt(len(samples))


def elliptic_matrices(samples, size, gain, correlation, seed):
    first, second = np.random.default_rng(seed).normal(size=(2, samples, size, size)) * gain / np.sqrt(2 * size)
    symmetric, antisymmetric = first + first.swapaxes(1, 2), second - second.swapaxes(1, 2)
    return (np.sqrt(1 + correlation) * symmetric + np.sqrt(1 - correlation) * antisymmetric) / np.sqrt(2)


def test_eigenvalues_of_independent_entries_fill_a_disc():
    """N F(r) + 1/2 of them: real eigenvalues have the density 1/sqrt(2 pi) next to the real line's depletion."""
    size, gain, samples = 60, 1.3, 400
    radii = gain * np.array([0.3, 0.5, 0.7])
    matrices = np.random.default_rng(0).normal(size=(samples, size, size)) * gain / np.sqrt(size)
    moduli = np.abs(np.linalg.eigvals(matrices))
    share, error = mean_and_error(np.mean(moduli[:, :, None] <= radii, axis=1))
    assert np.all(error < 2.5e-3)
    assert np.all(np.abs(share - circular_cdf(radii, gain) - 1 / (2 * size)) < 4 * error)


@pytest.mark.parametrize("correlation", [pytest.param(-0.5, marks=pytest.mark.slow), 0.6])
def test_eigenvalues_of_correlated_entries_fill_an_ellipse(correlation):
    """Equal shares between similar ellipses, up to one eigenvalue more or less near the real line."""
    size, gain, samples = 80, 0.7, 200
    matrices = elliptic_matrices(samples, size, gain, correlation, seed=1)
    mirrored = size * np.mean(matrices * matrices.swapaxes(1, 2), axis=(1, 2)) / gain**2
    mean, error = mean_and_error(mirrored)
    assert abs(mean - correlation - 1 / size) < 4 * error  # on the diagonal g^2 (1 + tau)
    eigenvalues = np.linalg.eigvals(matrices)
    shares = np.array([0.25, 0.5, 0.75])
    within = np.asarray(elliptic_cdf(eigenvalues, gain, correlation))
    found, error = mean_and_error(np.mean(within[..., None] <= shares, axis=1))
    assert np.all(np.abs(found - shares) < 4 * error + 1 / size)
    assert np.mean(elliptic_density(eigenvalues / 1.2, gain, correlation) == 0) < 1 / size  # next to none beyond
    assert np.max(np.abs(eigenvalues)) > 0.9 * spectral_radius(gain, correlation)
    # |x| < a/2 holds as much of an ellipse as |x| < 1/2 of the unit disc.
    strip = 2 / np.pi * (np.arcsin(0.5) + 0.5 * np.sqrt(0.75))
    for part, axis in zip((eigenvalues.real, eigenvalues.imag), elliptic_semi_axes(gain, correlation), strict=True):
        found, error = mean_and_error(np.mean(np.abs(part) < float(axis) / 2, axis=1))
        assert abs(found - strip) < 4 * error + 1 / size


def test_axes_and_density_of_the_elliptic_law():
    assert [float(axis) for axis in elliptic_semi_axes(2.0, -0.25)] == [1.5, 2.5]
    assert float(spectral_radius(2.0, -0.25)) == 2.5
    assert [float(axis) for axis in elliptic_semi_axes(2.0, 1)] == [4.0, 0.0]  # Wigner's semicircle
    points = jnp.array([0.0, 1.49, 1.51, 2.49j, 2.51j, 1.0 + 1.0j])
    inside = np.array([1, 1, 0, 1, 0, 1])
    np.testing.assert_allclose(elliptic_density(points, 2.0, -0.25), inside / (np.pi * 1.5 * 2.5), rtol=1e-15, atol=0)
    np.testing.assert_allclose(elliptic_cdf(points[-1], 2.0, -0.25), 1 / 1.5**2 + 1 / 2.5**2, rtol=1e-15, atol=0)
    np.testing.assert_allclose(circular_density(jnp.array([0.5j, 3.0]), 2.0), [1 / (4 * np.pi), 0], rtol=1e-15, atol=0)


ASPECTS = [0.4, 1.0, 2.5]


@pytest.mark.parametrize("aspect", ASPECTS)
def test_marchenko_pastur_integrates_to_its_moments(aspect):
    """1 (or 1/q), g^2 and g^4 (1 + q): means of the M eigenvalues of W W^T, its powers' traces over M."""
    gain = 1.3
    lower, upper = (float(edge) for edge in marchenko_pastur_edges(gain, aspect))

    # x = lower + (upper - lower) sin^2 takes the roots at both edges away
    nodes, weights = np.polynomial.legendre.leggauss(200)
    angles = np.pi / 4 * (1 + nodes)
    x = lower + (upper - lower) * np.sin(angles) ** 2
    weights = np.pi / 4 * weights * (upper - lower) * np.sin(2 * angles) * marchenko_pastur_density(x, gain, aspect)
    found = [np.sum(weights * x**power) for power in range(3)]
    expected = [min(1, 1 / aspect), gain**2, gain**4 * (1 + aspect)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_marchenko_pastur_share_is_the_integral_of_the_density(aspect):
    gain = 0.9
    lower, upper = (float(edge) for edge in marchenko_pastur_edges(gain, aspect))
    atom = max(0.0, 1 - 1 / aspect)
    for x in lower + (upper - lower) * np.array([0.03, 0.5, 0.98]):
        with mpmath.workdps(25):
            integral = mpmath.quad(
                lambda y: mpmath.sqrt((upper - y) * (y - lower)) / (2 * mpmath.pi * gain**2 * aspect * y), [lower, x]
            )
        assert float(marchenko_pastur_cdf(x, gain, aspect)) == pytest.approx(atom + float(integral), rel=0, abs=1e-10)
    ends = jnp.array([-1.0, lower, upper, 2 * upper])
    np.testing.assert_allclose(marchenko_pastur_cdf(ends, gain, aspect), [0, atom, 1, 1], rtol=0, atol=2e-15)
    np.testing.assert_allclose(marchenko_pastur_density(ends[jnp.array([0, 3])], gain, aspect), 0, rtol=0, atol=0)


@pytest.mark.parametrize(("outputs", "inputs"), [(40, 100), pytest.param(90, 40, marks=pytest.mark.slow)])
def test_singular_values_follow_marchenko_pastur(outputs, inputs):
    """To one part in M min(1, 1/q): for real entries 1/4 of an eigenvalue is missing at one edge, and more at the other
    (Dumitriu and Edelman, J. Math. Phys. 47, 063302, 2006)."""
    gain, samples = 1.2, 300
    matrices = np.random.default_rng(2).normal(size=(samples, outputs, inputs)) * gain / np.sqrt(inputs)
    squares = np.linalg.svd(matrices, compute_uv=False) ** 2
    lower, upper = (float(edge) for edge in marchenko_pastur_edges(gain, outputs / inputs))
    places = np.array([0.15, 0.4, 0.7])
    x = lower + (upper - lower) * places
    missing = max(0, outputs - inputs)
    counts, error = mean_and_error(missing + np.sum(squares[:, :, None] <= x, axis=1))
    correction = 0.25 - np.arccos(1 - 2 * places) / (2 * np.pi)
    assert np.all(error < 0.06)
    assert np.all(np.abs(counts - outputs * marchenko_pastur_cdf(x, gain, outputs / inputs) - correction) < 4 * error)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: elliptic_semi_axes(0.0), "gain must be a finite number > 0, got 0.0"),
        (lambda: elliptic_semi_axes(1.0, 1.5), "correlation must be between -1 and 1, got 1.5"),
        (lambda: elliptic_density(0.0, 1.0, 1.0), "correlation must be inside -1 ... 1, .*, got 1.0"),
        (lambda: circular_cdf(-1.0), "radius must be a number >= 0, got -1.0"),
        (lambda: marchenko_pastur_density(1.0, -1.0), "gain must be a finite number > 0, got -1.0"),
        (lambda: marchenko_pastur_cdf(1.0, 1.0, float("nan")), "aspect must be a finite number > 0, got nan"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
