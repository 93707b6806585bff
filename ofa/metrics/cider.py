"""CIDEr-D: how much a caption agrees with the references, by TF-IDF-weighted n-grams of one to four
words.

Exact and fast: Python only looks up a number for each word (kept for the references of an image,
because CIDEr optimization scores many hypotheses against them); from there on numpy counts, weighs
and compares the n-grams of all captions of a call at once.

Source: Vedantam, Zitnick and Parikh, CIDEr: Consensus-based Image Description Evaluation, CVPR
2015, sec. 4 and appendix ("-D" = clipped counts and a penalty on different lengths).
"""

from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ofa.errors import UserError
from ofa.metrics.document_frequency import DocumentFrequencies
from ofa.metrics.ngrams import MAX_ORDER, WordIds, gaps, is_new, number_ngrams, ranges

CHUNK = 128  # results that are scored together
KEPT_IMAGES = 2**17  # references kept between calls: about half a kB per image
KEPT_WORDS = 2**20  # words kept between calls, beyond those of the document-frequency file


class CiderD:
    """CIDEr-D in the convention of the captioning community: 10 for a perfect caption, sigma 6,
    four orders.

    Args:
        df: "corpus": document frequencies of the references of each call, an image counted once per
            result; or a file of cached document frequencies, or what ``count_document_frequencies``
            returns.

    Raises: UserError when the file is missing or holds anything else.
    """

    def __init__(self, df: str | Path | dict = "corpus", sigma: float = 6.0):
        self.sigma = sigma
        self.words = WordIds()
        self.frequencies = None if df == "corpus" else DocumentFrequencies(df, self.words)
        self.num_fixed_words = len(self.words)
        self.references: dict[tuple[str, ...], np.ndarray] = {}
        # glibc gives freed memory back to the system above a threshold that follows the largest
        # block freed so far. In a process that never freed a large one, page faults would take a
        # third of the time of compute_score.
        np.empty(2**24, np.uint8)

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[float, np.ndarray]:
        """Scores of tokenized captions (words separated by spaces).

        Args:
            gts: image id -> references.
            res: ``{"image_id": id, "caption": [hypothesis]}`` each; several may belong to one
                image.

        Returns: mean, float64 array in the order of ``res``.
        """
        check_captions(gts, res)
        self._forget_if_large()
        # With the frequencies of a file every result stands for itself, and small arrays stay in
        # the processor's cache.
        size = len(res) if self.frequencies is None else CHUNK
        parts = [
            self._score(gts, res[start : start + size])
            for start in range(0, len(res), max(size, 1))
        ]
        scores = np.concatenate([np.zeros(0), *parts])
        return float(scores.mean()) if len(scores) else 0.0, scores

    def _score(self, gts: dict, res: list[dict]) -> np.ndarray:
        numbers: dict = {}  # image id -> number
        image_of = np.array(
            [numbers.setdefault(result["image_id"], len(numbers)) for result in res]
        )
        references = [tuple(gts[image_id]) for image_id in numbers]
        layout = SentenceTable(np.array(list(map(len, references))), image_of)
        stream = self._streams(references) + [
            self.words.stream([result["caption"][0] for result in res])
        ]
        return layout.compare(
            tabulate(np.concatenate(stream), layout), self.frequencies, self.sigma
        )

    def _streams(self, references: list[tuple[str, ...]]) -> list[np.ndarray]:
        """Word numbers of the references of each image."""
        new = [refs for refs in references if refs not in self.references]
        stream = self.words.stream(list(chain.from_iterable(new)))
        ends = np.flatnonzero(stream == 0)[np.cumsum(list(map(len, new)), dtype=int) - 1] + 1
        start = 0
        for refs, end in zip(new, ends.tolist()):
            self.references[refs] = stream[start:end]
            start = end
        return [self.references[refs] for refs in references]

    def _forget_if_large(self) -> None:
        if len(self.references) > KEPT_IMAGES:
            self.references.clear()
        if len(self.words) > self.num_fixed_words + KEPT_WORDS:
            self.references.clear()
            for word in list(self.words)[self.num_fixed_words :]:
                del self.words[word]


class SentenceTable:
    """Which sentence belongs where. An image's references come first, then its hypotheses: that is
    their ``place``.

    A sentence is known by its ``cell``, (image << place_bits) + place.

    Args:
        num_refs: int64[images].
        image_of: int64[H], of the hypotheses.
    """

    def __init__(self, num_refs: np.ndarray, image_of: np.ndarray):
        self.num_refs, self.image_of = num_refs, image_of
        self.hyps_per_image = np.bincount(image_of)
        place_of = np.empty_like(image_of)
        place_of[np.argsort(image_of, kind="stable")] = ranges(num_refs, self.hyps_per_image)
        self.place_bits = int(place_of.max()).bit_length()
        self.num_cells = len(num_refs) << self.place_bits
        self.hyp_cells = (image_of << self.place_bits) + place_of
        ref_places = ranges(np.zeros_like(num_refs), num_refs)
        ref_cells = (np.repeat(np.arange(len(num_refs)), num_refs) << self.place_bits) + ref_places
        # in the order of the stream of words
        self.cells = np.concatenate([ref_cells, self.hyp_cells])

    def compare(
        self, table: "Table", frequencies: DocumentFrequencies | None, sigma: float
    ) -> np.ndarray:
        """float64[H]: CIDEr-D of the hypotheses."""
        idf = self.corpus_idf(table) if frequencies is None else frequencies.look_up(table.keys)
        weights = table.counts * idf[table.ngrams]
        squares = np.bincount(
            table.cells * MAX_ORDER + table.orders, weights * weights, self.num_cells * MAX_ORDER
        )
        norms = np.sqrt(squares).reshape(-1, MAX_ORDER)

        # Pairs of a hypothesis and a reference of its image.
        refs_per_hyp = self.num_refs[self.image_of]
        first_pair = np.cumsum(refs_per_hyp) - refs_per_hyp
        hyp = np.repeat(self.hyp_cells, refs_per_hyp)
        ref = ranges(self.image_of << self.place_bits, refs_per_hyp)

        # Matches: an n-gram of a hypothesis that a reference of its image has too. A group begins
        # with the references.
        of_hyp = np.flatnonzero(~table.is_ref)
        group = table.group_of[of_hyp]
        num_matches = table.refs_in_group[group]
        in_ref = ranges(table.group_starts[group], num_matches)
        in_hyp = np.repeat(of_hyp, num_matches)
        pairs_from = np.zeros(self.num_cells, np.int64)
        pairs_from[self.hyp_cells] = first_pair
        pair = pairs_from[table.cells[in_hyp]] + table.places[in_ref]
        ref_weights = weights[in_ref]
        products = np.minimum(weights[in_hyp], ref_weights) * ref_weights
        cells = pair * MAX_ORDER + table.orders[in_ref]
        cosine = (
            np.bincount(cells, products, len(ref) * MAX_ORDER).astype(float).reshape(-1, MAX_ORDER)
        )
        norm = norms[hyp] * norms[ref]
        np.divide(cosine, norm, out=cosine, where=norm != 0)

        difference = table.num_bigrams[hyp] - table.num_bigrams[ref]
        similarity = cosine.mean(-1) * np.exp(-(difference**2) / (2 * sigma**2))
        return 10 * np.add.reduceat(similarity, first_pair) / refs_per_hyp

    def corpus_idf(self, table: "Table") -> np.ndarray:
        """Inverse document frequencies by n-gram: each result brings the references of its image
        as one document."""
        image = table.cells[table.group_starts] >> self.place_bits
        documents = self.hyps_per_image[image] * (table.refs_in_group > 0)
        frequency = np.bincount(
            table.ngrams[table.group_starts], documents, MAX_ORDER * max(map(len, table.keys))
        )
        return np.log(len(self.image_of)) - np.log(np.maximum(frequency, 1))


class Table(NamedTuple):
    """The n-grams of all sentences, sorted by n-gram, image and place; a group is an n-gram of
    an image."""

    ngrams: np.ndarray  # int64[E], numbers of ngrams.Numbered
    orders: np.ndarray  # int64[E], number of words - 1
    cells: np.ndarray  # int64[E], which sentence
    places: np.ndarray  # int64[E], of that sentence in its image
    counts: np.ndarray  # float64[E], how often the n-gram occurs in the sentence
    is_ref: np.ndarray  # bool[E]
    group_of: np.ndarray  # int64[E]
    group_starts: np.ndarray  # int64[groups]
    refs_in_group: np.ndarray  # int64[groups], references with this n-gram
    keys: list[np.ndarray]  # of ngrams.Numbered
    num_bigrams: np.ndarray  # float64[cells]: what the penalty on different lengths compares


def tabulate(stream: np.ndarray, layout: SentenceTable) -> Table:
    """``stream``: words of the references, image by image, then those of the hypotheses."""
    starts = np.flatnonzero(np.concatenate([[0], stream]) == 0)[:-1]
    lengths = gaps(starts, len(stream))
    num_bigrams = np.zeros(layout.num_cells)
    num_bigrams[layout.cells] = np.maximum(lengths - 2, 0)
    by_cell = np.argsort(layout.cells)
    found = number_ngrams(stream[ranges(starts[by_cell], lengths[by_cell])])
    cells = np.repeat(layout.cells[by_cell], lengths[by_cell])[found.starts]

    first = np.flatnonzero(is_new(found.numbers) | is_new(cells))
    ngrams, cells = found.numbers[first], cells[first]
    images = cells >> layout.place_bits
    places = cells - (images << layout.place_bits)
    is_ref = places < layout.num_refs[images]
    new_group = is_new(ngrams) | is_new(images)
    group_starts = np.flatnonzero(new_group)
    refs = np.cumsum(is_ref)
    refs_before = refs[group_starts] - is_ref[group_starts]
    return Table(
        ngrams=ngrams,
        orders=ngrams & (MAX_ORDER - 1),
        cells=cells,
        places=places,
        counts=gaps(first, len(found.starts)).astype(float),
        is_ref=is_ref,
        group_of=np.cumsum(new_group) - 1,
        group_starts=group_starts,
        refs_in_group=gaps(refs_before, is_ref.sum()),
        keys=found.keys,
        num_bigrams=num_bigrams,
    )


def check_captions(gts: dict, res: list[dict]) -> None:
    for row, result in enumerate(res):
        if len(result["caption"]) != 1 or isinstance(result["caption"], str):
            raise UserError(
                f"result {row}: 'caption' expects a list of one string, found {result['caption']!r}"
            )
        refs = gts.get(result["image_id"])
        if not refs or isinstance(refs, str):
            raise UserError(
                f"result {row}: image {result['image_id']!r} needs a list of references, found"
                f" {refs!r}"
            )
