"""Truncated backpropagation through time, against gradients stopped by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from largest_so_far import CLASSES, STEPS, TASK, assert_trees_close, classifier, cross_entropy, parameters
from networks import any_cell, slow_but

from rnn_dynamics.models import ManyToMany
from rnn_dynamics.tasks.generated import GeneratedTask
from rnn_dynamics.tasks.objectives import StepClassification
from rnn_dynamics.training import Recipe, TrainingConfig, train
from rnn_dynamics.training.truncation import Windows

RATE = 0.1
SGD = Recipe(optax.sgd(RATE))


class RunningSign(StepClassification, GeneratedTask):
    """At every step: in which of three ranges the sum so far lies; T = 7."""

    name, output_features, input_features, chance_level, solved_level = "running_sign", 3, 1, 0.5, 0.99

    def example(self, key):
        values = jax.random.normal(key, (7, 1), jnp.float64)
        sums = jnp.cumsum(values[:, 0])
        return values, (sums > -0.5).astype(jnp.int32) + (sums > 0.5).astype(jnp.int32)


def tagger():
    return ManyToMany(any_cell("LSTMCell", features=1, hidden=4), 3, rngs=nnx.Rngs(1))


def sgd(params, gradient):
    return jax.tree.map(lambda w, g: w - RATE * g, params, gradient)


def windows_by_hand(task, truncation, batches):
    """Read every window from the detached carry of the one before, and update after each."""
    model = tagger()
    losses = []
    for batch in batches:
        carry = model.recurrence.initialize_carry(len(batch.lengths))
        for start in range(0, 7, truncation):
            window = slice(start, start + truncation)

            def loss(model, carry=carry, window=window, batch=batch):
                after, hidden = model.read(batch.inputs[:, window], None, carry)
                return jnp.mean(task.loss(model.head(hidden), batch.targets[:, window])), after

            (value, carry), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
            nnx.update(model, sgd(nnx.state(model, nnx.Param), gradient))
            losses.append(value)
    return losses, parameters(model)


@pytest.mark.parametrize("truncation", slow_but([3], [3, 7]))
def test_windows_go_on_from_the_carry_without_its_gradient(truncation):
    task = RunningSign(train_size=64)
    updates = 2 * -(-7 // truncation)  # two batches
    model = tagger()
    record = train(model, task, SGD, TrainingConfig(updates, 16, truncation=truncation))
    batches = task.batches("train", 16, seed=0, epochs=None)
    losses, expected = windows_by_hand(task, truncation, [next(batches) for _ in range(2)])
    np.testing.assert_allclose(record.loss, losses, rtol=0, atol=1e-12)
    assert_trees_close(parameters(model), expected, atol=1e-12)


@pytest.mark.parametrize("truncation", [2, STEPS])
def test_only_the_last_steps_have_a_gradient_where_one_answer_is_asked(truncation):
    """By hand: the carry is detached where the last steps begin; sequences that have ended before have no more."""
    model, same = classifier(), classifier()
    train(model, TASK, SGD, TrainingConfig(1, 8, truncation=truncation))
    batch = jax.tree.map(jnp.asarray, next(TASK.batches("train", 8, seed=0, epochs=None)))
    start = STEPS - truncation

    def loss(model):
        carry, states = model.recurrence.initialize_carry(8), []
        for t in range(STEPS):
            carry = jax.lax.stop_gradient(carry) if t == start else carry
            after, output = model.cell(carry, batch.inputs[:, t])
            valid = (t < batch.lengths)[:, None]
            carry = jnp.where(valid, after, carry)
            states.append(jax.lax.stop_gradient(output) if t < start else output)
        last = jnp.stack(states, axis=1)[jnp.arange(8), batch.lengths - 1]
        return jnp.mean(cross_entropy(model.head(last), batch.targets))

    expected = sgd(nnx.state(same, nnx.Param), nnx.grad(loss)(same))
    assert_trees_close(parameters(model), nnx.to_pure_dict(expected), atol=1e-14)
    assert any(batch.lengths <= STEPS - 2), "some sequences should end before the last two steps"


def test_windows_can_be_left_and_found_again():
    def read(windows, count):
        return [next(windows) for _ in range(count)]

    task = RunningSign(train_size=64)
    whole = read(Windows(task.batches("train", 4, seed=0, epochs=None), 3), 8)
    assert [window.inputs.shape[1] for window in whole[:4]] == [3, 3, 1, 3]
    assert [window.lengths.tolist() for window in whole[:3]] == [[3] * 4, [3] * 4, [1] * 4]
    for stopped in range(7):
        windows = Windows(task.batches("train", 4, seed=0, epochs=None), 3)
        read(windows, stopped)
        state = windows.get_state()
        again = Windows(task.batches("train", 4, seed=0, epochs=None), 3)
        again.set_state(state)
        np.testing.assert_array_equal(next(again).inputs, whole[stopped].inputs)


def test_bad_truncations_get_one_sentence():
    with pytest.raises(ValueError, match=r"^truncation must be at most the 5 steps of the task's sequences, got 6$"):
        train(classifier(), TASK, SGD, TrainingConfig(1, 8, truncation=STEPS + 1))
    with pytest.raises(ValueError, match=r"^truncation needs a SequenceModel, which hands its carry on, got Linear$"):
        train(nnx.Linear(2, CLASSES, rngs=nnx.Rngs(0)), TASK, SGD, TrainingConfig(1, 8, truncation=2))
