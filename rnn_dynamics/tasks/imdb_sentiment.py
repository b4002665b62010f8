"""Whether a film review is positive, from its words: sequences of natural, very unequal length.

The reviews are those of Maas, Daly, Pham, Huang, Ng and Potts, "Learning word vectors for sentiment analysis",
ACL (2011).
"""

import os

import numpy as np

from rnn_dynamics.tasks.classification import SequenceClassification
from rnn_dynamics.tasks.examples import Examples
from rnn_dynamics.tasks.tfds_source import read_split
from rnn_dynamics.tasks.vocabulary import OUT_OF_VOCABULARY, Vocabulary, tokenize


class IMDBSentiment(SequenceClassification):
    """Two classes from 25,000 reviews to train on and 25,000 to test, in TFDS's `imdb_reviews/plain_text`.

    Every batch is `max_length` wide, so that a network is compiled once.

    Args:
        max_length: T; a longer review keeps its beginning. Half of the reviews have at most 210 tokens, nine in ten
            at most 550.
        vocabulary_size: most token numbers in use, padding and out-of-vocabulary included.
        data_dir: folder of prepared TFDS data sets; None takes TFDS's own default.

    Attributes:
        vocabulary: the words of the training split and their numbers; its length is the task's `vocabulary_size`.
        out_of_vocabulary_rate: by split, the fraction of the tokens handed out that the vocabulary does not have.

    Raises:
        ValueError: if a size is too small, or the data set is not prepared there.
    """

    name = "imdb_sentiment"

    def __init__(
        self,
        max_length: int = 500,
        vocabulary_size: int = 20_000,
        data_dir: str | os.PathLike[str] | None = None,
    ):
        documents, targets = {}, {}
        for split in ("train", "test"):
            records = read_split("imdb_reviews/plain_text:1.*.*", split, data_dir=data_dir)
            documents[split] = [tokenize(record["text"].decode()) for record in records]
            targets[split] = np.array([record["label"] for record in records], np.int32)
        self.vocabulary = Vocabulary.from_documents(documents["train"], vocabulary_size)
        splits, self.out_of_vocabulary_rate = {}, {}
        for split in documents:
            tokens, lengths = self.vocabulary.encode(documents[split], max_length)
            splits[split] = Examples(tokens, targets[split], lengths)
            self.out_of_vocabulary_rate[split] = float(np.sum(tokens == OUT_OF_VOCABULARY) / np.sum(lengths))
        super().__init__(splits, classes=2, vocabulary_size=len(self.vocabulary))
