"""A task's sequences joined into one input."""

import numpy as np
import pytest

from rnn_dynamics.tasks import make_task
from rnn_dynamics.tasks.classification import SequenceClassification
from rnn_dynamics.tasks.examples import Examples
from rnn_dynamics.tasks.streams import input_stream, standardised


class Words(SequenceClassification):
    """Three token sequences of lengths 2, 1 and 3, padded with token 0."""

    name = "words"

    def __init__(self):
        tokens = np.array([[1, 2, 0], [3, 0, 0], [4, 5, 6]], np.int32)
        examples = Examples(tokens, np.array([0, 1, 0], np.int32), np.array([2, 1, 3], np.int32))
        super().__init__({"train": examples, "test": examples}, classes=2, vocabulary_size=7)


def test_padding_is_left_out_and_tokens_become_vectors():
    stream = input_stream(Words(), 14, seed=0, token_features=5)
    assert stream.shape == (14, 5)
    # Every six steps hold each word once; padding would be a seventh vector.
    assert len(np.unique(stream, axis=0)) == len(np.unique(stream[:6], axis=0)) == 6


def test_digits_are_joined_as_they_are_and_shuffled_by_the_seed():
    task = make_task("sequential_digits")
    stream = input_stream(task, 1000, seed=0)
    assert stream.shape == (1000, 1)
    assert stream.dtype == np.float64
    images = {np.asarray(image, np.float64).tobytes() for image in next(task.batches("test", 360)).inputs}
    assert all(stream[start : start + 64].tobytes() in images for start in range(0, 960, 64))
    np.testing.assert_array_equal(stream, input_stream(task, 1000, seed=0))
    assert not np.array_equal(stream, input_stream(task, 1000, seed=1))


def test_a_standardised_stream_has_mean_0_and_variance_1():
    stream = input_stream(make_task("sequential_digits"), 1000, seed=0)
    scaled = standardised(stream)
    assert scaled.mean() == pytest.approx(0, abs=1e-12)
    assert scaled.std() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(scaled * stream.std() + stream.mean(), stream, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match=r"stream must vary, got nothing but 0\.0 in 2 steps"):
        standardised(stream[:2])


def test_no_steps():
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        input_stream(Words(), 0, seed=0)
