"""Covariant vectors against their definition, eigenvectors, closed forms of driven maps and dense singular vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import dense_jacobians, elman, linear_system, lstm, noise
from scipy.linalg import subspace_angles

from rnn_dynamics.cells import ElmanCell
from rnn_dynamics.cells.initializers import gaussian
from rnn_dynamics.dynamics import DrivenSystem, covariant_lyapunov_vectors, trajectory

RUN = {"transient": 50, "tangent_transient": 250, "backward_transient": 200}
FIRST, LAST, STEPS = 300, 400, 600  # of the window, and of the run


CELLS = {"chaotic Elman": elman(gain=3.0), "stable LSTM": lstm(hidden=4)}


@pytest.fixture(scope="module", params=CELLS)
def measured(request):
    system, inputs = DrivenSystem.from_cell(CELLS[request.param]), noise(STEPS, scale=0.2)
    jacobians = dense_jacobians(system, inputs)[FIRST:LAST]
    result = covariant_lyapunov_vectors(system, inputs, **RUN)
    assert (result.exponents[0] > 0) == request.param.startswith("chaotic")
    return system, inputs, jacobians, result


def test_each_jacobian_maps_the_vectors_onto_the_next(measured):
    system, inputs, jacobians, result = measured
    vectors, growth = np.asarray(result.vectors), np.asarray(result.growth)
    assert vectors.shape == (LAST - FIRST, 8, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-14)
    pushed, factors = jacobians[1:] @ vectors[:-1], np.exp(growth[1:, None, :])
    np.testing.assert_allclose(pushed / factors, vectors[1:], rtol=0, atol=1e-8)  # a factor e^-9 multiplies rounding
    norms = np.linalg.norm(jacobians[1:], 2, axis=(1, 2))
    assert np.max(np.abs(pushed - factors * vectors[1:]).max(axis=(1, 2)) / norms) < 3e-15
    np.testing.assert_allclose(result.states, np.asarray(trajectory(system, inputs))[FIRST:LAST], rtol=0, atol=1e-12)
    assert result.first_nonfinite_step == -1


def test_angles_and_participation_ratios_are_those_of_the_vectors(measured):
    result = measured[-1]
    vectors, angles = np.asarray(result.vectors), np.asarray(result.angles)
    apart = ~np.eye(8, dtype=bool)
    cosines = np.abs(np.einsum("tni,tnj->tij", vectors, vectors))
    np.testing.assert_allclose(np.cos(angles)[:, apart], cosines[:, apart], rtol=0, atol=1e-13)
    assert np.all(angles[:, ~apart] == 0)
    ratios = 1 / np.sum(vectors**4, axis=1)
    np.testing.assert_allclose(result.participation_ratio, ratios.mean(axis=0), rtol=1e-13)
    error = ratios.reshape(10, -1, 8).mean(axis=1).std(axis=0, ddof=1) / np.sqrt(10)
    np.testing.assert_allclose(result.participation_ratio_standard_error, error, rtol=1e-10)


@pytest.mark.parametrize("measured", ["chaotic Elman"], indirect=True)
def test_leading_vectors_are_those_of_all_and_span_subspaces(measured):
    system, inputs, _, result = measured
    leading = covariant_lyapunov_vectors(system, inputs, k=4, **RUN)
    vectors = np.asarray(result.vectors)[:, :, :4]
    np.testing.assert_allclose(np.abs(leading.vectors), np.abs(vectors), rtol=0, atol=1e-8)
    expected = [subspace_angles(columns[:, :1], columns[:, 1:]).min() for columns in vectors[:5]]
    np.testing.assert_allclose(np.asarray(leading.angle_between_subspaces(1))[:5], expected, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="dimension must be between 1 and 3, one less than the vectors, got 4"):
        leading.angle_between_subspaces(4)


LINEAR_RUN = {"steps": 330, "tangent_transient": 160, "backward_transient": 160}


def test_vectors_of_a_constant_map_are_its_eigenvectors():
    basis = np.random.default_rng(0).normal(size=(4, 4))
    basis /= np.linalg.norm(basis, axis=0)
    eigenvalues = np.array([1.4, -1.0, 0.7, 0.4])
    result = covariant_lyapunov_vectors(
        linear_system(basis @ np.diag(eigenvalues) @ np.linalg.inv(basis)), **LINEAR_RUN
    )
    np.testing.assert_allclose(result.exponents, np.log(np.abs(eigenvalues)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.standard_error, 0, rtol=0, atol=1e-12)
    overlap = np.abs(np.sum(np.asarray(result.vectors) * basis, axis=1))
    np.testing.assert_allclose(overlap, 1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(result.participation_ratio, 1 / np.sum(basis**4, axis=0), rtol=1e-10)
    np.testing.assert_allclose(np.cos(np.asarray(result.angles)[3]), np.abs(basis.T @ basis), rtol=0, atol=1e-12)


def test_an_orthogonal_map_keeps_right_angles():
    matrix = 1.3 * jax.random.orthogonal(jax.random.key(3), 4, dtype=jnp.float64)
    result = covariant_lyapunov_vectors(linear_system(matrix), **LINEAR_RUN)
    np.testing.assert_allclose(result.exponents, np.log(1.3), rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.asarray(result.angles)[:, ~np.eye(4, dtype=bool)], np.pi / 2, rtol=0, atol=1e-12)


def test_small_angles_keep_their_digits():
    """Eigenvectors (1, 0) and (1e9, -0.5): an angle of 5e-10, whose cosine is 1 to all digits."""
    matrix = np.diag([1.5, 1.0, 0.3, 0.1])
    matrix[0, 1] = 1e9
    result = covariant_lyapunov_vectors(linear_system(matrix), **LINEAR_RUN)
    np.testing.assert_allclose(np.asarray(result.angles)[:, 0, 1], np.arctan(0.5 / 1e9), rtol=1e-6)


def shear_step(params, carry, inputs_t):
    """The linear map [[2, x], [y, 1/2]], at rest."""
    first, second = carry
    return jnp.stack([2 * first + inputs_t[0] * second, inputs_t[1] * first + second / 2])


@pytest.mark.parametrize("upper", [True, False])
def test_driven_shears_have_vectors_in_closed_form(upper):
    """With x = 0, v_1 is (1, w), w_t = y_t/2 + w_{t-1}/4; with y = 0, v_2 is (w, 1), w_{t-1} = (w_t - 2 x_t)/4."""
    inputs = noise(120, 2).at[:, 1 if upper else 0].set(0.0)
    system = DrivenSystem.from_step(shear_step, jnp.float64(0), jnp.zeros(2))
    result = covariant_lyapunov_vectors(system, inputs, tangent_transient=50, backward_transient=50)
    slopes, shears = np.zeros(121), np.asarray(inputs)  # w after t steps
    for t in range(120):
        if upper:
            slopes[119 - t] = (slopes[120 - t] - 2 * shears[119 - t, 0]) / 4
        else:
            slopes[t + 1] = shears[t, 1] / 2 + slopes[t] / 4
    vectors, angles, w = np.asarray(result.vectors), np.asarray(result.angles), slopes[51:71]
    if upper:
        np.testing.assert_allclose(vectors[:, 0, 1] / vectors[:, 1, 1], w, rtol=0, atol=1e-13)
    else:
        np.testing.assert_allclose(vectors[:, 1, 0] / vectors[:, 0, 0], w, rtol=0, atol=1e-13)
    np.testing.assert_allclose(angles[:, 0, 1], np.pi / 2 - np.arctan(np.abs(w)), rtol=0, atol=1e-13)


def henon_step(params, carry, inputs_t):
    x, y = carry
    return jnp.stack([1 - 1.4 * x**2 + y, 0.3 * x])


def test_directions_of_the_henon_map_are_singular_vectors_of_long_products():
    """v_1: what 40 Jacobians of the past make of anything; v_2: what 12 of the future shrink most."""
    system = DrivenSystem.from_step(henon_step, jnp.float64(0), jnp.array([0.1, 0.1]))
    result = covariant_lyapunov_vectors(system, steps=250, transient=50, tangent_transient=50, backward_transient=50)
    states = np.concatenate([[[0.1, 0.1]], trajectory(system, steps=250)])
    jacobians = np.array([[[-2.8 * x, 1], [0.3, 0]] for x, _ in states])  # jacobians[t] leads from state t to t+1
    directions, angles = np.asarray(result.vectors), np.asarray(result.angles)
    for t in range(101, 201, 9):
        past, future = np.eye(2), np.eye(2)
        for s in range(40):
            past = jacobians[t - 40 + s] @ past
            past /= np.linalg.norm(past)
        for s in range(12):
            future = jacobians[t + s] @ future
        fast, slow = np.linalg.svd(past)[0][:, 0], np.linalg.svd(future)[2][1]
        vectors = directions[t - 101]
        np.testing.assert_allclose(abs(fast @ vectors[:, 0]), 1, rtol=0, atol=1e-13)
        np.testing.assert_allclose(abs(slow @ vectors[:, 1]), 1, rtol=0, atol=1e-9)
        np.testing.assert_allclose(np.cos(angles[t - 101, 0, 1]), abs(fast @ slow), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_what_a_singular_jacobian_kills_lies_in_its_kernel():
    cell = ElmanCell(
        1, 6, activation="relu", recurrent_kernel_init=gaussian(1.4), param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    system, inputs = DrivenSystem.from_cell(cell), noise(90)
    result = covariant_lyapunov_vectors(system, inputs, transient=10, tangent_transient=30, backward_transient=20)
    vectors, growth = np.asarray(result.vectors), np.asarray(result.growth)
    jacobians = dense_jacobians(system, inputs)[40:70]
    assert np.linalg.matrix_rank(jacobians).min() < 6
    killed = np.isneginf(growth[1:])
    assert killed.any()
    assert not killed.all()
    assert np.all(np.isneginf(result.exponents) == np.isneginf(growth).any(axis=0))
    pushed = jacobians[1:] @ vectors[:-1]
    expected = np.exp(growth[1:, None, :]) * np.where(killed[:, None, :], 0.0, vectors[1:])
    np.testing.assert_allclose(pushed, expected, rtol=0, atol=1e-11)


def exploding_step(params, carry, inputs_t):
    return carry**2


def test_an_overflow_in_the_backward_transient_makes_everything_nan():
    system = DrivenSystem.from_step(exploding_step, jnp.float64(0), jnp.array([10.0, 1.0]))
    result = covariant_lyapunov_vectors(system, steps=20, tangent_transient=1, backward_transient=15)
    assert result.first_nonfinite_step == 8
    for values in (result.exponents, result.growth, result.vectors, result.angles, result.participation_ratio):
        assert np.isnan(values).all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tangent_transient": 4, "backward_transient": 6}, "must leave a step to measure: got 0 . 4 . 6 of 10 steps"),
        ({"tangent_transient": -1, "backward_transient": 6}, "tangent_transient must be a whole number >= 0, got -1"),
        ({"tangent_transient": 1, "backward_transient": -5}, "backward_transient must be a whole number >= 0, got -5"),
        ({"tangent_transient": 1, "backward_transient": 1, "k": 9}, "k must be between 1 and the state size 8, got 9"),
    ],
)
def test_bad_input_gets_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        covariant_lyapunov_vectors(DrivenSystem.from_cell(elman()), noise(10), **options)
