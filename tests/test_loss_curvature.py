"""Extreme Hessian eigenvalues and slices, against dense Hessians, known spectra and a network of one unit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.dynamics import loss_curvature, loss_slice

pytestmark = pytest.mark.usefixtures("strict_dtypes")

SPECTRUM = np.concatenate([[-7.0, -2.0, -2.0], np.zeros(10), np.geomspace(1e-3, 5.0, 15), [40.0, 90.0]])


def quadratic(matrix, params):
    """Half x^T A x, over two leaves."""
    x = jnp.concatenate([params["a"].ravel(), params["b"]])
    return x @ matrix @ x / 2


def with_spectrum(values, dtype=np.float64):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(len(values), len(values))))[0]
    return jnp.asarray((rotation * values) @ rotation.T, dtype)


def point(size=30, dtype=jnp.float64):
    return {"a": jnp.ones((2, 3), dtype), "b": jnp.zeros(size - 6, dtype)}


def quadratic_loss(values=SPECTRUM, dtype=np.float64):
    return jax.tree_util.Partial(quadratic, with_spectrum(values, dtype))


def test_quadratic_with_a_known_spectrum():
    """All vectors: every eigenvalue, the double one twice, to rounding (90 u = 2e-14)."""
    matrix = with_spectrum(SPECTRUM)
    found = loss_curvature(jax.tree_util.Partial(quadratic, matrix), point(), k=4, iterations=100)
    np.testing.assert_allclose(found.largest, np.sort(SPECTRUM)[::-1][:4], rtol=0, atol=2e-13)
    np.testing.assert_allclose(found.smallest, np.sort(SPECTRUM)[:4], rtol=0, atol=2e-13)
    assert max(found.largest_error.max(), found.smallest_error.max()) < 1e-12
    for values, directions in ((found.largest, found.largest_directions), (found.smallest, found.smallest_directions)):
        vectors = np.concatenate([directions["a"].reshape(4, -1), directions["b"]], axis=1)
        np.testing.assert_allclose(vectors @ matrix, values[:, None] * vectors, rtol=0, atol=1e-12)
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), rtol=0, atol=1e-13)


def test_errors_bound_what_is_not_converged():
    """Eight vectors find 90 and 40, and not yet -2."""
    found = loss_curvature(quadratic_loss(), point(), k=2, iterations=8)
    for value, error in zip(
        np.concatenate([found.largest, found.smallest]),
        np.concatenate([found.largest_error, found.smallest_error]),
        strict=True,
    ):
        assert np.abs(SPECTRUM - value).min() <= error + 1e-12
    assert found.largest_error.max() < 1e-2 < found.smallest_error[1]


def test_single_precision_stays_single():
    found = loss_curvature(quadratic_loss(dtype=np.float32), point(dtype=jnp.float32), k=1, iterations=20)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    np.testing.assert_allclose([found.largest[0], found.smallest[0]], [90.0, -7.0], rtol=0, atol=1e-4)


def test_ensembles():
    matrices = jnp.stack([jnp.diag(jnp.asarray([9.0, -3.0, 4.0])), jnp.diag(jnp.asarray([-5.0, 2.0, 0.0]))])
    found = jax.vmap(lambda matrix: loss_curvature(lambda x: x @ matrix @ x / 2, jnp.ones(3)))(matrices)
    np.testing.assert_allclose(found.largest, [[9.0], [2.0]], rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.smallest, [[-3.0], [-5.0]], rtol=0, atol=1e-13)


def test_recurrent_network_against_its_dense_hessian():
    def loss(params):
        def step(h, x):
            return jnp.tanh(params["kernel"] @ x + params["recurrent_kernel"] @ h), None

        h, _ = jax.lax.scan(step, jnp.zeros(3), jnp.asarray(np.random.default_rng(1).normal(size=(12, 2))))
        return jnp.sum((h - jnp.asarray([0.5, -0.2, 0.1])) ** 2)

    generator = np.random.default_rng(0)
    params = {"kernel": generator.normal(size=(3, 2)), "recurrent_kernel": 1.2 * generator.normal(size=(3, 3))}
    params = jax.tree.map(jnp.asarray, params)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    dense = np.linalg.eigvalsh(jax.jit(jax.hessian(lambda flat: loss(unravel(flat))))(flat))
    found = loss_curvature(loss, params, k=3)
    np.testing.assert_allclose(found.largest, dense[::-1][:3], rtol=0, atol=1e-12 * np.abs(dense).max())
    np.testing.assert_allclose(found.smallest, dense[:3], rtol=0, atol=1e-12 * np.abs(dense).max())


def test_a_loss_that_is_not_finite_gives_nan():
    found = loss_curvature(lambda x: jnp.sum(jnp.log(x)), jnp.zeros(3))
    assert np.isnan(found.largest).all()
    assert np.isnan(found.smallest).all()


# Slices: x_t = w sigma(x_{t-1}) + b, x_0 = 0.5, (sigma(x_50) - 0.7)^2 (Pascanu, Mikolov and Bengio 2013, section 2.3)


def sigma(x):
    return 1 / (1 + np.exp(-x))


def one_unit(params):
    def step(_, x):
        return params["w"] * jax.nn.sigmoid(x) + params["b"]

    return (jax.nn.sigmoid(jax.lax.fori_loop(0, 50, step, jnp.float64(0.5))) - 0.7) ** 2


def one_unit_by_hand(w, b):
    """The loss and its derivatives by w and b, from the recursion of each."""
    x, by_w, by_b = np.full_like(w, 0.5), np.zeros_like(w), np.zeros_like(w)
    for _ in range(50):
        slope = w * sigma(x) * (1 - sigma(x))
        x, by_w, by_b = w * sigma(x) + b, sigma(x) + slope * by_w, 1 + slope * by_b
    pull = 2 * (sigma(x) - 0.7) * sigma(x) * (1 - sigma(x))
    return (sigma(x) - 0.7) ** 2, pull * by_w, pull * by_b


W, B = {"w": jnp.float64(1), "b": jnp.float64(0)}, {"w": jnp.float64(0), "b": jnp.float64(1)}
THETA = {"w": jnp.float64(5), "b": jnp.float64(-2.5)}


def test_plane_of_one_unit():
    extents = [jnp.linspace(-0.6, 0.6, 9), jnp.linspace(-0.4, 0.4, 7)]
    plane = loss_slice(one_unit, THETA, [W, B], extents)
    expected = one_unit_by_hand(*np.meshgrid(5 + extents[0], -2.5 + extents[1], indexing="ij"))
    np.testing.assert_allclose(plane.loss, expected[0], rtol=1e-11)
    np.testing.assert_allclose(plane.slope, np.stack(expected[1:]), rtol=1e-9, atol=1e-18)


def test_cliff_of_one_unit():
    """Where x_0 = 0.5 is the unstable fixed point, the slope is a geometric sum of 50 powers of its multiplier."""
    w, s = 5.0, sigma(0.5)
    theta = {"w": jnp.float64(w), "b": jnp.asarray(0.5 - w * s)}
    line = loss_slice(one_unit, theta, [W], [jnp.linspace(-0.2, 0.2, 41)])
    multiplier = w * s * (1 - s)
    wall = 2 * (s - 0.7) * s * (1 - s) * s * (multiplier**50 - 1) / (multiplier - 1)
    assert wall < -300
    np.testing.assert_allclose(line.slope[0, 20], wall, rtol=1e-9)
    assert np.abs(line.slope[0, :15]).max() < 1, "flat ground before the wall"
    assert np.abs(line.slope[0, 26:]).max() < 1, "and behind it"
    jump = np.abs(np.diff(line.loss))
    assert jump[18:22].max() > 20 * jump[:15].max()


BAD = [
    (partial(loss_curvature, one_unit, THETA, k=3), "k must be between 1 and the number of parameters 2, got 3"),
    (partial(loss_curvature, one_unit, THETA, k=2, iterations=1), "iterations must be at least k = 2, got 1"),
    (partial(loss_curvature, jnp.sin, jnp.ones(3)), r"loss must return a scalar, got shape \(3,\)"),
    (partial(loss_curvature, jnp.sum, jnp.arange(3)), r"floating point arrays alone, got \['int"),
    (partial(loss_slice, one_unit, THETA, [], []), "one or two, with extents for each, got 0 and 0"),
    (partial(loss_slice, one_unit, THETA, [W], []), "one or two, with extents for each, got 1 and 0"),
    (partial(loss_slice, one_unit, THETA, [jnp.ones(2)], [jnp.ones(2)]), "directions must be like the parameters"),
    (partial(loss_slice, one_unit, THETA, [W], [jnp.ones(())]), r"extents must be offsets \[S\] for each direction"),
]


@pytest.mark.parametrize(("call", "sentence"), BAD, ids=range(len(BAD)))
def test_bad_arguments_get_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
