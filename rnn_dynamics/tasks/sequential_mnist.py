"""MNIST's handwritten digits as sequences, row by row or pixel by pixel.

The images are those of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86 (1998). Pixel by pixel is the long-memory test of Le, Jaitly and Hinton, "A simple way to
initialize recurrent networks of rectified linear units", arXiv:1504.00941 (2015).
"""

import io
import os

import numpy as np

from rnn_dynamics.discovery import unknown_name
from rnn_dynamics.tasks.classification import SequenceClassification
from rnn_dynamics.tasks.examples import Examples
from rnn_dynamics.tasks.tfds_source import read_split

STEPS_AND_FEATURES = {"rows": (28, 28), "pixels": (784, 1)}
"""T and F of each way to read a 28x28 image."""


class SequentialMNIST(SequenceClassification):
    """Ten digits from 60,000 images to train on and 10,000 to test, in TFDS's `mnist`.

    Args:
        by: "rows" (T = 28, F = 28) or "pixels" (T = 784, F = 1).
        data_dir: folder of prepared TFDS data sets; None takes TFDS's own default.

    Raises:
        ValueError: if `by` is neither, or the data set is not prepared there.
    """

    name = "sequential_mnist"

    def __init__(self, by: str = "rows", data_dir: str | os.PathLike[str] | None = None):
        if by not in STEPS_AND_FEATURES:
            raise ValueError(unknown_name("way to read an image", by, STEPS_AND_FEATURES))
        splits = {split: _read(split, *STEPS_AND_FEATURES[by], data_dir) for split in ("train", "test")}
        super().__init__(splits, classes=10)


def _read(split: str, steps: int, features: int, data_dir: str | os.PathLike[str] | None) -> Examples:
    """Decode one split into [n, steps, features] bytes."""
    import tensorflow_datasets as tfds
    from PIL import Image

    # Pillow called directly is at least twice as fast as through TFDS, which also warns of a missing OpenCV.
    records = read_split("mnist:3.*.*", split, data_dir=data_dir, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.stack([np.asarray(Image.open(io.BytesIO(record["image"]))) for record in records])
    return Examples(
        inputs=images.reshape(len(records), steps, features),
        targets=np.array([record["label"] for record in records], np.int32),
        lengths=np.full(len(records), steps, np.int32),
        full_scale=255,
    )
