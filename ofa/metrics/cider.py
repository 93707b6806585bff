"""CIDEr-D: how much a caption agrees with the references, by TF-IDF-weighted n-grams of one to four
words. Python only hashes words; numpy counts, weighs and compares the n-grams of all captions of a
call at once. n-grams are known by 62-bit hashes: among ten million of them, that any two are taken
for one has a probability of 1e-5.

Source: Vedantam, Zitnick and Parikh, CIDEr: Consensus-based Image Description Evaluation, CVPR
2015, sec. 4 and appendix ("-D" = clipped counts and a penalty on different lengths).
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np

from ofa.errors import UserError
from ofa.metrics.document_frequency import MAX_ORDER, read_document_frequencies

CHUNK = 128  # results that are scored together: small arrays stay in the processor's cache
KEPT_IMAGES = 2**17  # references kept between calls: about half a kB per image
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits at random


class CiderD:
    """CIDEr-D as the captioning community has it: 10 for a perfect caption, sigma 6, four orders.

    Args:
        df: "corpus": document frequencies of the references of each call, an image counted once per
            result; or a file of them, or what ``count_document_frequencies`` returns.
        sigma: width of the penalty on different lengths, words.

    Raises:
        UserError: when the file is missing or holds anything else.
    """

    def __init__(self, df: str | Path | dict = "corpus", sigma: float = 6.0):
        self.sigma = sigma
        self.idf = None if df == "corpus" else InverseFrequencies.of_file(df)
        # glibc gives freed memory back to the system above a threshold that follows the largest
        # block freed so far. In a process that never freed a large one, page faults would take a
        # third of the time of compute_score.
        np.empty(2**24, np.uint8)

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[float, np.ndarray]:
        """Mean, and float64 scores in the order of ``res``, of tokenized captions.

        Args:
            gts: image id -> references.
            res: ``{"image_id": id, "caption": [hypothesis]}`` each; several may belong to one
                image.
        """
        check_captions(gts, res)
        size = max(len(res), 1) if self.idf is None else CHUNK
        parts = [self._score(gts, res[start : start + size]) for start in range(0, len(res), size)]
        scores = np.concatenate([np.zeros(0), *parts])
        return float(scores.mean()) if len(scores) else 0.0, scores

    def _score(self, gts: dict, res: list[dict]) -> np.ndarray:
        """float64[H]. Sentences are numbered: R references, image by image, then H hypotheses."""
        numbers: dict = {}  # image id -> number
        image_of = np.array([numbers.setdefault(row["image_id"], len(numbers)) for row in res])
        references = [reference_words(tuple(gts[image])) for image in numbers]
        hypotheses = hash_words([row["caption"][0] for row in res])
        words, lengths = map(np.concatenate, zip(*references, hypotheses))
        keys, owners = ngrams(words, lengths)

        num_refs = np.array([len(of_image) for _, of_image in references])
        first_ref = np.cumsum(num_refs) - num_refs
        idf = self.idf
        if idf is None:
            image_of_ref = np.repeat(np.arange(len(num_refs)), num_refs)
            known = owners < len(image_of_ref)
            images = image_of_ref[owners[known]]
            idf = InverseFrequencies.of_corpus(keys[known], images, np.bincount(image_of))

        # an entry: an n-gram of a sentence
        marks = np.arange(len(lengths), dtype=np.uint64) * FACTOR
        entries, first, counts = distinct(keys + marks[owners])
        keys, owners = keys[first], owners[first]
        orders = (keys & np.uint64(MAX_ORDER - 1)).astype(np.int64)
        weights = counts * idf.look_up(keys)
        norms = np.sqrt(by_order(owners, orders, weights * weights, len(lengths)))

        # a pair: a hypothesis and a reference of its image
        refs_per_hyp = num_refs[image_of]
        first_pair = np.cumsum(refs_per_hyp) - refs_per_hyp
        ref = ranges(first_ref[image_of], refs_per_hyp)
        hyp = np.repeat(np.arange(len(res)), refs_per_hyp) + num_refs.sum()

        # every n-gram of a hypothesis is looked for in each reference
        in_hyp = np.flatnonzero(owners >= num_refs.sum())
        row = owners[in_hyp] - num_refs.sum()
        pair = ranges(first_pair[row], refs_per_hyp[row])
        in_hyp = np.repeat(in_hyp, refs_per_hyp[row])
        in_ref, found = places(entries, keys[in_hyp] + marks[ref[pair]])
        pair, in_hyp, in_ref = pair[found], in_hyp[found], in_ref[found]
        products = np.minimum(weights[in_hyp], weights[in_ref]) * weights[in_ref]
        cosine = by_order(pair, orders[in_hyp], products, len(ref))
        norm = norms[hyp] * norms[ref]
        np.divide(cosine, norm, out=cosine, where=norm != 0)

        # the penalty compares numbers of bigrams
        difference = np.maximum(lengths[hyp], 1) - np.maximum(lengths[ref], 1)
        similarity = cosine.mean(-1) * np.exp(-(difference**2) / (2 * self.sigma**2))
        return 10 * np.add.reduceat(similarity, first_pair) / refs_per_hyp


class InverseFrequencies:
    """Inverse document frequencies by the keys of n-grams. Args: keys: uint64[N], ascending.
    frequencies: float64[N]. num_documents: of all."""

    def __init__(self, keys: np.ndarray, frequencies: np.ndarray, num_documents: float):
        self.keys, self.unknown = keys, np.log(num_documents)
        self.values = self.unknown - np.log(np.maximum(frequencies, 1))

    @classmethod
    def of_file(cls, source: str | Path | dict) -> "InverseFrequencies":
        """Raises: UserError when a file is missing or holds anything else."""
        if isinstance(source, dict):
            num_images, frequencies = source["ref_len"], source["document_frequency"]
        else:
            num_images, frequencies = read_document_frequencies(source)
        known = list(filter(None, frequencies))
        lengths = np.fromiter(map(len, known), np.int64, len(known))
        words = np.zeros((len(known), MAX_ORDER), np.uint64)
        words[np.arange(MAX_ORDER) < lengths[:, None]] = hashes(chain.from_iterable(known))
        keys = np.choose(lengths - 1, ngram_keys(list(words.T)))
        ascending = np.argsort(keys)
        values = np.fromiter(map(frequencies.__getitem__, known), float, len(known))
        return cls(keys[ascending], values[ascending], num_images)

    @classmethod
    def of_corpus(
        cls, keys: np.ndarray, images: np.ndarray, documents: np.ndarray
    ) -> "InverseFrequencies":
        """Args: keys, images: of all n-grams of references. documents: of each image."""
        marks = np.arange(len(documents), dtype=np.uint64) * FACTOR
        _, once, _ = distinct(keys + marks[images])
        different, place = np.unique(keys[once], return_inverse=True)
        return cls(different, np.bincount(place, documents[images[once]]), float(documents.sum()))

    def look_up(self, keys: np.ndarray) -> np.ndarray:
        """float64; n-grams that are not known count as frequency 1."""
        place, found = places(self.keys, keys)
        values = np.full(len(keys), self.unknown)
        values[found] = self.values[place[found]]
        return values


def hash_words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the words of all texts, one after the other, and the number of words of each."""
    split = [text.split() for text in texts]
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    return hashes(chain.from_iterable(split)), lengths


reference_words = lru_cache(KEPT_IMAGES)(hash_words)


@cache
def word_hash(word: str) -> int:
    """The same in every process, and with it the order in which weights are added; Python's is
    not."""
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def hashes(words: Iterable[str]) -> np.ndarray:
    return np.fromiter(map(word_hash, words), np.uint64)


def ngrams(words: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys of all n-grams of some sentences, and the sentence of each: uint64[N], int64[N]."""
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # to the end of it
    ahead = np.concatenate([words, np.zeros(MAX_ORDER, np.uint64)])
    columns = [ahead[shift : shift + len(words)] for shift in range(MAX_ORDER)]
    inside = [np.flatnonzero(left > shift) for shift in range(MAX_ORDER)]
    keys = [key[some] for key, some in zip(ngram_keys(columns), inside)]
    return np.concatenate(keys), np.concatenate([sentence[some] for some in inside])


def ngram_keys(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Keys of the n-grams of one word, of two, ...; the last two bits are the number of words - 1.
    Args: columns: hashes of their first words, of their second words, ..."""
    keys, key = [], np.zeros(len(columns[0]), np.uint64)
    for order, words in enumerate(columns):
        key = key * FACTOR + words
        keys.append((key << np.uint64(2)) + np.uint64(order))
    return keys


def distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different keys, ascending; for each a place where it is, and how often it is there.
    ``np.unique`` does the same with a slower sort."""
    order = np.argsort(keys)
    ascending = keys[order]
    new = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]])[: len(keys)])
    return ascending[new], order[new], np.diff(new, append=len(keys))


def places(ascending: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where values are in an array, and whether they are: int64[N], bool[N]."""
    if not len(ascending):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return place, ascending[place] == wanted


def by_order(rows: np.ndarray, orders: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """float64[count, MAX_ORDER]: the values of each row and each number of words, added."""
    sums = np.bincount(rows * MAX_ORDER + orders, values, count * MAX_ORDER)
    return sums.astype(float).reshape(-1, MAX_ORDER)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``[5, 8], [2, 3]`` -> ``[5, 6, 8, 9, 10]``"""
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)


def check_captions(gts: dict, res: list[dict]) -> None:
    for row, result in enumerate(res):
        if len(result["caption"]) != 1 or isinstance(result["caption"], str):
            raise UserError(
                f"result {row}: 'caption' expects a list of one string, found {result['caption']!r}"
            )
        image = result["image_id"]
        refs = gts.get(image)
        if not refs or isinstance(refs, str):
            raise UserError(
                f"result {row}: image {image!r} needs a list of references, found {refs!r}"
            )
