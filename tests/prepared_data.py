"""Tiny data sets as TFDS prepares the real ones, so that tasks are read through the real code path."""

import io
from pathlib import Path

import numpy as np
import pytest

from rnn_dynamics.tasks import make_task
from rnn_dynamics.types import Task

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


def prepare_all(folder: Path) -> Path:
    """Prepare tiny `mnist` and `imdb_reviews`."""
    import tensorflow_datasets as tfds

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


def make_real(name: str, **options) -> Task:
    """Make a task from the real data, where they are prepared."""
    try:
        return make_task(name, **options)
    except ValueError as error:
        pytest.skip(str(error))
