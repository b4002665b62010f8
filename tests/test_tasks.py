"""Every task keeps the promises of the Protocol; each kind of data is read through the real code path."""

import inspect
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.tasks import TASKS, make_task
from rnn_dynamics.tasks.examples import Examples
from rnn_dynamics.tasks.vocabulary import OUT_OF_VOCABULARY, PADDING, Vocabulary, tokenize
from rnn_dynamics.types import Batch, Task

TRAIN_REVIEWS = [
    ("A film. A GOOD film!", 1),
    ("Bad, bad...<br /><br />bad film", 0),
    ("I don't like it; it isn't good.", 0),
    ("A " * 30 + "long one", 1),
    *((f"Film number {number} is {'good' if number % 2 else 'bad'}.", number % 2) for number in range(16)),
]
TEST_REVIEWS = [
    ("a good film", 1),
    ("zyzzyva and a quokka", 0),
    ("", 0),
    *((f"film {number}", 0) for number in range(5)),
]


MNIST_SPLITS = {"train": {"count": 30, "seed": 0}, "test": {"count": 11, "seed": 1}}


def digit_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make distinct grey images [count, 28, 28], black and white among the greys, and their labels."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    images[:, 0, :2] = 0, 255
    return images, np.arange(count) % 10


def png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return buffer.getvalue()


def prepare(
    folder: Path, name: str, version: str, configs: list, features: dict, splits: dict[str, list[dict]]
) -> None:
    """Write a data set as TFDS's own builder of that name and version lays it out."""
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = configs

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            yield from enumerate(splits[split])

    Tiny.name = name
    Tiny(data_dir=folder, file_format="array_record").download_and_prepare()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare tiny `mnist` and `imdb_reviews`."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    prepare(
        folder,
        name="mnist",
        version="3.0.1",
        configs=[],
        features={
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        },
        splits={
            split: [
                {"image": png(image), "label": int(label)}
                for image, label in zip(*digit_images(**options), strict=True)
            ]
            for split, options in MNIST_SPLITS.items()
        },
    )
    prepare(
        folder,
        name="imdb_reviews",
        version="1.0.0",
        configs=[tfds.core.BuilderConfig(name="plain_text", version=tfds.core.Version("1.0.0"))],
        features={"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["neg", "pos"])},
        splits={
            split: [{"text": text, "label": label} for text, label in reviews]
            for split, reviews in {"train": TRAIN_REVIEWS, "test": TEST_REVIEWS}.items()
        },
    )
    return folder


# Besides every task as it comes, the variants of a task that change what a batch looks like.
VARIANTS = [(name, {}) for name in TASKS] + [("sequential_mnist", {"by": "pixels"})]


@pytest.fixture(scope="session", params=VARIANTS, ids=lambda variant: "-".join([variant[0], *variant[1].values()]))
def task(request: pytest.FixtureRequest, tiny_data: Path) -> Task:
    name, options = request.param
    if "data_dir" in inspect.signature(TASKS[name]).parameters:
        options = {**options, "data_dir": tiny_data}
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


# Every task


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
    np.testing.assert_allclose(jax.jit(task.loss)(certain, jnp.asarray(batch.targets)), np.zeros(5), atol=1e-6)
    np.testing.assert_array_equal(task.metric(np.asarray(certain), batch.targets), np.ones(5))
    np.testing.assert_array_equal(task.metric(-certain, jnp.asarray(batch.targets)), np.zeros(5))


def test_chance_level_is_the_best_constant_prediction(task):
    batches = list(task.batches("test", 64))
    if not is_classification(task, batches[0]):
        pytest.skip(f"{task.name} has no classes to guess")
    targets = np.concatenate([batch.targets for batch in batches])
    constants = np.eye(task.output_features, dtype=np.float32)
    accuracy = [np.mean(task.metric(np.tile(constant, (len(targets), 1)), targets)) for constant in constants]
    assert task.chance_level == pytest.approx(max(accuracy))


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


# Digits


def test_digits_are_split_once_and_evenly():
    from sklearn.datasets import load_digits

    task = make_task("sequential_digits")
    batches = {split: next(task.batches(split, 2000)) for split in ("train", "test")}
    images = {split: [image.tobytes() for image in batch.inputs] for split, batch in batches.items()}
    assert {split: len(images[split]) for split in images} == {"train": 1437, "test": 360}
    assert not set(images["train"]) & set(images["test"])
    pixels = (load_digits().data[..., np.newaxis] / 16).astype(np.float32)
    assert Counter(images["train"] + images["test"]) == Counter(image.tobytes() for image in pixels)
    per_class = {split: np.bincount(batch.targets) for split, batch in batches.items()}
    np.testing.assert_allclose(per_class["test"], (per_class["train"] + per_class["test"]) / 5, atol=1)


# MNIST


@pytest.mark.parametrize(("by", "shape"), [("rows", (28, 28)), ("pixels", (784, 1))])
def test_mnist_is_read_in_reading_order(tiny_data, by, shape):
    batch = next(make_task("sequential_mnist", by=by, data_dir=tiny_data).batches("test", 100))
    images, labels = digit_images(**MNIST_SPLITS["test"])
    expected = {image.reshape(shape).tobytes(): label for image, label in zip(images, labels, strict=True)}
    grey = np.rint(batch.inputs * 255).astype(np.uint8)
    assert {image.tobytes(): label for image, label in zip(grey, batch.targets, strict=True)} == expected
    assert (batch.inputs.min(), batch.inputs.max()) == (0.0, 1.0)
    assert np.all(batch.lengths == shape[0])


def test_mnist_rejects_another_reading_order():
    with pytest.raises(ValueError, match=r"unknown way to read an image 'row': did you mean rows"):
        make_task("sequential_mnist", by="row")


# IMDB and its vocabulary


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's GOOD, isn't it?", ["it's", "good", ",", "isn't", "it", "?"]),
        ("one<br /><br />two<BR>three", ["one", "two", "three"]),
        ("'quoted' well-made...", ["'", "quoted", "'", "well", "-", "made", ".", ".", "."]),
        ("café 10/10", ["café", "10", "/", "10"]),
        (" \n", []),
    ],
)
def test_tokens_are_words_and_punctuation(text, tokens):
    assert tokenize(text) == tokens


def test_the_vocabulary_holds_the_most_frequent_words():
    documents = [["b", "c", "a"], ["c", "b"], ["c", "d"]]
    assert Vocabulary.from_documents(documents, 5).numbers == {"c": 2, "b": 3, "a": 4}
    assert len(Vocabulary.from_documents(documents, 100)) == 6
    with pytest.raises(ValueError, match="vocabulary size 2 has no room"):
        Vocabulary.from_documents(documents, 2)


def test_documents_are_cut_padded_and_never_empty():
    vocabulary = Vocabulary({"a": 2, "b": 3})
    tokens, lengths = vocabulary.encode([["a", "b", "a", "a"], ["x"], []], 3)
    np.testing.assert_array_equal(
        tokens,
        [[2, 3, 2], [OUT_OF_VOCABULARY, PADDING, PADDING], [OUT_OF_VOCABULARY, PADDING, PADDING]],
    )
    np.testing.assert_array_equal(lengths, [3, 1, 1])
    with pytest.raises(ValueError, match="max_length must be at least 1, not 0"):
        vocabulary.encode([["a"]], 0)


def test_imdb_knows_the_words_of_the_training_split_alone(tiny_data):
    task = make_task("imdb_sentiment", max_length=8, data_dir=tiny_data)
    assert {"good", "don't", "isn't"} < set(task.vocabulary.numbers)
    assert not {"zyzzyva", "and", "quokka", "br"} & set(task.vocabulary.numbers)
    assert task.vocabulary_size == len(task.vocabulary)
    # Of the test split's 3 + 4 + 0 + 5 * 2 tokens these are unknown: zyzzyva, and, quokka; and the empty review is one.
    assert task.out_of_vocabulary_rate == {"train": 0.0, "test": pytest.approx(4 / 18)}
    words = {number: word for word, number in task.vocabulary.numbers.items()}
    batch = next(task.batches("train", len(TRAIN_REVIEWS)))
    read = [
        (" ".join(words[number] for number in row[:length]), target)
        for row, length, target in zip(batch.inputs, batch.lengths, batch.targets, strict=True)
    ]
    assert sorted(read) == sorted((" ".join(tokenize(text)[:8]), label) for text, label in TRAIN_REVIEWS)
    assert np.all((batch.inputs == PADDING) == (np.arange(8) >= batch.lengths[:, np.newaxis]))


def test_imdb_limits_the_vocabulary(tiny_data):
    task = make_task("imdb_sentiment", vocabulary_size=5, data_dir=tiny_data)
    assert task.vocabulary_size == 5
    assert task.out_of_vocabulary_rate["train"] > 0.3
    assert next(task.batches("train", 20)).inputs.max() == 4


# Data that are not there, and what must not be imported


@pytest.mark.parametrize(
    ("name", "dataset"), [("sequential_mnist", "mnist"), ("imdb_sentiment", "imdb_reviews/plain_text")]
)
def test_data_that_are_not_prepared_are_named_and_never_downloaded(name, dataset, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def download(*args, **kwargs):
        raise AssertionError("a download was started")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    with pytest.raises(ValueError, match="is not prepared") as caught:
        make_task(name, data_dir=tmp_path)
    (sentence,) = caught.value.args
    assert f"is not prepared in {tmp_path}: run `pip install 'rnn_dynamics[prepare]'`" in sentence
    assert f"tfds.builder('{dataset}', file_format='array_record', data_dir='{tmp_path}')" in sentence
    assert list(tmp_path.iterdir()) == []


def test_data_in_another_format_are_named(tiny_data, tmp_path):
    info = "mnist/3.0.1/dataset_info.json"
    (tmp_path / info).parent.mkdir(parents=True)
    for file in (tiny_data / info).parent.iterdir():
        (tmp_path / info).with_name(file.name).write_bytes(file.read_bytes())
    (tmp_path / info).write_text((tiny_data / info).read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}/mnist/3.0.1 as tfrecord, not as array_record"):
        make_task("sequential_mnist", data_dir=tmp_path)


def test_tensorflow_is_never_imported_nor_any_reader_before_its_task(tiny_data, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')")
    program = """if True:
        import sys
        from rnn_dynamics.tasks import TASKS, make_task
        early = {"grain", "sklearn", "tensorflow_datasets", "PIL"} & set(sys.modules)
        assert not early, early
        for name in ("sequential_mnist", "imdb_sentiment"):
            next(make_task(name, data_dir=sys.argv[1]).batches("train", 4, seed=0))
        assert "tensorflow" not in sys.modules
    """
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(tmp_path), str(root), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", program, tiny_data], check=True, env={**os.environ, "PYTHONPATH": path})


# The real data, where they are prepared


def make_real(name: str, **options) -> Task:
    try:
        return make_task(name, **options)
    except ValueError as error:
        pytest.skip(str(error))


def test_real_mnist():
    task = make_real("sequential_mnist", by="pixels")
    assert {split: len(task.splits[split]) for split in task.splits} == {"train": 60_000, "test": 10_000}
    # 1,135 of the 10,000 test images show a one.
    assert task.chance_level == pytest.approx(0.1135)
    # The mean and standard deviation that every MNIST recipe normalises by.
    grey = task.splits["train"].inputs
    assert (grey.mean() / 255, grey.std() / 255) == (pytest.approx(0.1307, abs=1e-4), pytest.approx(0.3081, abs=1e-4))


def test_real_imdb():
    task = make_real("imdb_sentiment")
    assert {split: len(task.splits[split]) for split in task.splits} == {"train": 25_000, "test": 25_000}
    assert task.chance_level == 0.5
    assert task.vocabulary_size == 20_000
    assert {"the", ".", ",", "and"} == set(list(task.vocabulary.numbers)[:4])
    assert "br" not in list(task.vocabulary.numbers)[:1000]
    assert 0.01 < task.out_of_vocabulary_rate["train"] < task.out_of_vocabulary_rate["test"] < 0.05
    assert 190 < np.median(task.splits["train"].lengths) < 230
