"""A tiny task, a tiny model that classifies it, and what tests of training compare."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from networks import any_cell

from rnn_dynamics.models import ManyToOne
from rnn_dynamics.training import Recipe, TrainingConfig, clip_by_global_norm, train
from rnn_dynamics.types import Batch

STEPS, FEATURES, CLASSES, WORDS = 5, 2, 3, 7


def cross_entropy(outputs, targets):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs), jnp.asarray(targets)[:, None], axis=1)[:, 0]


class LargestSoFar:
    """Which of three ranges the first feature's largest value lies in: a tiny task whose batches can be spoiled."""

    name, metric_name, chance_level = "largest_so_far", "accuracy", 0.4
    regime = "many_to_one"
    output_features, input_features, vocabulary_size = CLASSES, FEATURES, None
    loss = staticmethod(cross_entropy)  # one function for all, so that all trainings here share what is compiled

    def __init__(self, spoil=None, at_step=-1, dtype=np.float64):
        generator = np.random.default_rng(0)
        self.inputs = generator.normal(size=(25, STEPS, FEATURES)).astype(dtype)
        self.lengths = generator.integers(1, STEPS + 1, 25).astype(np.int32)
        largest = [x[:length, 0].max() for x, length in zip(self.inputs, self.lengths, strict=True)]
        self.targets = np.digitize(largest, [0.2, 0.9]).astype(np.int32)
        self.spoil, self.at_step = spoil, at_step

    def batches(self, split, batch_size, *, seed=None, epochs=1):
        order, step = np.arange(len(self.targets)), 0
        while epochs is None or step * batch_size < epochs * len(order):
            rows = order[step * batch_size : (step + 1) * batch_size]
            if seed is not None:
                rows = np.random.default_rng((seed, step)).choice(order, batch_size, replace=False)
            batch = Batch(self.inputs[rows], self.targets[rows], self.lengths[rows])
            yield self.spoil(batch) if step == self.at_step else batch
            step += 1

    def metric(self, outputs, targets):
        return (jnp.argmax(outputs, axis=-1) == targets).astype(jnp.float32)


TASK = LargestSoFar()


def classifier(name="ElmanCell", seed=0, dtype=jnp.float64, **options):
    cell = any_cell(name, hidden=4, seed=seed, dtype=dtype)
    return ManyToOne(cell, CLASSES, rngs=nnx.Rngs(seed + 1), **options)


def adam(learning_rate):
    return Recipe(optax.adam(learning_rate))


def clipped_adam(learning_rate, threshold):
    return Recipe(optax.chain(clip_by_global_norm(threshold), optax.adam(learning_rate)))


def trained(model, task=TASK, *, steps=5, learning_rate=0.05, clip_threshold=None, batch_size=8, seed=0, **options):
    numbers = {"learning_rate": learning_rate}
    recipe = adam if clip_threshold is None else clipped_adam
    if clip_threshold is not None:
        numbers["threshold"] = clip_threshold
    return train(model, task, recipe, TrainingConfig(steps, batch_size, seed), numbers=numbers, **options)


def parameters(model):
    """Copies, so that no later update can change them."""
    return jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def assert_trees_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_trees_close(a, b, atol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


def norm_of(tree):
    return np.linalg.norm(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]))
