"""Document frequencies of n-grams: how many images have a reference with that n-gram, counted
beforehand.

The captioning community passes them around as pickles (``coco-train-words.p``,
``coco-valid-words.p``)::

    {"ref_len": number of images, "document_frequency": {("a",): 112000.0, ("a", "cat"): 2300.0,
    ...}}

Those for CIDEr optimization count the word ``<eos>`` at the end of every caption.
"""

import pickle
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from ofa.errors import UserError
from ofa.io.atomic import replacing
from ofa.io.numbers import read_decimal
from ofa.io.pickles import DAMAGED, load_plain
from ofa.metrics.ngrams import MAX_ORDER, SHIFT, WordIds, dense_ranks

EOS = "<eos>"
EXPECTED = (
    "expected a pickle {'ref_len': number of images, 'document_frequency': {word tuple: images}},"
    " or df='corpus'; make one: ofa cider-df build"
)


class DocumentFrequencies:
    """Inverse document frequencies by look-up in sorted tables, one per number of words.

    Args:
        source: the pickle, or its content. Raises UserError when it is missing or holds anything
            else.
        words: takes the words of the file, before any others.
    """

    def __init__(self, source: str | Path | dict, words: WordIds):
        if isinstance(source, dict):
            num_images, frequencies = source["ref_len"], source["document_frequency"]
        else:
            num_images, frequencies = read_document_frequencies(source)
        self.log_images = np.log(num_images)
        self.keys: list[np.ndarray] = []
        self.idf: list[np.ndarray] = []
        rows = [self._rows(frequencies, order, words) for order in range(1, MAX_ORDER + 1)]
        for order in range(
            MAX_ORDER - 1, 0, -1
        ):  # the beginning of each n-gram gets an entry, with frequency 0
            ngrams, counts = rows[order]
            beginnings = np.concatenate([rows[order - 1][0], ngrams[:, :-1]])
            rows[order - 1] = (
                beginnings,
                np.concatenate([rows[order - 1][1], np.zeros(len(counts))]),
            )
        place = np.zeros(len(rows[0][0]), np.int64)
        for order, (ngrams, counts) in enumerate(rows):
            if order:
                place = self._find(order - 1, ngrams[:, :-1])
            keys, ranks, _ = dense_ranks((place << SHIFT) + ngrams[:, -1])
            frequency = np.zeros(len(keys))
            np.maximum.at(frequency, ranks, counts)
            self.keys.append(keys)
            self.idf.append(self.log_images - np.log(np.maximum(frequency, 1)))

    def look_up(self, keys: list[np.ndarray]) -> np.ndarray:
        """float64 by the numbers of ``ngrams.Numbered``; n-grams that the file does not have count
        as frequency 1.

        Args: keys: ``NgramIndex.keys``.
        """
        table = np.full((max(map(len, keys)), MAX_ORDER), self.log_images)
        places = np.zeros(1, np.int64)
        for order, wanted in enumerate(keys):
            places = self._places(
                order, (places[wanted >> SHIFT] << SHIFT) + (wanted & ((1 << SHIFT) - 1))
            )
            known = places >= 0
            table[: len(wanted), order][known] = self.idf[order][places[known]]
        return table.reshape(-1)

    def _rows(self, frequencies: dict, order: int, words: WordIds) -> tuple[np.ndarray, np.ndarray]:
        """int64[n, order] word numbers and float64[n] frequencies of the n-grams of ``order``
        words."""
        ngrams = [ngram for ngram in frequencies if len(ngram) == order]
        numbers = np.fromiter(
            map(words.__getitem__, chain.from_iterable(ngrams)), np.int64, len(ngrams) * order
        )
        return numbers.reshape(-1, order), np.fromiter(
            map(frequencies.__getitem__, ngrams), float, len(ngrams)
        )

    def _find(self, order: int, ngrams: np.ndarray) -> np.ndarray:
        """int64[n]: places of n-grams int64[n, order + 1] in the table of that order."""
        places = np.zeros(len(ngrams), np.int64)
        for i in range(order + 1):
            places = self._places(i, (places << SHIFT) + ngrams[:, i])
        return places

    def _places(self, order: int, keys: np.ndarray) -> np.ndarray:
        """Places in the table, or -1. The key of an n-gram whose beginning is unknown is
        negative: not found either."""
        table = self.keys[order]
        if len(table) == 0:
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(table, keys), len(table) - 1)
        return np.where(table[places] == keys, places, -1)


def count_document_frequencies(references: Iterable[list[str]]) -> dict:
    """Content of such a pickle for the references of some images."""
    frequencies: Counter = Counter()
    num_images = 0
    for captions in references:
        num_images += 1
        split = [caption.split() for caption in captions]
        frequencies.update(
            {
                tuple(words[start : start + order])
                for words in split
                for order in range(1, MAX_ORDER + 1)
                for start in range(len(words) - order + 1)
            }
        )
    return {"ref_len": num_images, "document_frequency": dict(frequencies)}


def write_document_frequencies(path: str | Path, content: dict) -> None:
    """Write what ``count_document_frequencies`` returns as others' programs read it, whole or
    not at all."""
    frequencies = defaultdict(
        float, {ngram: float(count) for ngram, count in content["document_frequency"].items()}
    )
    with replacing(path, "wb") as file:
        pickle.dump(
            {"ref_len": content["ref_len"], "document_frequency": frequencies}, file, protocol=2
        )


def read_document_frequencies(path: str | Path) -> tuple[float, dict[tuple[str, ...], float]]:
    """Number of images, and images per n-gram."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file of document frequencies; {EXPECTED}")
    try:
        content = load_plain(path, "latin-1")
        num_images, frequencies = (
            read_decimal(content["ref_len"]),
            dict(content["document_frequency"]),
        )
        counts = np.fromiter(frequencies.values(), float, len(frequencies))
    except DAMAGED as error:
        raise UserError(
            f"{path}: not a file of document frequencies ({str(error)[:200]}); {EXPECTED}"
        ) from error
    wrong = next(
        (ngram for ngram in frequencies if not isinstance(ngram, tuple) or len(ngram) > MAX_ORDER),
        None,
    )
    if wrong is not None or num_images <= 0 or not np.isfinite(counts).all() or (counts < 0).any():
        raise UserError(
            f"{path}: not document frequencies (n-gram {wrong!r}, {num_images:g} images);"
            f" {EXPECTED}"
        )
    return num_images, frequencies
