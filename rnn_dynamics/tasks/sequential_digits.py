"""Scikit-learn's bundled handwritten digits, read pixel by pixel: a real task that needs no download.

The images are those of Alpaydin and Kaynak, "Cascading classifiers", Kybernetika 34 (1998); reading an image one
pixel at a time is due to Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear
units", arXiv:1504.00941 (2015).
"""

import numpy as np

from rnn_dynamics.tasks.classification import SequenceClassification
from rnn_dynamics.tasks.examples import Examples


class SequentialDigits(SequenceClassification):
    """8x8 images of ten digits as sequences of T = 64 grey levels, F = 1: 1,437 to train on, 360 to test.

    The test split is a contiguous fifth of every class. Images that lie near one another are alike, as if by one hand,
    and a split drawn at random would scatter them over both sides: over five such folds the nearest neighbour has the
    right class for 96.4 % of the test images, over random ones for 98.8 %.
    """

    name = "sequential_digits"

    def __init__(self):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import StratifiedKFold

        images, labels = map(np.asarray, load_digits(return_X_y=True))
        train, test = next(StratifiedKFold(n_splits=5, shuffle=False).split(images, labels))
        splits = {
            split: Examples(
                inputs=images[chosen, :, np.newaxis].astype(np.uint8),
                targets=labels[chosen].astype(np.int32),
                lengths=np.full(len(chosen), images.shape[1], np.int32),
                full_scale=16,
            )
            for split, chosen in {"train": train, "test": test}.items()
        }
        super().__init__(splits, classes=10)
