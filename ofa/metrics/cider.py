"""CIDEr-D: how much a caption agrees with the references, by TF-IDF-weighted n-grams of one to four words.

Exact, and fast by three means: n-grams are interned to integers (one dictionary look-up each), everything after that is
done for all captions of a call at once in numpy, and the n-grams of an image's references are kept between
calls, because CIDEr optimisation scores many hypotheses against the same references.

Source: Vedantam, Zitnick and Parikh, CIDEr: Consensus-based Image Description Evaluation, CVPR 2015, sec. 4 and
appendix ("-D" = clipped counts and a penalty on different lengths).
"""

import pickle
from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ofa.errors import UserError

MAX_ORDER = 4
KEPT_IMAGES = 16384  # references kept between calls; about 4 kB per image
KEPT_NGRAMS = 2**21  # n-grams kept beyond those of the document-frequency file
SHIFT = 32  # (owner << SHIFT) + n-gram: n-grams stay far below 2**32


class References(NamedTuple):
    """n-grams of the references of one image, sorted by n-gram."""

    ngrams: np.ndarray  # int64[E]
    slots: np.ndarray  # int64[E], which reference
    counts: np.ndarray  # float64[E], how often the n-gram occurs in it
    lengths: np.ndarray  # float64[R], as in Sentences


class Sentences(NamedTuple):
    """n-grams of several sentences, sorted by sentence, then by n-gram."""

    ngrams: np.ndarray  # int64[E]
    owners: np.ndarray  # int64[E], which sentence
    counts: np.ndarray  # float64[E]
    lengths: np.ndarray  # float64[S], number of bigrams: what the length penalty compares


class NgramIds(dict):
    """Word tuple -> integer; new ones are numbered on first sight. ``id % MAX_ORDER + 1`` is the number of words."""

    def __missing__(self, words: tuple[str, ...]) -> int:
        number = self[words] = len(self) * MAX_ORDER + len(words) - 1
        return number


class CiderD:
    """CIDEr-D in the convention of the captioning community: 10 for a perfect caption, sigma 6, four orders.

    Args:
        df: "corpus": document frequencies of the references of each call, an image counted once per result; or
            the path of a pickle ``{"ref_len": number of images, "document_frequency": {word tuple: images}}``.

    Raises: UserError when the file is missing or holds anything else.
    """

    def __init__(self, df: str | Path = "corpus", sigma: float = 6.0):
        self.sigma = sigma
        self.ids = NgramIds()
        self.references: dict[tuple[str, ...], References] = {}
        self.cached_idf = None
        if str(df) != "corpus":
            self._take_document_frequencies(*read_document_frequencies(df))
        self.num_cached = len(self.ids)

    def method(self) -> str:
        return "CIDEr-D"

    def compute_score(self, gts: dict, res: list[dict]) -> tuple[float, np.ndarray]:
        """Scores of tokenised captions (words separated by blanks).

        Args:
            gts: image id -> references.
            res: ``{"image_id": id, "caption": [hypothesis]}`` each; several may belong to one image.

        Returns: mean, float64 array in the order of ``res``.
        """
        check_captions(gts, res)
        if not res:
            return 0.0, np.zeros(0)
        self._forget_if_large()
        image_ids = list(dict.fromkeys(result["image_id"] for result in res))
        number = {image_id: i for i, image_id in enumerate(image_ids)}
        images = self._look_up([tuple(gts[image_id]) for image_id in image_ids])
        hyps = self._count([result["caption"][0] for result in res])
        scores = self._score(hyps, np.array([number[result["image_id"]] for result in res]), images)
        return float(scores.mean()), scores

    def _score(self, hyps: Sentences, image_of: np.ndarray, images: list[References]) -> np.ndarray:
        """float64[H]; ``image_of`` int64[H] says against which of ``images`` a hypothesis is scored."""
        sizes = np.array([len(image.ngrams) for image in images])
        num_refs = np.array([len(image.lengths) for image in images])
        first_ref = np.cumsum(num_refs) - num_refs
        ref_image = np.repeat(np.arange(len(images)), sizes)
        ref_ngrams = np.concatenate([image.ngrams for image in images])
        ref_owners = np.concatenate([image.slots for image in images]) + first_ref[ref_image]
        ref_lengths = np.concatenate([image.lengths for image in images])
        idf = self._inverse_document_frequencies(ref_image, ref_ngrams, np.bincount(image_of, minlength=len(images)))

        hyp_weights = hyps.counts * idf(hyps.ngrams)
        ref_weights = np.concatenate([image.counts for image in images]) * idf(ref_ngrams)
        hyp_norms = norms(hyps.owners, hyps.ngrams, hyp_weights, len(hyps.lengths))
        ref_norms = norms(ref_owners, ref_ngrams, ref_weights, len(ref_lengths))

        # every pair of a hypothesis' n-gram and the same n-gram in a reference of its image
        ref_keys = (ref_image << SHIFT) + ref_ngrams
        hyp_keys = (image_of[hyps.owners] << SHIFT) + hyps.ngrams
        start = np.searchsorted(ref_keys, hyp_keys, "left")
        matches = np.searchsorted(ref_keys, hyp_keys, "right") - start
        of_hyp = np.repeat(np.arange(len(hyp_keys)), matches)
        of_ref = np.arange(len(of_hyp)) + np.repeat(start - (np.cumsum(matches) - matches), matches)
        products = np.minimum(hyp_weights[of_hyp], ref_weights[of_ref]) * ref_weights[of_ref]

        # one row per pair of a hypothesis and a reference
        refs_per_hyp = num_refs[image_of]
        first_pair = np.cumsum(refs_per_hyp) - refs_per_hyp
        hyp_of_pair = np.repeat(np.arange(len(image_of)), refs_per_hyp)
        ref_of_pair = np.arange(len(hyp_of_pair)) + (first_ref[image_of] - first_pair)[hyp_of_pair]
        owner = hyps.owners[of_hyp]
        pair = first_pair[owner] + ref_owners[of_ref] - first_ref[image_of[owner]]
        overlap = sum_by_order(pair, hyps.ngrams[of_hyp], products, len(hyp_of_pair))
        norm = hyp_norms[hyp_of_pair] * ref_norms[ref_of_pair]
        cosine = np.divide(overlap, norm, out=overlap, where=norm != 0)
        difference = hyps.lengths[hyp_of_pair] - ref_lengths[ref_of_pair]
        similarity = cosine.mean(-1) * np.exp(-(difference**2) / (2 * self.sigma**2))
        return 10 * np.bincount(hyp_of_pair, similarity, len(image_of)) / refs_per_hyp

    def _inverse_document_frequencies(self, ref_image: np.ndarray, ref_ngrams: np.ndarray, results: np.ndarray):
        """Function int64[E] n-grams -> float64[E]; ``results`` is the number of results of each image."""
        if self.cached_idf is None:
            new = np.ones(len(ref_ngrams), dtype=bool)  # n-grams of an image are sorted: count each once per image
            new[1:] = (ref_ngrams[1:] != ref_ngrams[:-1]) | (ref_image[1:] != ref_image[:-1])
            known = len(self.ids)
            frequency = np.bincount(ref_ngrams[new] // MAX_ORDER, results[ref_image[new]], known)
            table = np.log(float(results.sum())) - np.log(np.maximum(frequency, 1))
            return lambda ngrams: table[ngrams // MAX_ORDER]
        table = self.cached_idf
        return lambda ngrams: table[np.minimum(ngrams // MAX_ORDER, self.num_cached)]

    def _take_document_frequencies(self, num_images: float, frequencies: dict[tuple[str, ...], float]) -> None:
        for words in frequencies:
            self.ids[words]  # numbered in this order
        table = np.fromiter(frequencies.values(), float, len(frequencies))
        # one more entry than n-grams: for all those that the file does not have
        self.cached_idf = np.log(float(num_images)) - np.log(np.maximum(np.append(table, 1), 1))

    def _look_up(self, images: list[tuple[str, ...]]) -> list[References]:
        missing = [refs for refs in dict.fromkeys(images) if refs not in self.references]
        if missing:
            sizes = np.array([len(refs) for refs in missing])
            sentences = self._count(list(chain.from_iterable(missing)))
            image_of = np.repeat(np.arange(len(missing)), sizes)
            slot_of = np.arange(len(image_of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            keys = (image_of[sentences.owners] << SHIFT) + sentences.ngrams
            order = np.argsort(keys, kind="stable")
            ends = np.searchsorted(keys[order], np.arange(1, len(missing)) << SHIFT)
            columns = (sentences.ngrams[order], slot_of[sentences.owners][order], sentences.counts[order])
            parts = [np.split(column, ends) for column in columns]
            lengths = np.split(sentences.lengths, np.cumsum(sizes)[:-1])
            self.references.update(zip(missing, map(References, *parts, lengths)))
        return [self.references[refs] for refs in images]

    def _count(self, sentences: list[str]) -> Sentences:
        number, ngrams, sizes, lengths = self.ids.__getitem__, [], [], []
        for sentence in sentences:
            words = sentence.split()
            second, third, fourth = words[1:], words[2:], words[3:]
            before = len(ngrams)
            ngrams.extend(map(number, zip(words)))
            ngrams.extend(map(number, zip(words, second)))
            ngrams.extend(map(number, zip(words, second, third)))
            ngrams.extend(map(number, zip(words, second, third, fourth)))
            sizes.append(len(ngrams) - before)
            lengths.append(len(second))
        keys = (np.repeat(np.arange(len(sentences)), sizes) << SHIFT) + np.array(ngrams, dtype=np.int64)
        keys, counts = np.unique(keys, return_counts=True)
        owners = keys >> SHIFT
        return Sentences(keys - (owners << SHIFT), owners, counts.astype(float), np.array(lengths, dtype=float))

    def _forget_if_large(self) -> None:
        if len(self.references) > KEPT_IMAGES:
            self.references.clear()
        if len(self.ids) > self.num_cached + KEPT_NGRAMS:
            self.references.clear()
            for words in list(self.ids)[self.num_cached :]:
                del self.ids[words]


def sum_by_order(owners: np.ndarray, ngrams: np.ndarray, values: np.ndarray, num_owners: int) -> np.ndarray:
    """float64[num_owners, MAX_ORDER]: sums of ``values`` per owner and number of words."""
    cells = owners * MAX_ORDER + ngrams % MAX_ORDER
    return np.bincount(cells, values, num_owners * MAX_ORDER).reshape(-1, MAX_ORDER)


def norms(owners: np.ndarray, ngrams: np.ndarray, weights: np.ndarray, num_owners: int) -> np.ndarray:
    return np.sqrt(sum_by_order(owners, ngrams, weights**2, num_owners))


def check_captions(gts: dict, res: list[dict]) -> None:
    for row, result in enumerate(res):
        if len(result["caption"]) != 1 or isinstance(result["caption"], str):
            raise UserError(f"result {row}: 'caption' expects a list of one string, found {result['caption']!r}")
        refs = gts.get(result["image_id"])
        if not refs or isinstance(refs, str):
            raise UserError(f"result {row}: image {result['image_id']!r} needs a list of references, found {refs!r}")


class FrequencyUnpickler(pickle.Unpickler):
    """Builds containers and numbers only; a file cannot make it run code."""

    SAFE = {
        ("collections", "defaultdict"): defaultdict,
        ("__builtin__", "float"): float,
        ("builtins", "float"): float,
        ("__builtin__", "int"): int,
        ("builtins", "int"): int,
    }

    def find_class(self, module, name):
        if (module, name) not in self.SAFE:
            raise pickle.UnpicklingError(f"it holds a '{module}.{name}'")
        return self.SAFE[module, name]


def read_document_frequencies(path: str | Path) -> tuple[float, dict[tuple[str, ...], float]]:
    """Number of images and images per n-gram from the pickles of the captioning community (``coco-train-words.p``)."""
    remedy = "expected a pickle {'ref_len': images, 'document_frequency': {word tuple: images}}, or df='corpus'"
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file of document frequencies; {remedy}")
    try:
        with open(path, "rb") as file:
            content = FrequencyUnpickler(file, encoding="latin1").load()
        num_images, frequencies = float(content["ref_len"]), dict(content["document_frequency"])
    except Exception as error:
        raise UserError(f"{path}: not a file of document frequencies ({error}); {remedy}") from error
    wrong = next((words for words in frequencies if not isinstance(words, tuple) or len(words) > MAX_ORDER), None)
    if wrong is not None or num_images <= 0:
        raise UserError(f"{path}: not document frequencies (n-gram {wrong!r}, {num_images:g} images); {remedy}")
    return num_images, frequencies
