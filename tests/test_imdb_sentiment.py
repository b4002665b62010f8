"""IMDB reviews and their vocabulary: tokens, numbers, padding, and which words are known."""

import numpy as np
import pytest
from prepared_data import TRAIN_REVIEWS, make_real

from rnn_dynamics.tasks import make_task
from rnn_dynamics.tasks.vocabulary import OUT_OF_VOCABULARY, PADDING, Vocabulary, tokenize


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


@pytest.mark.slow
def test_real_imdb():
    task = make_real("imdb_sentiment")
    assert {split: len(task.splits[split]) for split in task.splits} == {"train": 25_000, "test": 25_000}
    assert task.chance_level == 0.5
    assert task.vocabulary_size == 20_000
    assert {"the", ".", ",", "and"} == set(list(task.vocabulary.numbers)[:4])
    assert "br" not in list(task.vocabulary.numbers)[:1000]
    assert 0.01 < task.out_of_vocabulary_rate["train"] < task.out_of_vocabulary_rate["test"] < 0.05
    assert 190 < np.median(task.splits["train"].lengths) < 230
