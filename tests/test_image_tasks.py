"""Digits and MNIST are the images that they say, read pixel by pixel or row by row."""

from collections import Counter

import numpy as np
import pytest
from prepared_data import MNIST_SPLITS, digit_images, make_real

from rnn_dynamics.tasks import make_task


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
    np.testing.assert_allclose(per_class["test"], (per_class["train"] + per_class["test"]) / 5, rtol=0, atol=1)


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


@pytest.mark.slow
def test_real_mnist():
    task = make_real("sequential_mnist", by="pixels")
    assert {split: len(task.splits[split]) for split in task.splits} == {"train": 60_000, "test": 10_000}
    # 1,135 of the 10,000 test images show a one.
    assert task.chance_level == pytest.approx(0.1135)
    # The mean and standard deviation that every MNIST recipe normalises by.
    grey = task.splits["train"].inputs
    assert (grey.mean() / 255, grey.std() / 255) == (pytest.approx(0.1307, abs=1e-4), pytest.approx(0.3081, abs=1e-4))
