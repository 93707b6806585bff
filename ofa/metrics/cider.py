"""CIDEr-D: how much a caption agrees with the references, by TF-IDF-weighted n-grams of one to four words.

Exact and fast: Python only looks up a number for each word (kept for the references of an image, because CIDEr
optimisation scores many hypotheses against them); from there on numpy counts, weighs and compares the n-grams of
all captions of a call at once.

Source: Vedantam, Zitnick and Parikh, CIDEr: Consensus-based Image Description Evaluation, CVPR 2015, sec. 4 and
appendix ("-D" = clipped counts and a penalty on different lengths).
"""

from pathlib import Path

import numpy as np

from ofa.errors import UserError
from ofa.metrics.document_frequency import DocumentFrequencies
from ofa.metrics.ngrams import MAX_ORDER, WordIds, is_new, number_ngrams, ranges, sorted_counts, sum_by_order

CHUNK = 64  # results that are scored together
KEPT_IMAGES = 2**17  # references kept between calls: about half a kB per image
KEPT_WORDS = 2**20  # words kept between calls, beyond those of the document-frequency file


class CiderD:
    """CIDEr-D in the convention of the captioning community: 10 for a perfect caption, sigma 6, four orders.

    Args:
        df: "corpus": document frequencies of the references of each call, an image counted once per result; or
            a file of cached document frequencies, or what ``count_document_frequencies`` returns.

    Raises: UserError when the file is missing or holds anything else.
    """

    def __init__(self, df: str | Path | dict = "corpus", sigma: float = 6.0):
        self.sigma = sigma
        self.words = WordIds()
        self.frequencies = None if df == "corpus" else DocumentFrequencies(df, self.words)
        self.num_fixed_words = len(self.words)
        self.references: dict[tuple[str, ...], np.ndarray] = {}

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[float, np.ndarray]:
        """Scores of tokenised captions (words separated by blanks).

        Args:
            gts: image id -> references.
            res: ``{"image_id": id, "caption": [hypothesis]}`` each; several may belong to one image.

        Returns: mean, float64 array in the order of ``res``.
        """
        check_captions(gts, res)
        self._forget_if_large()
        # With the frequencies of a file every result stands for itself, and small arrays stay in the processor's cache.
        size = len(res) if self.frequencies is None else CHUNK
        parts = [self._score(gts, res[start : start + size]) for start in range(0, len(res), max(size, 1))]
        scores = np.concatenate([np.zeros(0), *parts])
        return float(scores.mean()) if len(scores) else 0.0, scores

    def _score(self, gts: dict, res: list[dict]) -> np.ndarray:
        images: dict = {}  # image id -> number of its results so far
        place_of_hyp = []
        for result in res:
            place = images.get(result["image_id"], 0)
            images[result["image_id"]] = place + 1
            place_of_hyp.append(place)
        number = {image_id: i for i, image_id in enumerate(images)}
        image_of_hyp = np.array([number[result["image_id"]] for result in res])
        refs = self._streams([tuple(gts[image_id]) for image_id in images])
        hyps = np.array(self.words.stream(result["caption"][0] for result in res))
        num_refs = np.array([np.count_nonzero(stream == 0) for stream in refs])
        return self._compare(np.concatenate([*refs, hyps]), num_refs, image_of_hyp, np.array(place_of_hyp))

    def _compare(self, stream: np.ndarray, num_refs: np.ndarray, image_of_hyp: np.ndarray, place_of_hyp: np.ndarray) -> np.ndarray:
        """float64[H]. The sentences of the stream are first the references, image by image, then the hypotheses.

        Args:
            num_refs: int64[images].
            image_of_hyp, place_of_hyp: int64[H], image of a hypothesis and how many of that image come before it.
        """
        num_images, num_hyps = len(num_refs), len(image_of_hyp)
        image_of = np.concatenate([np.repeat(np.arange(num_images), num_refs), image_of_hyp])
        place_of = np.concatenate([ranges(np.zeros_like(num_refs), num_refs), num_refs[image_of_hyp] + place_of_hyp])
        first_hyp = len(image_of) - num_hyps
        sentence_at = np.zeros((num_images, place_of.max() + 1), np.int64)
        sentence_at[image_of, place_of] = np.arange(len(image_of))

        # Sorted by image, n-gram, place in the image: a group holds the references and then the hypotheses with an n-gram.
        found = number_ngrams(stream)
        sentence = (np.cumsum(stream == 0) - (stream == 0))[found.starts]
        place_bits = int(place_of.max()).bit_length()
        ngram_bits = (MAX_ORDER * len(stream)).bit_length()
        keys = (((image_of[sentence] << ngram_bits) + found.numbers) << place_bits) + place_of[sentence]
        keys, counts = sorted_counts(keys)
        groups = keys >> place_bits
        image, ngram = groups >> ngram_bits, groups & ((1 << ngram_bits) - 1)
        owner = sentence_at[image, keys & ((1 << place_bits) - 1)]
        new_group = is_new(groups)
        group = np.cumsum(new_group) - 1
        group_start = np.flatnonzero(new_group)
        is_ref = owner < first_hyp
        refs_in_group = np.add.reduceat(is_ref, group_start, dtype=np.int64) if len(group_start) else group_start

        if self.frequencies is None:
            results = np.bincount(image_of_hyp)[image[group_start]] * (refs_in_group > 0)
            frequency = np.bincount(ngram[group_start], results, MAX_ORDER * len(stream))
            idf = np.log(num_hyps) - np.log(np.maximum(frequency, 1))
        else:
            idf = self.frequencies.look_up(found.keys)
        weights = counts * idf[ngram]
        norms = np.sqrt(sum_by_order(owner, ngram, weights**2, len(image_of)))

        # Pairs of a hypothesis and a reference of its image; pair = first_pair[hyp] + place of the reference.
        refs_per_hyp = num_refs[image_of_hyp]
        first_ref = (np.cumsum(num_refs) - num_refs)[image_of_hyp]
        first_pair = np.cumsum(refs_per_hyp) - refs_per_hyp
        ref = ranges(first_ref, refs_per_hyp)
        hyp = np.repeat(np.arange(first_hyp, len(image_of)), refs_per_hyp)

        # Matches: an n-gram of a hypothesis that a reference of its image has too.
        of_hyp = np.flatnonzero(~is_ref)
        num_matches = refs_in_group[group[of_hyp]]
        in_ref = ranges(group_start[group[of_hyp]], num_matches)
        in_hyp = np.repeat(of_hyp, num_matches)
        pair = (first_pair - first_ref)[owner[in_hyp] - first_hyp] + owner[in_ref]
        ref_weights = weights[in_ref]
        products = np.minimum(weights[in_hyp], ref_weights) * ref_weights

        cosine = sum_by_order(pair, ngram[in_ref], products, len(ref))
        norm = norms[hyp] * norms[ref]
        np.divide(cosine, norm, out=cosine, where=norm != 0)
        num_bigrams = np.bincount(owner, counts * (ngram % MAX_ORDER == 1), len(image_of))
        difference = num_bigrams[hyp] - num_bigrams[ref]
        similarity = cosine.mean(-1) * np.exp(-(difference**2) / (2 * self.sigma**2))
        return 10 * np.add.reduceat(similarity, first_pair) / refs_per_hyp

    def _streams(self, images: list[tuple[str, ...]]) -> list[np.ndarray]:
        """Word numbers of the references of each image."""
        for refs in images:
            if refs not in self.references:
                self.references[refs] = np.array(self.words.stream(refs))
        return [self.references[refs] for refs in images]

    def _forget_if_large(self) -> None:
        if len(self.references) > KEPT_IMAGES:
            self.references.clear()
        if len(self.words) > self.num_fixed_words + KEPT_WORDS:
            self.references.clear()
            for word in list(self.words)[self.num_fixed_words :]:
                del self.words[word]


def check_captions(gts: dict, res: list[dict]) -> None:
    for row, result in enumerate(res):
        if len(result["caption"]) != 1 or isinstance(result["caption"], str):
            raise UserError(f"result {row}: 'caption' expects a list of one string, found {result['caption']!r}")
        refs = gts.get(result["image_id"])
        if not refs or isinstance(refs, str):
            raise UserError(f"result {row}: image {result['image_id']!r} needs a list of references, found {refs!r}")
