"""Examples that are drawn never change; how they are judged; and options that a task cannot have."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import slow_but
from tiny_tasks import GENERATED

from rnn_dynamics.tasks import make_task
from rnn_dynamics.tasks.objectives import Regression, StepClassification

COUNT = 4096

# Examples by number


@pytest.mark.parametrize("name", slow_but(["delayed_recall"], sorted(GENERATED)))  # the one with rounding in it
def test_an_example_is_the_same_in_any_batch_and_precision(name):
    task = make_task(name)
    examples = task.splits["train"]
    indices = np.array([999_999, 3, 77, *range(14)])
    together, alone = examples.take(indices), examples.take(indices[1:2])
    with jax.enable_x64(False):
        single = make_task(name, test_size=5).splits["train"].take(indices[1:2])
    for leaf, of_one, of_single in zip(together, alone, single, strict=True):
        np.testing.assert_array_equal(leaf[1:2], of_one)
        np.testing.assert_array_equal(of_one, of_single)
        assert leaf.dtype == of_single.dtype


def test_no_example_comes_twice():
    task, other = make_task("adding", length=7), make_task("adding", length=7, seed=1)
    splits = [*task.splits.values(), *(replace(split, draw=task.example) for split in other.splits.values())]
    rows = np.concatenate([split.take(np.arange(COUNT)).inputs for split in splits]).reshape(4 * COUNT, -1)
    assert len(np.unique(rows, axis=0)) == 4 * COUNT


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_sizes(name):
    task = make_task(name)
    assert len(task.splits["train"]) == 1_000_000
    assert 1_000 <= len(task.splits["test"]) <= 10_000
    assert [len(split) for split in make_task(name, train_size=3, test_size=2).splits.values()] == [3, 2]


# Objectives


def test_only_steps_that_are_asked_count():
    """Against log-softmax in NumPy, for sequences of which 3, 1 and 2 steps count."""
    targets = np.array([[0, 2, 1], [-1, -1, 2], [1, -1, 0]], np.int32)
    outputs = np.random.default_rng(0).normal(size=(3, 3, 3))
    log_probabilities = outputs - np.log(np.sum(np.exp(outputs), axis=-1, keepdims=True))

    def losses(outputs):
        loss = StepClassification().loss(outputs, targets)
        return jnp.sum(loss), loss

    (_, loss), gradient = jax.jit(jax.value_and_grad(losses, has_aux=True))(outputs)
    metric = StepClassification().metric(outputs, targets)
    for row in range(3):
        asked = np.flatnonzero(targets[row] >= 0)
        classes = targets[row, asked]
        np.testing.assert_allclose(loss[row], -np.mean(log_probabilities[row, asked, classes]), rtol=1e-14, atol=0)
        np.testing.assert_allclose(metric[row], np.mean(outputs[row, asked].argmax(-1) == classes), rtol=1e-6, atol=0)
    np.testing.assert_array_equal(np.any(gradient != 0, axis=-1), targets >= 0)


def test_squared_error_is_the_mean_over_numbers():
    targets, outputs = np.array([[1.0, 2.0], [0.0, 0.5]], np.float32), jnp.array([[2.0, 4.0], [0.0, 0.0]])
    for judged in (Regression().loss(outputs, targets), Regression().metric(outputs, targets)):
        np.testing.assert_allclose(judged, [2.5, 0.125], rtol=1e-15, atol=0)


# What is refused

WHOLE = "must be a whole number >= "


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("adding", {"length": 1}, f"length {WHOLE}2, got 1"),
        ("multiplication", {"length": 0}, f"length {WHOLE}2, got 0"),
        ("temporal_order", {"length": 9}, f"length {WHOLE}10, got 9"),
        ("temporal_order", {"symbols": 4}, "symbols must be 2 or 3, got 4"),
        ("random_permutation", {"length": 1}, f"length {WHOLE}2, got 1"),
        ("noiseless_memorization", {"delay": 0}, f"delay {WHOLE}1, got 0"),
        ("memorization_20_bit", {"delay": 0}, f"delay {WHOLE}1, got 0"),
        ("copying_memory", {"delay": -1}, f"delay {WHOLE}1, got -1"),
        ("delayed_xor", {"delay": 0}, f"delay {WHOLE}1, got 0"),
        ("delayed_xor", {"delay": 5, "length": 10}, f"length {WHOLE}11, got 10"),
        ("parity", {"length": 1}, f"length {WHOLE}2, got 1"),
        ("parity", {"length": True}, f"length {WHOLE}2, got True"),
        ("delayed_recall", {"lag": 0}, f"lag {WHOLE}1, got 0"),
        ("delayed_recall", {"noise": -0.1}, "noise must be >= 0 and finite, got -0.1"),
        ("delayed_recall", {"noise": math.nan}, "noise must be >= 0 and finite, got nan"),
        ("delayed_recall", {"symbols": 1}, f"symbols {WHOLE}2, got 1"),
        *((name, {"seed": -1}, f"seed {WHOLE}0, got -1") for name in sorted(GENERATED)),
        ("parity", {"train_size": 0}, f"train_size {WHOLE}1, got 0"),
        ("parity", {"test_size": 0}, f"test_size {WHOLE}1, got 0"),
    ],
)
def test_bad_option_gets_one_sentence(name, options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        make_task(name, **options)
