"""n-grams of many sentences at once, numbered by sorting: exact (nothing is hashed) and without a
loop over words.

A batch of sentences is one stream of word numbers, with a 0 after each sentence::

    "a cat", "a dog and a cat"  ->  1 2 0  1 3 4 1 2 0
"""

from typing import NamedTuple

import numpy as np

MAX_ORDER = 4  # a power of two
END = "\0"  # the word that ends a sentence
SHIFT = 32  # two numbers below 2**31 make one sortable key: (first << SHIFT) + second


class WordIds(dict):
    """Word -> number from 1 on; new words are numbered on first sight."""

    def __init__(self):
        super().__init__({END: 0})

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number

    def stream(self, sentences: list[str]) -> np.ndarray:
        """int64. All sentences are split at once, which is faster than one by one."""
        text = f" {END} ".join([*sentences, ""])
        if text.count(END) != len(sentences):  # no word of a sentence may be taken for an end
            text = f" {END} ".join(
                [*(sentence.replace(END, 2 * END) for sentence in sentences), ""]
            )
        words = text.split()
        return np.fromiter(map(self.__getitem__, words), np.int64, len(words))


class NgramIndex(NamedTuple):
    """Every n-gram of a stream, ordered by its number and then by its start; equal n-grams have
    equal numbers.

    The k-th different n-gram of n words has the number ``k * MAX_ORDER + n - 1``. ``keys[n - 1]``
    lists the different n-grams of n words in order: the word for n = 1, else (k of the first n - 1
    words << SHIFT) + last word. All n-grams of one word come first, then those of two words and so
    on.
    """

    starts: np.ndarray  # int64[N], where in the stream
    numbers: np.ndarray  # int64[N]
    keys: list[np.ndarray]


def number_ngrams(stream: np.ndarray) -> NgramIndex:
    """``stream``: int64, word numbers with a 0 after each sentence."""
    ahead = np.concatenate([stream, np.zeros(MAX_ORDER, np.int64)])
    at = np.flatnonzero(stream)
    ranks = np.zeros(len(at), np.int64)
    starts, numbers, keys = [], [], []
    for more_words in range(MAX_ORDER):
        word = ahead[at + more_words]
        if more_words:
            inside = np.flatnonzero(word)
            at, ranks, word = at[inside], ranks[inside] << SHIFT, word[inside]
        different, ranks, order = dense_ranks(ranks + word)
        starts.append(at[order])
        numbers.append(ranks[order] * MAX_ORDER + more_words)
        keys.append(different)
    return NgramIndex(np.concatenate(starts), np.concatenate(numbers), keys)


def dense_ranks(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different keys in order, for each key its place among them, and the places of the keys
    in stable order."""
    place_bits = len(keys).bit_length()
    if (
        int(keys.max(initial=0)).bit_length() + place_bits < 64
    ):  # sorting numbers is faster than sorting places
        packed = np.sort((keys << place_bits) + np.arange(len(keys)))
        in_order = packed >> place_bits
        order = packed - (in_order << place_bits)
    else:
        order = np.argsort(keys, kind="stable")
        in_order = keys[order]
    new = is_new(in_order)
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = np.cumsum(new) - 1
    return in_order[np.flatnonzero(new)], ranks, order


def gaps(points: np.ndarray, end: int) -> np.ndarray:
    """Distance of each point to the next one: ``[0, 2, 5], 9`` -> ``[2, 3, 4]``"""
    distances = np.empty_like(points)
    np.subtract(points[1:], points[:-1], out=distances[:-1])
    distances[-1:] = end - points[-1:]
    return distances


def is_new(in_order: np.ndarray) -> np.ndarray:
    """bool: differs from the value before it."""
    new = np.ones(len(in_order), bool)
    np.not_equal(in_order[1:], in_order[:-1], out=new[1:])
    return new


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``[5, 8], [2, 3]`` -> ``[5, 6, 8, 9, 10]``"""
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
