"""Singular values kept within a band: the nearest matrix, in a chain, of an ensemble, and what is left alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from largest_so_far import classifier
from networks import slow_but

from rnn_dynamics.training import constrain_singular_values, constrain_spectral_norm
from rnn_dynamics.training.recurrent_blocks import square_blocks


def params_of(name, seed=0, dtype=jnp.float64):
    return nnx.state(classifier(name, seed=seed, dtype=dtype), nnx.Param)


def updated(params, transformation, rate=0.3):
    """Parameters after one update by a gradient that is they themselves, turned round; and without the constraint."""
    gradient = jax.tree.map(lambda leaf: leaf[..., ::-1], params)

    def after(optimizer):
        return optax.apply_updates(params, optimizer.update(gradient, optimizer.init(params), params)[0])

    return after(optax.chain(optax.sgd(rate), transformation)), after(optax.sgd(rate))


def kernel(params):
    return params["recurrence"]["cell"]["recurrent_kernel"][...]


@pytest.mark.parametrize("name", slow_but(("ElmanCell",), ("ElmanCell", "LSTMCell")))
def test_the_nearest_matrix_within_the_band(name):
    """By NumPy's SVD of each gate's columns; all else is updated as ever."""
    after, free = updated(params_of(name), constrain_singular_values(0.3, 0.8))
    blocks, free_blocks = (
        np.split(np.array(kernel(params)), kernel(params).shape[1] // 4, axis=1) for params in (after, free)
    )
    free_sizes = np.linalg.svd(free_blocks, compute_uv=False)
    assert free_sizes.min() < 0.3
    assert free_sizes.max() > 0.8
    for block, free_block in zip(blocks, free_blocks, strict=True):
        left, sizes, right = np.linalg.svd(free_block)
        np.testing.assert_allclose(block, left @ np.diag(np.clip(sizes, 0.3, 0.8)) @ right, rtol=0, atol=1e-14)
    for path, leaf in nnx.to_flat_state(after):
        if path[-1] != "recurrent_kernel":
            np.testing.assert_array_equal(leaf[...], dict(nnx.to_flat_state(free))[path][...])


@pytest.mark.slow
def test_a_bound_in_single_precision():
    """Rounding leaves some units in the last digit of 0.9: 2^-24 each."""
    after, free = updated(params_of("GRUCell", dtype=jnp.float32), constrain_spectral_norm(0.9))
    assert kernel(after).dtype == jnp.float32
    sizes = np.linalg.svd(np.array(square_blocks(kernel(after)), np.float64), compute_uv=False)
    np.testing.assert_array_less(sizes, 0.9 + 8 * 2.0**-24)
    free_sizes = np.linalg.svd(np.array(square_blocks(kernel(free)), np.float64), compute_uv=False)
    np.testing.assert_allclose(sizes[free_sizes < 0.9], free_sizes[free_sizes < 0.9], rtol=0, atol=8 * 2.0**-24)


@pytest.mark.slow
def test_margin_0_is_orthogonal():
    after, _ = updated(params_of("ElmanCell"), constrain_singular_values(1.0, 1.0))
    np.testing.assert_allclose(kernel(after).T @ kernel(after), np.eye(4), rtol=0, atol=1e-14)


@pytest.mark.slow
def test_an_ensemble_with_bounds_of_its_own():
    members = [params_of("LSTMCell", seed) for seed in range(2)]
    largest = jnp.array([0.7, 1.1])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(lambda params, bound: updated(params, constrain_spectral_norm(bound))[0]))(
        stacked, largest
    )
    for member, params in enumerate(members):
        expected, _ = updated(params, constrain_spectral_norm(float(largest[member])))
        jax.tree.map(
            lambda a, b, member=member: np.testing.assert_allclose(a[member], b, rtol=0, atol=1e-14), together, expected
        )


def test_plain_dictionaries_will_do():
    after, _ = updated({"recurrent_kernel": 2 * jnp.eye(3), "kernel": 2 * jnp.eye(3)}, constrain_spectral_norm(1.0))
    np.testing.assert_allclose(np.linalg.norm(after["recurrent_kernel"], 2), 1, rtol=1e-14, atol=0)
    assert np.linalg.norm(after["kernel"], 2) > 1


@pytest.mark.parametrize(
    ("least", "largest", "sentence"),
    [
        (-1.0, 1.0, "least must be a finite number >= 0, got -1.0"),
        (0.0, 0.0, "largest must be a finite number > 0, got 0.0"),
        (0.0, np.inf, "largest must be a finite number > 0, got inf"),
        (1.2, 0.8, "least must not exceed largest = 0.8, got 1.2"),
    ],
)
def test_bad_bounds(least, largest, sentence):
    with pytest.raises(ValueError, match=sentence):
        constrain_singular_values(least, largest)


def test_bad_parameters():
    transformation = constrain_spectral_norm(1.0)
    with pytest.raises(ValueError, match="params must hold one that is called recurrent_kernel, found none"):
        transformation.init({"kernel": jnp.eye(2)})
    with pytest.raises(ValueError, match="params must be given to the update of constrain_singular_values, got None"):
        transformation.update({"recurrent_kernel": jnp.eye(2)}, optax.EmptyState())
    with pytest.raises(ValueError, match=r"recurrent_kernel must be square blocks .*, got shape \(2, 3\)"):
        updated({"recurrent_kernel": jnp.ones((2, 3))}, transformation)
