"""Every way of clipping and its books, against plain NumPy; what only the global norm does is in test_clipping.py."""

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
from largest_so_far import assert_trees_equal, norm_of
from networks import slow_but

from rnn_dynamics.training import CLIPPINGS, clip_report, clip_states, make_clipping
from rnn_dynamics.training.clipping import (
    angle_between,
    clip_by_global_norm,
    clip_by_percentile,
    clip_by_unit_ratio,
    clip_by_value,
)

WAYS = [name for name in CLIPPINGS if name != "none"]
SHAPES = {"number": (), "packed": {"bias": (4,), "kernel": (2, 3, 4)}}
UPDATES, SPOILT = 7, 3


def random_tree(seed, scale=1.0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: scale * generator.normal(size=shape), SHAPES, is_leaf=lambda node: isinstance(node, tuple)
    )


PARAMS = jax.tree.map(jnp.asarray, random_tree(100) | {"number": np.zeros(())})  # whose norm is taken to be eps
GRADIENTS = [random_tree(seed, scale) for seed, scale in enumerate([1.0, 3.0, 0.2, 1.0, 1e-3, 8.0, 2.0])]
GRADIENTS[SPOILT]["packed"]["kernel"][1, 2, 0] = np.nan


def drawn(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def to_length(entries, length):
    return entries * (length / np.linalg.norm(entries))


def at_most(entries, limit):
    return to_length(entries, limit) if np.linalg.norm(entries) > limit else entries


def together(length_of):
    """Bring the whole tree to the length that its norm asks for."""

    def clipped(gradient, threshold, norms):
        norm = norm_of(gradient)
        return jax.tree.map(lambda leaf: leaf * (length_of(norm, threshold, norms) / norm), gradient)

    return clipped


def by_units(gradient, threshold, norms):
    def clipped(leaf, weights):
        leaf, weights = np.array(leaf), np.asarray(weights)
        if leaf.ndim < 2:
            return at_most(leaf, threshold * max(np.linalg.norm(weights), 1e-3))
        for unit in range(leaf.shape[-1]):
            limit = threshold * max(np.linalg.norm(weights[..., unit]), 1e-3)
            leaf[..., unit] = at_most(leaf[..., unit], limit)
        return leaf

    return jax.tree.map(clipped, gradient, PARAMS)


# Way -> thresholds, and (gradient, threshold, norms of the finite gradients until now, this one too) -> clipped.
BY_HAND = {
    "global_norm": ([0.5, 7.0, np.inf], together(lambda norm, c, norms: min(norm, c))),
    "value": ([0.05, 1.5, np.inf], lambda g, c, norms: jax.tree.map(lambda leaf: np.clip(leaf, -c, c), g)),
    "parameter_norm": ([0.1, 3.0, np.inf], lambda g, c, norms: jax.tree.map(lambda leaf: at_most(leaf, c), g)),
    "unit_ratio": ([0.1, 2.0, np.inf], by_units),
    "percentile": ([0.0, 37.0, 100.0], together(lambda norm, p, norms: min(norm, np.percentile(norms, p)))),
    "normalising": ([0.1, 1.0, 50.0], together(lambda norm, c, norms: c)),
}


def angle_by_hand(a, b):
    """By the arc cosine, which is as exact as the angles are large."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))


@partial(jax.jit, static_argnums=0)
@partial(jax.vmap, in_axes=(None, 0, 0))
def run(name, threshold, gradients):
    """Clip one gradient after another [T, ...]: the clipped ones and the states, for all thresholds at once."""
    clipping = make_clipping(name, threshold)

    def step(state, gradient):
        clipped, state = clipping.update(gradient, state, PARAMS)
        return state, (clipped, state)

    return jax.lax.scan(step, clipping.init(PARAMS), gradients)[1]


@pytest.mark.parametrize("name", slow_but(("global_norm", "value", "unit_ratio", "percentile"), WAYS))
def test_against_numpy_for_all_thresholds_at_once(name):
    """Gradients, sums of the report (in single precision) and the latest event; the fourth gradient is not finite."""
    thresholds, by_hand = BY_HAND[name]
    gradients = jax.tree.map(lambda *leaves: np.stack([np.stack(leaves)] * len(thresholds)), *GRADIENTS)
    found = jax.tree.map(np.asarray, run(name, jnp.array(thresholds), gradients))
    for number, threshold in enumerate(thresholds):
        norms, events = [], []
        for t, gradient in enumerate(GRADIENTS):
            clipped, state = jax.tree.map(itemgetter((number, t)), found)
            if t == SPOILT:
                assert_trees_equal(clipped, gradient)
                assert state.latest == (False, 1, 0)
                continue
            norms.append(norm_of(gradient))
            expected = by_hand(gradient, threshold, norms)
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13, atol=0), clipped, expected)
            factor, angle = norm_of(expected) / norms[-1], angle_by_hand(expected, gradient)
            events.append((abs(factor - 1) > 1e-9, np.log(factor), angle))
            assert state.latest.clipped == events[-1][0]
            np.testing.assert_allclose(state.latest.factor, factor, rtol=1e-7, atol=0)
            np.testing.assert_allclose(state.latest.angle, angle, rtol=1e-7, atol=5e-8)
            assert state.updates == t + 1
            np.testing.assert_allclose(state[1:4], np.sum(events, axis=0), rtol=1e-6, atol=5e-7)
    if name in ("global_norm", "percentile", "normalising"):
        np.testing.assert_array_equal(found[1].turning, 0)
    if name != "percentile":  # whose threshold follows the norms
        again, _ = run(name, jnp.array(thresholds), found[0])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-14, atol=0), again, found[0])


def test_every_way_is_there():
    assert set(BY_HAND) == set(WAYS)


def test_units_are_those_of_optax():
    """Where theirs are: of the kernels of layers, and of vectors."""
    trees = [{name: drawn(seed, shape) for name, shape in (("bias", 4), ("kernel", (3, 4)))} for seed in (0, 1)]

    def clipped(clipping):
        return clipping.update(trees[0], clipping.init(trees[1]), trees[1])[0]

    ours, theirs = jax.jit(lambda: (clipped(clip_by_unit_ratio(0.3)), clipped(optax.adaptive_grad_clip(0.3))))()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13, atol=0), ours, theirs)


def test_percentiles_forget_what_left_the_window():
    sizes = np.random.default_rng(0).exponential(size=12)
    clipping = clip_by_percentile(30.0, window=4)
    update = jax.jit(clipping.update)
    state = clipping.init(jnp.zeros(1))
    for t, size in enumerate(sizes):
        clipped, state = update(jnp.array([size]), state)
        limit = np.percentile(sizes[max(0, t - 3) : t + 1], 30)
        np.testing.assert_allclose(clipped, [min(size, limit)], rtol=1e-14, atol=0)
        assert t > 0 or clipped[0] == size
    for _ in range(8):  # equal norms are equal to their percentile, to the last digit
        clipped, state = update(jnp.array([0.1]), state)
    assert (float(clipped[0]), bool(state.latest.clipped)) == (0.1, False)


def test_angles_in_high_precision():
    """Of (s, 0) and (cos a, sin a), split over two leaves, for small and large a and s; and of opposite vectors."""
    angles, scales = map(np.ravel, np.meshgrid([1e-12, 1e-5, 0.3, np.pi / 2, 3.0], [1e-25, 1.0, 1e25]))
    cosines, sines = np.cos(angles), np.sin(angles)

    @jax.jit
    @jax.vmap
    def angles_of(scale, cosine, sine):
        one, other = {"x": scale[None], "y": jnp.zeros(())}, {"x": cosine[None], "y": sine}
        return angle_between(one, other), angle_between(other, jax.tree.map(jnp.negative, other))

    found, opposite = angles_of(scales, cosines, sines)
    with mpmath.workdps(40):
        exact = [float(mpmath.atan2(sine, cosine)) for cosine, sine in zip(cosines, sines, strict=True)]
    np.testing.assert_allclose(found, exact, rtol=1e-15, atol=2e-16)
    np.testing.assert_allclose(opposite, np.pi, rtol=1e-15, atol=0)


def test_what_clipping_by_value_does():
    """(1, 1 + s) is cut to (1, 1): tan of the angle is s / (2 + s). A complex entry keeps its phase."""
    small = np.array([1e-3, 1.0])
    clipping, gradient = clip_by_value(1.0), jnp.stack([jnp.ones(2), 1 + small], axis=1)
    update = jax.jit(jax.vmap(lambda gradient: clipping.update(gradient, clipping.init(gradient))))
    clipped, state = update(gradient)
    np.testing.assert_array_equal(clipped, np.ones((2, 2)))
    report = clip_report(state)
    np.testing.assert_allclose(report.mean_angle, np.arctan(small / (2 + small)), rtol=1e-7, atol=0)
    np.testing.assert_allclose(report.mean_factor, np.sqrt(2 / (1 + (1 + small) ** 2)), rtol=1e-7, atol=0)
    clipped, _ = update(jnp.array([[3 + 4j, 0.3 - 0.4j]]))
    np.testing.assert_allclose(clipped, [[0.6 + 0.8j, 0.3 - 0.4j]], rtol=1e-15, atol=0)


@pytest.mark.parametrize("name", sorted(set(WAYS) - {"percentile"}))
def test_ratios_that_single_precision_cannot_hold(name):
    """From 3e38 to 1e-3, a factor of 3e-42: gradient and logarithm of the factor are still right. Zeros stay."""
    clipping, params = make_clipping(name, 1e-3), jnp.array([1.0, 0.0, 0.0], jnp.float32)
    gradients = jnp.array([[3e38, 0.0, 0.0], [0.0, 0.0, 0.0]], jnp.float32)
    update = jax.jit(jax.vmap(lambda gradient: clipping.update(gradient, clipping.init(params), params)))
    clipped, state = update(gradients)
    np.testing.assert_allclose(clipped[0, 0], 1e-3, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(clipped[1], 0)
    np.testing.assert_array_equal(state.latest.clipped, [True, False])
    np.testing.assert_allclose(state.log_shrinkage, [np.log(1e-3) - np.log(3e38), 0], rtol=1e-6, atol=0)


def test_found_within_other_transformations():
    """Two gradients of 1 and 3 are averaged, whence 2; a threshold that the optimiser's state holds can be changed."""

    def averaged(threshold):
        optimizer = optax.MultiSteps(optax.chain(clip_by_global_norm(threshold), optax.sgd(1.0)), 2)
        state = optimizer.init(jnp.zeros(1))
        for size in (1.0, 3.0):
            _, state = optimizer.update(jnp.full(1, size), state)
        return state

    state = jax.jit(jax.vmap(averaged))(jnp.array([1.0, 0.5, 5.0]))
    assert len(clip_states(state)) == 1
    assert clip_states(state)[0].latest.factor.shape == (3,)
    report = clip_report(state)
    np.testing.assert_array_equal(report.updates, [1, 1, 1])
    np.testing.assert_array_equal(report.share, [1, 1, 0])
    np.testing.assert_allclose(report.mean_factor, [0.5, 0.25, 1], rtol=1e-7, atol=0)
    np.testing.assert_array_equal(report.mean_angle, [0, 0, 0])

    optimizer = optax.inject_hyperparams(clip_by_global_norm)(threshold=1.0)
    state = optimizer.init(jnp.zeros(1))
    state.hyperparams["threshold"] = jnp.asarray(2.0)
    clipped, state = jax.jit(optimizer.update)(jnp.full(1, 8.0), state)
    np.testing.assert_array_equal(clipped, [2.0])
    np.testing.assert_allclose(clip_report(state).mean_factor, 0.25, rtol=1e-7, atol=0)


def test_none_is_no_clipping():
    clipping, gradient = make_clipping("none", 1.0), jnp.array([5.0])
    clipped, state = clipping.update(gradient, clipping.init(gradient))
    assert clipped is gradient
    assert clip_states(state) == ()


@pytest.mark.parametrize(
    ("name", "threshold", "sentence"),
    [(name, bad, f"threshold must be a number > 0, got {bad}")
     for name in ("value", "global_norm", "parameter_norm", "unit_ratio") for bad in (0.0, -1.0, np.nan)]
    + [("normalising", bad, f"threshold must be a finite number > 0, got {bad}") for bad in (0.0, np.nan, np.inf)]
    + [("percentile", bad, f"threshold must be a percentile in 0 ... 100, got {bad}") for bad in (-1.0, 100.1, np.nan)]
    + [("globalnorm", 1.0, "unknown clipping 'globalnorm': did you mean global_norm")],
)  # fmt: skip
def test_bad_thresholds_get_one_sentence(name, threshold, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        make_clipping(name, threshold)


def test_other_bad_arguments_get_one_sentence():
    with pytest.raises(ValueError, match=r"^eps must be a finite number > 0, got 0.0"):
        clip_by_unit_ratio(0.1, eps=0.0)
    with pytest.raises(ValueError, match=r"^window must be a whole number >= 1, got 0"):
        clip_by_percentile(10.0, window=0)
    clipping = clip_by_unit_ratio(0.1)
    with pytest.raises(ValueError, match=r"^params must be given to the update of clip_by_unit_ratio, got None"):
        clipping.update(jnp.ones(2), clipping.init(jnp.ones(2)))
