"""What an update does, besides the plain gradient: penalties, weight noise, accumulation, rules of one's own."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from largest_so_far import TASK, assert_trees_close, classifier, cross_entropy, parameters

from rnn_dynamics.training import (
    LossGradient,
    Recipe,
    TrainingConfig,
    backpropagate,
    clip_each_step,
    make_clipping,
    train,
)

RATE = 0.1


def losses(model, batch):
    return cross_entropy(model(batch.inputs, batch.lengths), batch.targets)


def mean_loss(model, batch):
    return jnp.mean(losses(model, batch))


def size(model, batch):
    """Half the sum of squares: its slope is the parameters themselves."""
    return 0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def decayed(weight):
    return Recipe(optax.sgd(RATE), penalties={"size": (weight, size)})


def first_batch(seed=0, batch_size=8):
    return next(TASK.batches("train", batch_size, seed=seed, epochs=None))


def gradient(model, batch):
    return nnx.to_pure_dict(nnx.grad(lambda model: mean_loss(model, batch))(model))


def test_penalties_are_added_with_their_weights():
    model, same = classifier(), classifier()
    record = train(model, TASK, decayed, TrainingConfig(1, 8), numbers={"weight": 0.3})
    before, slope = parameters(same), gradient(same, first_batch())
    expected = jax.tree.map(lambda w, g: w - RATE * (g + 0.3 * w), before, slope)
    assert_trees_close(parameters(model), expected, atol=1e-14)
    np.testing.assert_allclose(record.series["penalty_size"], [size(same, None)], rtol=1e-14, atol=0)
    np.testing.assert_allclose(record.loss, [mean_loss(same, first_batch())], rtol=1e-14, atol=0)


def test_only_the_penalty_counts_where_the_rule_drops_the_loss():
    def no_gradient(loss, model, batch):
        zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
        return LossGradient(loss(model, batch), zeros, {"asked": jnp.float32(7)})

    model, same = classifier(), classifier()
    recipe = Recipe(optax.sgd(RATE), no_gradient, {"size": (1.0, size)})
    record = train(model, TASK, recipe, TrainingConfig(2, 8))
    expected = jax.tree.map(lambda w: (1 - RATE) ** 2 * w, parameters(same))
    assert_trees_close(parameters(model), expected, atol=1e-14)
    assert record.series["asked"].tolist() == [7, 7]


def test_weight_noise_moves_where_the_gradient_is_taken_and_not_what_is_updated():
    def noisy(deviation):
        return Recipe(optax.sgd(RATE), weight_noise=deviation)

    def after(deviation, seed=0):
        model = classifier()
        record = train(model, TASK, noisy, TrainingConfig(1, 8, seed), numbers={"deviation": deviation})
        return parameters(model), record

    still, record = after(0.0)
    assert_trees_close(still, parameters_after_one(), atol=1e-14)
    # An infinitesimal noise moves the update in proportion: what is updated itself has none.
    by_little, by_twice = (after(deviation)[0] for deviation in (1e-6, 2e-6))
    moved = [np.concatenate([np.ravel(a - b) for a, b in pairs(tree, still)]) for tree in (by_little, by_twice)]
    assert 0 < np.abs(moved[0]).max() < 1e-6
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=0, atol=1e-10)
    assert np.any(record.loss != after(0.1)[1].loss)


def parameters_after_one():
    plain = classifier()
    train(plain, TASK, Recipe(optax.sgd(RATE)), TrainingConfig(1, 8))
    return parameters(plain)


def pairs(a, b):
    return zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)


@pytest.mark.slow
def test_accumulated_batches_are_one_large_batch():
    """Two batches of 8 from the same order make one update of their mean gradient."""
    model, same = classifier(), classifier()
    record = train(model, TASK, Recipe(optax.adam(RATE)), TrainingConfig(4, 8, accumulate=2))
    optimizer = optax.adam(RATE)
    state = optimizer.init(nnx.state(same, nnx.Param))
    batches = TASK.batches("train", 8, seed=0, epochs=None)
    for _ in range(2):
        slopes = [nnx.grad(mean_loss)(same, next(batches)) for _ in range(2)]
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *slopes)
        updates, state = optimizer.update(mean, state, nnx.state(same, nnx.Param))
        nnx.update(same, optax.apply_updates(nnx.state(same, nnx.Param), updates))
    assert_trees_close(parameters(model), parameters(same), atol=1e-12)
    assert record.loss.shape == (4,)


def test_the_plain_rule_is_the_gradient_of_the_mean():
    model, batch = classifier(), first_batch()
    made = backpropagate(losses, model, batch)
    assert_trees_close(nnx.to_pure_dict(made.gradient), gradient(model, batch), atol=1e-15)
    assert made.losses.shape == (8,)
    assert made.report == {}


def test_two_clippings_of_a_chain_are_told_apart():
    recipe = Recipe(optax.chain(make_clipping("global_norm", 1e-3), optax.sgd(1.0), make_clipping("value", 1e-5)))
    record = train(classifier(), TASK, recipe, TrainingConfig(3, 8))
    assert record.clipping is not None
    assert record.clipping.share == 1
    np.testing.assert_allclose(record.series["clip_factor"] * record.gradient_norm, 1e-3, rtol=1e-5, atol=0)
    assert np.all(record.series["clipped_2"] == 1)
    assert np.all(record.series["clip_angle_2"] > 0.01)


def test_batches_that_only_add_to_an_update_tell_of_no_clipping():
    recipe = Recipe(optax.chain(make_clipping("global_norm", 1e-3), optax.sgd(0.1)))
    record = train(classifier(), TASK, recipe, TrainingConfig(4, 8, accumulate=2))
    np.testing.assert_array_equal(record.series["clipped"], [np.nan, 1, np.nan, 1])
    with pytest.raises(ValueError, match=r"^steps must be at least accumulate = 4 for one update, got 3$"):
        TrainingConfig(3, 8, accumulate=4)


class Complex(nnx.Module):
    """A complex number, whose distance from another one is the loss."""

    def __init__(self):
        self.number = nnx.Param(jnp.asarray(1 + 2j))

    def __call__(self, inputs, lengths):
        return jnp.broadcast_to(jnp.abs(self.number[...] - (3 - 1j)) ** 2, (len(inputs), 1))


class Itself(type(TASK)):
    loss = staticmethod(lambda outputs, targets: outputs[:, 0])


def test_complex_parameters_go_downhill_in_both_parts():
    model = Complex()
    train(model, Itself(), Recipe(optax.sgd(0.1)), TrainingConfig(60, 8))
    assert abs(complex(model.number[...]) - (3 - 1j)) < 1e-4


def test_half_precision_trains_with_numbers_in_single():
    model = classifier(dtype=jnp.bfloat16)
    record = train(model, TASK, decayed, TrainingConfig(2, 8), numbers={"weight": 0.3})
    assert np.isfinite(record.loss).all()
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype(jnp.bfloat16)}


class Ends(type(TASK)):
    """Batches of a task that has only so many of them."""

    def batches(self, split, batch_size, *, seed=None, epochs=1):
        yield from itertools.islice(super().batches(split, batch_size, seed=seed, epochs=epochs), 3)


def test_batches_that_end_too_soon_get_one_sentence():
    sentence = r"^the task must yield a batch for every one of 5 steps, it ended after 3$"
    with pytest.raises(ValueError, match=sentence):
        train(classifier(), Ends(), Recipe(optax.sgd(0.1)), TrainingConfig(5, 8))


def test_what_is_no_recipe_gets_one_sentence():
    config = TrainingConfig(1, 8)
    with pytest.raises(TypeError, match=r"^recipe must make a Recipe, got GradientTransformation.*write Recipe"):
        train(classifier(), TASK, lambda: optax.adam(0.1), config)
    with pytest.raises(TypeError, match=r"^penalties must be name -> .weight, penalty., got function for 'size'$"):
        Recipe.__post_init__(types.SimpleNamespace(**{**vars(Recipe(optax.sgd(0.1))), "penalties": {"size": size}}))
    with pytest.raises(TypeError, match=r"^optimizer must be a transformation of optax, got partial; a rule"):
        Recipe.__post_init__(types.SimpleNamespace(optimizer=clip_each_step(1.0)))
