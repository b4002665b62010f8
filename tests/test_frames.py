"""The QR behind a spectrum: the fast way, what it loses and mends, and when Householder takes over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import noise

from rnn_dynamics.dynamics import frames
from rnn_dynamics.dynamics.frames import LOSS_OF_ORTHOGONALITY, fast_spread

reframe = jax.jit(frames.reframe)


def tangents_of_spread(spread, vectors=40, size=48, seed=0):
    """Tangents [K, N] that lie along those before them, as a network's do, with R_ii that fall by `spread` nats."""
    keys = jax.random.split(jax.random.key(seed), 2)
    frame = frames.householder(jax.random.normal(keys[0], (vectors, size), jnp.float64))[0]
    diagonal = jnp.exp(-spread * jnp.arange(vectors) / (vectors - 1))
    triangle = jnp.triu(0.3 * jax.random.normal(keys[1], (vectors, vectors), jnp.float64), 1) * diagonal[:, None]
    return (triangle + jnp.diag(diagonal)).T @ frame


def loss(frame):
    return float(jnp.linalg.norm(frame @ frame.T - jnp.eye(len(frame)), 2))


@pytest.mark.parametrize("vectors", [12, 40])
@pytest.mark.parametrize("spread", [0.0, 6.0, 12.0, 20.0])
@pytest.mark.slow
def test_tangents_are_the_product_of_the_factors(spread, vectors):
    """Also where the frame is far from orthogonal: R is taken from the product itself, as Q Z^T = (Q Q^T) R."""
    tangents = tangents_of_spread(spread, vectors)
    reframed = reframe(tangents, jnp.float64(0.0))
    assert loss(reframed.frame) <= LOSS_OF_ORTHOGONALITY
    triangle = jnp.linalg.solve(reframed.frame @ reframed.frame.T, reframed.frame @ tangents.T)
    np.testing.assert_allclose(jnp.tril(triangle, -1), 0, rtol=0, atol=1e-13 * vectors)
    np.testing.assert_allclose(reframed.frame.T @ triangle, tangents.T, rtol=0, atol=1e-13 * vectors)
    np.testing.assert_allclose(
        jnp.abs(jnp.diagonal(triangle)), jnp.exp(reframed.log_growth), rtol=0, atol=1e-13 * vectors
    )


@pytest.mark.parametrize("spread", [0.0, 6.0, 12.0])
def test_both_ways_agree_while_the_fast_one_is_used(spread):
    tangents = tangents_of_spread(spread)
    fast, slow = reframe(tangents, jnp.float64(0.0)), reframe(tangents, jnp.float64(jnp.inf))
    # What a frame lacks in orthogonality moves R by as much, and the next R back.
    allowed = 10 * loss(fast.frame) + 1e-13 * np.exp(spread)
    assert loss(slow.frame) < 1e-14
    assert spread == 0 or loss(fast.frame) > loss(slow.frame)
    np.testing.assert_allclose(fast.log_growth, slow.log_growth, rtol=0, atol=allowed)
    np.testing.assert_allclose(fast.spread, slow.spread, rtol=0, atol=allowed)


def test_what_a_frame_lacks_is_in_the_next_triangle():
    """The diagonals of two triangles in a row multiply to that of the product, whatever the frame in between is."""
    first, second = tangents_of_spread(13.0), jax.random.normal(jax.random.key(3), (48, 48), jnp.float64)
    fast = reframe(first, jnp.float64(0.0))
    assert loss(fast.frame) > 1e-10  # or there is nothing to see
    after = reframe(fast.frame @ second.T, jnp.float64(jnp.inf))
    exact = reframe(first @ second.T, jnp.float64(jnp.inf))
    np.testing.assert_allclose(
        fast.log_growth + after.log_growth, exact.log_growth, rtol=0, atol=1e-15 * np.exp(exact.spread)
    )


@pytest.mark.parametrize(
    ("tangents", "lost"),
    [
        (np.ones((3, 4)), [False, True, True]),
        (np.zeros((2, 3)), [True, True]),
        (tangents_of_spread(80.0, 12), [False] * 5 + [True] * 7),
    ],
)
def test_what_cannot_be_factored_fast_goes_to_householder(tangents, lost):
    reframed = reframe(jnp.asarray(tangents), jnp.float64(0.0))
    assert loss(reframed.frame) < 1e-14
    np.testing.assert_array_equal(reframed.log_growth == -jnp.inf, lost)
    assert reframed.spread == jnp.inf


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_lost_direction_is_never_taken_for_growth(dtype):
    """A second pass would make a frame of it all the same, with the rounding for its growth."""
    size, zero = 40, jnp.zeros((), dtype)
    lost = 0
    for seed in range(40):
        keys = jax.random.split(jax.random.key(seed), 2)
        left, values, right = np.linalg.svd(jax.random.normal(keys[0], (size, size), dtype))
        values[-1] = 0
        frame = frames.householder(jax.random.normal(keys[1], (size, size), dtype))[0]
        tangents = frame @ jnp.asarray((left * values) @ right, dtype).T
        found, by_householder = reframe(tangents, zero), reframe(tangents, zero + jnp.inf)
        np.testing.assert_array_equal(found.log_growth, by_householder.log_growth)
        lost += np.sum(np.isneginf(found.log_growth))
    assert lost >= 35  # the others are not singular any more once they are rounded


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_squares_of_lengths_may_leave_the_range(size):
    tangents = tangents_of_spread(3.0)
    reframed = reframe(size * tangents, jnp.float64(0.0))
    expected = reframe(tangents, jnp.float64(jnp.inf))
    np.testing.assert_allclose(reframed.log_growth, expected.log_growth + np.log(size), rtol=0, atol=1e-11)
    np.testing.assert_allclose(reframed.frame, expected.frame, rtol=0, atol=1e-13)


def test_single_precision():
    tangents = tangents_of_spread(4.0).astype(jnp.float32)
    reframed = reframe(tangents, jnp.float32(0.0))
    assert reframed.frame.dtype == reframed.log_growth.dtype == jnp.float32
    assert loss(reframed.frame.astype(jnp.float64)) < LOSS_OF_ORTHOGONALITY
    expected = reframe(tangents.astype(jnp.float64), jnp.float64(jnp.inf))
    np.testing.assert_allclose(reframed.log_growth, expected.log_growth, rtol=0, atol=LOSS_OF_ORTHOGONALITY)


def test_ensemble_takes_the_way_that_suits_all():
    easy, hard = tangents_of_spread(2.0), tangents_of_spread(fast_spread(jnp.float64) + 8)
    batch = jnp.stack([easy, hard])
    nested = jax.vmap(jax.vmap(reframe, in_axes=(0, None)), in_axes=(None, 0))(batch, jnp.zeros(3))
    for member, tangents in enumerate(batch):
        alone = reframe(tangents, jnp.float64(jnp.inf))
        for row in range(3):
            np.testing.assert_allclose(nested.log_growth[row, member], alone.log_growth, rtol=0, atol=1e-8)
            assert loss(nested.frame[row, member]) < 1e-14


@pytest.mark.slow
def test_derivatives_are_those_of_a_qr():
    tangents, direction = tangents_of_spread(1.0, 5, 7), noise(5, 7)

    def factored(tangents):
        reframed = reframe(tangents, jnp.float64(0.0))
        return reframed.frame, reframed.log_growth

    _, pushed = jax.jvp(factored, (tangents,), (direction,))
    step = 1e-6
    ahead, behind = factored(tangents + step * direction), factored(tangents - step * direction)
    for derivative, a, b in zip(pushed, ahead, behind, strict=True):
        np.testing.assert_allclose(derivative, (a - b) / (2 * step), rtol=0, atol=1e-7)
    gradient = jax.grad(lambda tangents: factored(tangents)[1].sum())(tangents)
    np.testing.assert_allclose(jnp.vdot(gradient, direction), pushed[1].sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lost", [0.0, 1.0], ids=["nothing", "a sum of the others"])
def test_a_direction_that_is_lost_spoils_no_derivative(lost):
    """The last of four: the others' derivatives are those without it, and it turns only to stay orthogonal."""
    tangents, direction = tangents_of_spread(1.0, 4, 5), noise(4, 5)
    tangents = tangents.at[3].set(lost * jnp.sum(tangents[:3], axis=0))
    (frame, _), (frame_dot, triangle_dot) = jax.jvp(frames.householder, (tangents,), (direction,))
    _, (others_dot, others_triangle_dot) = jax.jvp(frames.householder, (tangents[:3],), (direction[:3],))
    np.testing.assert_allclose(frame_dot[:3], others_dot, rtol=0, atol=1e-14)
    np.testing.assert_allclose(triangle_dot[:3, :3], others_triangle_dot, rtol=0, atol=1e-14)
    np.testing.assert_allclose(frame_dot @ frame.T, -(frame @ frame_dot.T), rtol=0, atol=1e-14)
    beside = frame_dot[3] - (frame_dot[3] @ frame.T) @ frame
    np.testing.assert_allclose(beside, 0, rtol=0, atol=1e-14)
