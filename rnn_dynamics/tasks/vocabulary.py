"""Text to token numbers: words and punctuation, numbered by how often the training split uses them."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

PADDING = 0
OUT_OF_VOCABULARY = 1
FIRST_WORD = 2

_LINE_BREAK = re.compile(r"<br\s*/?>")
_TOKEN = re.compile(r"\w+(?:'\w+)*|[^\w\s]")


def tokenize(text: str) -> list[str]:
    """Split a text into lower-case words and single punctuation marks.

    An apostrophe inside a word belongs to it ("don't"); HTML line breaks are white space.

    Args:
        text: any text.

    Returns:
        Its tokens; none if the text is blank.
    """
    # Interned, the millions of tokens of a corpus share the memory of its words, and each word is hashed only once.
    return [sys.intern(token) for token in _TOKEN.findall(_LINE_BREAK.sub(" ", text.lower()))]


@dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers; 0 is padding and 1 stands for every word that is not in it.

    Attributes:
        numbers: word -> number, from 2 on, the most frequent word first.
    """

    numbers: dict[str, int]

    @classmethod
    def from_documents(cls, documents: Iterable[Sequence[str]], size: int) -> "Vocabulary":
        """Number the most frequent words.

        Args:
            documents: tokens of each document, of the training split alone.
            size: most numbers to give out, padding and out-of-vocabulary included.

        Returns:
            The vocabulary; words of one frequency are in alphabetical order, whatever that of the documents.

        Raises:
            ValueError: if the size leaves no room for a word.
        """
        if size <= FIRST_WORD:
            raise ValueError(f"vocabulary size {size} has no room for a word beside padding and out-of-vocabulary")
        counts: Counter[str] = Counter()
        for tokens in documents:
            counts.update(tokens)
        by_frequency = sorted(counts, key=lambda word: (-counts[word], word))
        return cls({word: number for number, word in enumerate(by_frequency[: size - FIRST_WORD], FIRST_WORD)})

    def __len__(self) -> int:
        return FIRST_WORD + len(self.numbers)

    def encode(
        self, documents: Sequence[Sequence[str]], max_length: int
    ) -> tuple[Int32[np.ndarray, "n T"], Int32[np.ndarray, "n"]]:
        """Number the tokens of each document, cut it to a length and pad it behind.

        Args:
            documents: tokens of each document. An empty one becomes one out-of-vocabulary token, because a sequence
                has at least one step.
            max_length: T; what a document has beyond it is left out.

        Returns:
            Token numbers [n, T], and the valid length of each document [n].

        Raises:
            ValueError: if `max_length` is not positive.
        """
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {max_length}")
        tokens = np.full((len(documents), max_length), PADDING, np.int32)
        lengths = np.empty(len(documents), np.int32)
        for row, document in enumerate(documents):
            numbers = [self.numbers.get(word, OUT_OF_VOCABULARY) for word in document[:max_length]]
            numbers = numbers or [OUT_OF_VOCABULARY]
            tokens[row, : len(numbers)] = numbers
            lengths[row] = len(numbers)
        return tokens, lengths
