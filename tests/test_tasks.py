"""Every task keeps the promises of the Protocol."""

import inspect
import itertools
import json
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import slow_but
from tiny_tasks import GENERATED, TINY, variant_name

from rnn_dynamics.tasks import TASKS, make_task
from rnn_dynamics.tasks.examples import Examples
from rnn_dynamics.types import Batch, Task

# Besides every task as it comes, the variants of a task that change what a batch looks like.
VARIANTS = [(name, TINY.get(name, {})) for name in TASKS] + [("sequential_mnist", {"by": "pixels"})]
# Of the generated tasks one for each objective; what the others promise besides is in test_generated_tasks.py.
QUICK = [v for v in VARIANTS if v[0] not in GENERATED - {"adding", "delayed_recall", "copying_memory"}]


@pytest.fixture(scope="session", params=slow_but(QUICK, VARIANTS), ids=variant_name)
def task(request: pytest.FixtureRequest, tiny_data: Path) -> Task:
    name, options = request.param
    if "data_dir" in inspect.signature(TASKS[name]).parameters:
        options = {**options, "data_dir": tiny_data}
    if name in GENERATED:
        options = {**options, "test_size": 12}
    try:
        return make_task(name, **options)
    except ValueError as error:
        if "is not prepared" in str(error):
            pytest.skip(str(error))
        raise


def leaves(batches) -> list[np.ndarray]:
    return [np.asarray(leaf) for batch in batches for leaf in jax.tree.leaves(batch)]


def same(first, second) -> bool:
    first, second = leaves(first), leaves(second)
    return len(first) == len(second) and all(map(np.array_equal, first, second))


def examples_of(batches) -> Counter[bytes]:
    """Count how often each example occurs, whatever the batches."""
    return Counter(
        b"".join(np.ascontiguousarray(leaf[row]).tobytes() for leaf in leaves([batch]))
        for batch in batches
        for row in range(len(batch.lengths))
    )


def is_classification(task: Task, batch: Batch) -> bool:
    return task.metric_name == "accuracy" and np.ndim(batch.targets) == 1


def test_keeps_the_protocol(task):
    assert isinstance(task, Task)
    assert type(task).__module__ == f"rnn_dynamics.tasks.{task.name}"
    assert (task.input_features is None) != (task.vocabulary_size is None)


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_have_the_promised_shapes_and_types(task, split):
    batch = next(task.batches(split, 4))
    steps = batch.inputs.shape[1]
    if task.vocabulary_size is None:
        assert batch.inputs.shape == (4, steps, task.input_features)
        assert batch.inputs.dtype == np.float32
        assert np.all(np.isfinite(batch.inputs))
    else:
        assert batch.inputs.shape == (4, steps)
        assert batch.inputs.dtype == np.int32
        assert np.all((batch.inputs >= 0) & (batch.inputs < task.vocabulary_size))
    assert batch.targets.shape[0] == 4
    assert batch.lengths.shape == (4,)
    assert batch.lengths.dtype == np.int32
    assert np.all((batch.lengths >= 1) & (batch.lengths <= steps))
    if is_classification(task, batch):
        assert batch.targets.dtype == np.int32
        assert np.all((batch.targets >= 0) & (batch.targets < task.output_features))


def test_the_seed_decides_the_order(task):
    def first_batches(seed):
        return list(itertools.islice(task.batches("train", 4, seed=seed), 3))

    assert same(first_batches(0), first_batches(0))
    assert not same(first_batches(0), first_batches(1))
    assert not same(first_batches(0), first_batches(None))


def test_evaluation_sees_each_example_once(task):
    small, large = list(task.batches("test", 3)), list(task.batches("test", 7))
    assert examples_of(small) == examples_of(large)
    assert examples_of(small) == examples_of(task.batches("test", 1, seed=0))
    assert {len(batch.lengths) for batch in large[:-1]} <= {7}


def test_training_drops_the_incomplete_batch(task):
    examples = sum(len(batch.lengths) for batch in task.batches("test", 1))
    sizes = [len(batch.lengths) for batch in task.batches("test", examples - 1, seed=0)]
    assert sizes == [examples - 1]


def test_epochs_repeat_the_examples_in_another_order(task):
    once = list(task.batches("test", 1, seed=0))
    twice = list(task.batches("test", 1, seed=0, epochs=2))
    first, second = twice[: len(once)], twice[len(once) :]
    assert same(first, once)
    assert examples_of(second) == examples_of(once)
    assert not same(second, once)
    # Consecutive seeds must not see one another's epochs.
    assert not same(second, task.batches("test", 1, seed=1))


def test_without_end_all_batches_have_one_shape(task):
    epoch = sum(1 for _ in task.batches("test", 3))
    endless = list(itertools.islice(task.batches("test", 3, epochs=None), 2 * epoch + 1))
    assert len(endless) == 2 * epoch + 1
    assert len({batch.inputs.shape for batch in endless}) == 1


def test_a_stopped_iterator_resumes_where_it_was(task):
    batches = task.batches("train", 4, seed=3, epochs=None)
    if not hasattr(batches, "get_state"):
        pytest.skip(f"{task.name} makes its batches without a Grain iterator")
    next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    expected = next(batches)
    resumed = task.batches("train", 4, seed=3, epochs=None)
    resumed.set_state(state)
    assert same([next(resumed)], [expected])


@pytest.mark.usefixtures("strict_dtypes")
def test_loss_and_metric_are_per_example(task):
    batch = next(task.batches("test", 5))
    if not is_classification(task, batch):
        pytest.skip(f"the outputs of {task.name} are not [B, C]")
    classes = task.output_features
    uniform = jnp.zeros((5, classes), jnp.float32)
    certain = 100 * jax.nn.one_hot(batch.targets, classes, dtype=jnp.float32)
    np.testing.assert_allclose(task.loss(uniform, batch.targets), np.full(5, np.log(classes)), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(task.loss)(certain, jnp.asarray(batch.targets)), np.zeros(5), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(task.metric(np.asarray(certain), batch.targets), np.ones(5))
    np.testing.assert_array_equal(task.metric(-certain, jnp.asarray(batch.targets)), np.zeros(5))


def test_chance_level_is_the_best_constant_prediction(task):
    if task.name in GENERATED:
        pytest.skip(f"the chance level of {task.name} is an expectation, see test_generated_tasks.py")
    batches = list(task.batches("test", 64))
    if not is_classification(task, batches[0]):
        pytest.skip(f"{task.name} has no classes to guess")
    targets = np.concatenate([batch.targets for batch in batches])
    constants = np.eye(task.output_features, dtype=np.float32)
    accuracy = [np.mean(task.metric(np.tile(constant, (len(targets), 1)), targets)) for constant in constants]
    assert task.chance_level == pytest.approx(max(accuracy))


def test_an_answer_of_the_regime_is_judged_for_each_example(task):
    batch = next(task.batches("test", 5))
    asked = (5,) if task.regime == "many_to_one" else batch.inputs.shape[:2]
    outputs = jnp.ones((*asked, task.output_features), jnp.float32)
    for judged in (task.loss(outputs, batch.targets), task.metric(np.asarray(outputs), batch.targets)):
        assert (judged.shape, judged.dtype) == ((5,), jnp.float32)
        assert np.all(np.isfinite(judged))


def test_an_unknown_split_is_rejected(task):
    with pytest.raises(ValueError, match="unknown split 'trian': did you mean train"):
        next(task.batches("trian", 4))


def test_an_unknown_task_is_rejected():
    with pytest.raises(ValueError, match="unknown task 'sequential_digit': did you mean sequential_digits"):
        make_task("sequential_digit")


# Examples in memory


def test_a_batch_larger_than_the_data_is_rejected_in_training_alone():
    examples = Examples(np.zeros((5, 2, 1), np.float32), np.arange(5, dtype=np.int32), np.full(5, 2, np.int32))
    with pytest.raises(ValueError, match="batch_size 8 exceeds the 5 examples"):
        examples.batches(8, seed=0)
    assert [len(batch.targets) for batch in examples.batches(8)] == [5]
    # Epochs follow one another without a seam, so enough of them fill a batch.
    assert [len(batch.targets) for batch in examples.batches(8, seed=0, epochs=2)] == [8]
