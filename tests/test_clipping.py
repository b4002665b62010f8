"""Clipping by the global norm, and the report of what it did; for the other ways see test_ways_of_clipping.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from largest_so_far import assert_trees_close, assert_trees_equal, norm_of

from rnn_dynamics.training import ClipReport, clip_by_global_norm, clip_report
from rnn_dynamics.training.clipping import global_norm


def clip(threshold, gradient, state=None):
    transformation = clip_by_global_norm(threshold)
    return transformation.update(gradient, transformation.init(gradient) if state is None else state)


SHAPES = st.sampled_from([(), (3,), (2, 4)])  # few, because JAX compiles for each
TREES = st.recursive(
    st.builds(lambda shape, seed: (shape, seed), SHAPES, st.integers(0, 99)),
    lambda below: st.lists(below, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, min_size=1),
    max_leaves=4,
)


def drawn(tree, scale):
    """Replace each (shape, seed) by an array."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(scale * np.random.default_rng(leaf[1]).normal(size=leaf[0])),
        tree,
        is_leaf=lambda node: isinstance(node, tuple),
    )


@settings(max_examples=40)
@given(tree=TREES, magnitude=st.integers(-120, 120), relative=st.floats(0.01, 100))
def test_clipped_norm_is_the_smaller_of_norm_and_threshold(tree, magnitude, relative):
    gradient = drawn(tree, 10.0**magnitude)
    norm = norm_of(gradient)
    threshold = float(relative * norm)
    assume(abs(relative - 1) > 1e-9)
    clipped, _ = clip(threshold, gradient)
    np.testing.assert_allclose(norm_of(clipped), min(norm, threshold), rtol=1e-12)
    assert_trees_close(
        jax.tree.map(lambda leaf: leaf / min(norm, threshold), clipped),
        jax.tree.map(lambda leaf: leaf / norm, gradient),
        atol=1e-13,
    )
    if relative > 1:
        assert_trees_equal(clipped, gradient)
    theirs, _ = optax.clip_by_global_norm(threshold).update(gradient, optax.EmptyState())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), clipped, theirs)


@pytest.mark.parametrize("size", [1e25, 1e-25, 0.0])
def test_norm_neither_overflows_nor_vanishes(size):
    """Its square does, in single precision."""
    gradient = {"a": jnp.full((2, 2), size, jnp.float32), "b": jnp.full(5, -size, jnp.float32)}
    norm = global_norm(gradient)
    assert norm.dtype == jnp.float32
    assert float(norm) == pytest.approx(3 * size, rel=1e-6)
    clipped, state = clip(2.0, gradient)
    assert float(global_norm(clipped)) == pytest.approx(min(2.0, 3 * size), rel=1e-6)
    assert clip_report(state).share == (size > 1)


def test_leaves_keep_their_dtypes():
    gradient = [jnp.full(3, 4.0, dtype) for dtype in (jnp.bfloat16, jnp.float32, jnp.float64)]
    clipped, _ = clip(6.0, gradient)
    assert [leaf.dtype for leaf in clipped] == [leaf.dtype for leaf in gradient]
    np.testing.assert_allclose([leaf.astype(jnp.float64) for leaf in clipped], np.full((3, 3), 2.0), rtol=1e-2)


def test_report_counts_and_averages():
    state, nothing = clip_by_global_norm(2.0).init(jnp.zeros(2)), jnp.zeros(2)
    before = clip_report(state)
    assert before.updates == 0
    assert np.isnan(before.share)
    assert before.mean_factor == 1.0
    for norm in (1.0, 4.0, 8.0, 2.0):  # factors: none, 1/2, 1/4, none: a norm of just the threshold is not shortened
        _, state = clip(2.0, nothing.at[1].set(norm), state)
    report = clip_report(state)
    assert (report.updates, report.share) == (4, 0.5)
    assert report.mean_factor == pytest.approx(np.sqrt(1 / 2 * 1 / 4), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_gradient_passes(bad):
    gradient = {"a": jnp.array([3.0, bad]), "b": jnp.array([40.0])}
    clipped, state = clip(2.0, gradient)
    assert_trees_equal(clipped, gradient)
    assert clip_report(state) == ClipReport(updates=1, share=0.0, mean_factor=1.0, mean_angle=0.0)
    _, state = clip(2.0, {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}, state)  # and spoils no later count
    assert clip_report(state).mean_factor == pytest.approx(2 / 5)


def test_clipping_in_a_compiled_chain():
    optimizer = optax.chain(clip_by_global_norm(1.0), optax.sgd(0.5))
    params = {"w": jnp.zeros(2)}
    state = optimizer.init(params)
    for gradient in ([3.0, 4.0], [0.0, 0.1]):
        updates, state = jax.jit(optimizer.update)({"w": jnp.array(gradient)}, state)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], [-0.3, -0.45], rtol=0, atol=1e-15)
    report = clip_report(state)
    assert (report.updates, report.share, report.mean_factor) == (2, 0.5, pytest.approx(0.2))


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_bad_threshold(threshold):
    with pytest.raises(ValueError, match=f"^threshold must be a number > 0, got {threshold}$"):
        clip_by_global_norm(threshold)


@pytest.mark.parametrize("number", [0, 2])
def test_report_needs_one_clipping(number):
    optimizer = optax.chain(*[clip_by_global_norm(1.0)] * number, optax.adam(0.1))
    with pytest.raises(ValueError, match=f"must hold one clipping transformation, found {number}"):
        clip_report(optimizer.init(jnp.zeros(2)))
