"""Finite-time singular values against high precision, dense algebra, closed forms, and the adjoint direction."""

import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flax import nnx
from networks import any_cell, dense_jacobians, elman, linear_system, lstm, noise

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import gaussian, orthogonal
from rnn_dynamics.dynamics import DrivenSystem, jacobian_product
from rnn_dynamics.dynamics.graded import GradedTriangle


def log_singular_values_by_mpmath(jacobians, digits):
    with mpmath.workdps(digits):
        product = mpmath.eye(jacobians.shape[1])
        for matrix in jacobians:
            product = mpmath.matrix(matrix.tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        return np.sort([float(mpmath.log(value)) for value in values])[::-1]


@pytest.mark.parametrize(("make", "hidden", "gain"), [(elman, 8, 2.5), (lstm, 4, 5.0)])
def test_against_high_precision(make, hidden, gain):
    """N = 8, T = 2000, chaotic: the values span thousands of nats, and each is good to 1e-6 and far better."""
    system = DrivenSystem.from_cell(make(hidden=hidden, gain=gain, seed=3))
    inputs = noise(2000, scale=0.1)
    ours = np.asarray(jacobian_product(system, inputs, horizons=2000).log_singular_values[0])
    span = ours[0] - ours[-1]
    assert span > 2000
    exact = log_singular_values_by_mpmath(dense_jacobians(system, inputs), digits=int(span / np.log(10)) + 100)
    np.testing.assert_allclose(ours, exact, rtol=1e-10)


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.7])
def test_linear_orthogonal_network_at_every_horizon(gain):
    cell = ElmanCell(
        1, 9, activation="identity", recurrent_kernel_init=orthogonal(gain), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    horizons = [1, 2, 10, 100, 5000]
    result = jacobian_product(DrivenSystem.from_cell(cell), steps=5000, horizons=horizons)
    expected = np.array(horizons)[:, None] * np.log(gain) * np.ones(9)
    np.testing.assert_allclose(result.log_singular_values, expected, rtol=1e-12, atol=1e-11)


def test_transient_growth_of_a_non_normal_matrix():
    """Eigenvalues 0.9 and 0.8 say decay; singular values at finite horizons first grow."""
    matrix = np.array([[0.9, 5.0], [0.0, 0.8]])
    horizons = [1, 2, 5, 20]
    result = jacobian_product(linear_system(matrix), horizons=horizons)
    for number, horizon in enumerate(horizons):
        expected = np.linalg.svd(np.linalg.matrix_power(matrix, horizon), compute_uv=False)
        np.testing.assert_allclose(np.exp(result.log_singular_values[number]), expected, rtol=1e-9)
    assert result.log_norm[0] > 1


def test_adverse_order_of_growth():
    """A start frame along the axes would have the slow direction first; the answer must not care."""
    matrix = np.diag([1e-3, 1.0, 1e3])
    result = jacobian_product(linear_system(matrix), horizons=1000)
    np.testing.assert_allclose(result.log_singular_values[0], 1000 * np.log([1e3, 1.0, 1e-3]), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_singular_jacobians(seed):
    """Units at rest make relu Jacobians singular: what is left of the product is exact, the rest is -inf."""
    cell = ElmanCell(
        1, 8, activation="relu", recurrent_kernel_init=gaussian(1.4), param_dtype=jnp.float64, rngs=nnx.Rngs(seed)
    )
    system, inputs, horizons = DrivenSystem.from_cell(cell), noise(12), [1, 2, 3, 12]
    values = jacobian_product(system, inputs, horizons=horizons).log_singular_values
    jacobians = dense_jacobians(system, inputs)
    for ours, horizon in zip(np.asarray(values), horizons, strict=True):
        expected = np.linalg.svd(np.linalg.multi_dot([*jacobians[:horizon][::-1], np.eye(8)]), compute_uv=False)
        rank = np.sum(expected > 1e-12 * expected[0])
        assert rank < 8
        np.testing.assert_allclose(ours[:rank], np.log(expected[:rank]), rtol=0, atol=1e-10)
        assert np.all(np.isneginf(ours[rank:]))


def test_close_values_are_told_apart():
    """Nearly equal singular values, where repeated QR sweeps would converge for ever."""
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.normal(size=(6, 6)))[0] for _ in range(2))
    expected = np.array([1.0, 1 - 1e-7, 1 - 2e-7, 0.5, 0.5, 1e-8])
    triangle = np.linalg.qr(left @ np.diag(expected) @ right)[1]
    triangle *= np.sign(np.diag(triangle))[:, None]
    product = GradedTriangle.identity(6, jnp.float64).multiplied_by(jnp.asarray(triangle))
    np.testing.assert_allclose(np.exp(product.singular_values().log_values), expected, rtol=1e-7)


def test_leading_values():
    system, inputs = DrivenSystem.from_cell(any_cell("LSTMCell")), noise(20, 2)
    leading = jacobian_product(system, inputs, horizons=[3, 20], k=4)
    full = jacobian_product(system, inputs, horizons=[3, 20])
    np.testing.assert_allclose(leading.log_singular_values, full.log_singular_values[:, :4], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"horizons": 0}, "horizons must be whole numbers >= 1, got 0"),
        ({"horizons": []}, r"horizons must be whole numbers >= 1, got \[\]"),
        ({"horizons": [5, 3]}, r"horizons must increase, got \[5, 3\]"),
        ({"horizons": np.array([5, 3], np.uint32)}, r"horizons must increase, got \[5 3\]"),
        ({"horizons": 11}, "transient 0 . horizon 11 > 10 steps"),
        ({"horizons": 6, "transient": 5}, "transient 5 . horizon 6 > 10 steps"),
        ({"horizons": 6, "k": 9}, "k must be between 1 and the state size 8, got 9"),
    ],
)
def test_bad_input_gets_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        jacobian_product(DrivenSystem.from_cell(elman()), noise(10), **options)


@pytest.mark.parametrize("hidden", [3, 4])
@pytest.mark.slow
def test_singular_vectors_are_those_of_dense_algebra(hidden):
    """P v_i = exp(l_i) u_i with both sets orthonormal leaves no freedom but the signs."""
    system, inputs = DrivenSystem.from_cell(lstm(hidden=hidden)), noise(6)
    result = jacobian_product(system, inputs, horizons=[1, 6], vectors=True)
    jacobians = dense_jacobians(system, inputs)
    for number, horizon in enumerate([1, 6]):
        product = np.linalg.multi_dot([*jacobians[:horizon][::-1], np.eye(2 * hidden)])
        left, right = result.left_vectors[number], result.right_vectors[number]
        values = np.exp(result.log_singular_values[number])
        np.testing.assert_allclose(left.T @ left, np.eye(2 * hidden), rtol=0, atol=1e-13)
        np.testing.assert_allclose(right.T @ right, np.eye(2 * hidden), rtol=0, atol=1e-13)
        np.testing.assert_allclose(product @ right, left * values[None], rtol=0, atol=1e-13 * values[0])
        np.testing.assert_allclose(product.T @ left, right * values[None], rtol=0, atol=1e-13 * values[0])


def test_singular_vectors_where_dense_algebra_sees_nothing():
    """A constant symmetric matrix: at any horizon the singular vectors are the eigenvectors."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    eigenvalues = np.array([2.0, -1.1, 0.6, 0.3, -0.05])
    system = linear_system(basis @ np.diag(eigenvalues) @ basis.T)
    result = jacobian_product(system, horizons=1001, k=3, vectors=True)
    np.testing.assert_allclose(result.log_singular_values[0], 1001 * np.log(np.abs(eigenvalues[:3])), rtol=1e-12)
    for vectors in (result.left_vectors[0], result.right_vectors[0]):
        np.testing.assert_allclose(np.abs(basis[:, :3].T @ vectors), np.eye(3), rtol=0, atol=1e-11)
    signs = np.sum(result.left_vectors[0] * result.right_vectors[0], axis=0)
    np.testing.assert_allclose(signs, np.sign(eigenvalues[:3]), rtol=0, atol=1e-11)
    assert jacobian_product(system, horizons=3).left_vectors is None


def test_log_determinant_and_histogram():
    system, inputs = DrivenSystem.from_cell(elman()), noise(40)
    result = jacobian_product(system, inputs, horizons=[1, 40], k=2)
    log_dets = np.linalg.slogdet(dense_jacobians(system, inputs))[1]
    np.testing.assert_allclose(result.log_determinant, [log_dets[0], log_dets.sum()], rtol=1e-13)
    full = jacobian_product(system, inputs, horizons=[1, 40])
    np.testing.assert_allclose(jnp.sum(full.log_singular_values, axis=1), full.log_determinant, rtol=1e-13)
    densities, edges = full.histogram(5)
    np.testing.assert_allclose(np.sum(densities * np.diff(edges), axis=1), 1)
    inside = (full.finite_time_exponents[1] >= edges[0]) & (full.finite_time_exponents[1] < edges[1])
    assert densities[1, 0] * (edges[1] - edges[0]) * 8 == pytest.approx(np.sum(inside))
