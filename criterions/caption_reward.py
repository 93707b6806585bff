"""What a sampled caption earns: CIDEr-D with counted document frequencies, BLEU-4 if wanted."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ofa.errors import UserError
from ofa.metrics import Bleu, CiderD
from ofa.metrics.caption_scores import caption_words
from ofa.metrics.document_frequency import EOS, read_document_frequencies
from ofa.task.text import has_words, is_chinese

logger = logging.getLogger(__name__)

# of a BERT vocabulary: saying it earns nothing, also where the reference has unknown characters
UNREADABLE = "[UNK]"
REMEDY = "make one of your training captions: ofa cider-df build --tsv TRAIN.tsv --out words.p"


class CaptionReward:
    """``cider_weight * CIDEr-D (0 to 10) + bleu_weight * BLEU-4 (0 to 1)`` of captions.

    CIDEr-D sees the word ``<eos>`` at the end of every caption, as upstream: else a caption that
    stops in the middle of a phrase would lose nothing. Words are those of the file: characters if
    it was counted on Chinese captions, with punctuation if it counted that.

    Args: frequencies: file of document frequencies (``coco-train-words.p``, or made by ``ofa
        cider-df build``).
    Raises: UserError if the file is missing or holds anything else.
    """

    def __init__(
        self, frequencies: str | Path, cider_weight: float = 1.0, bleu_weight: float = 0.0
    ):
        if min(cider_weight, bleu_weight) < 0 or cider_weight + bleu_weight == 0:
            raise UserError(
                f"--scst-cider-weight {cider_weight} --scst-bleu-weight {bleu_weight}: expects"
                " non-negative weights, at least one of them above"
            )
        self.path, self.cider_weight, self.bleu_weight = str(frequencies), cider_weight, bleu_weight
        self.num_images, counts = read_document_frequencies(frequencies)
        self.known_words = {ngram[0] for ngram in counts if len(ngram) == 1}
        self.cider = CiderD(df={"ref_len": self.num_images, "document_frequency": counts})
        self.has_eos = EOS in self.known_words
        self.counts_marks = not all(map(has_words, self.known_words))
        chinese = any(map(is_chinese, self.known_words)) or None
        self.words_of = functools.partial(caption_words, chinese=chinese, marks=self.counts_marks)
        counted = self.num_images, len(self.known_words), self.path
        logger.info("reward: document frequencies of %d images, %d words: %s", *counted)
        if not self.has_eos:
            message = "%s: has no %s, so the ends of captions count as rare phrases; %s"
            logger.warning(message, self.path, EOS, REMEDY)

    def __call__(
        self, captions: Sequence[str], references: Sequence[Sequence[str]], images: Sequence[int]
    ) -> np.ndarray:
        """Rewards of the captions, float64[captions]. Args: references: of each image, as written;
        images: of each caption, number of its image."""
        rewards = np.zeros(len(captions))
        hypotheses = [self.words_of(text.replace(UNREADABLE, "")) for text in captions]
        gts = {image: list(map(self.words_of, texts)) for image, texts in enumerate(references)}
        if self.cider_weight:
            ended = {image: [f"{text} {EOS}" for text in texts] for image, texts in gts.items()}
            _, scores = self.cider.compute_score(ended, results(hypotheses, images, f" {EOS}"))
            rewards += self.cider_weight * scores
        if self.bleu_weight:
            _, of_orders = Bleu().compute_score(gts, results(hypotheses, images))
            rewards += self.bleu_weight * of_orders[3]
        return rewards

    def diagnosis(
        self, captions: Sequence[str], references: Sequence[Sequence[str]], images: Sequence[int]
    ) -> str:
        """Why these captions earn nothing, as far as words can tell, and what to do."""
        words = [set(self.words_of(text).split()) for text in captions]
        expected = [
            {word for text in texts for word in self.words_of(text).split()} for texts in references
        ]
        known = [len(found & self.known_words) / max(len(found), 1) for found in expected]
        example = f"for example {captions[0]!r} where {references[images[0]][0]!r} is expected"
        if np.mean(known) < 0.5:
            reason = (
                f"{self.path} knows {100 * np.mean(known):.0f} % of the words of the references: it"
                f" was counted on captions of another language, case or tokenization; {REMEDY}"
            )
        elif not any(found & expected[image] for found, image in zip(words, images)):
            reason = (
                "the samples share no word with their references: does training start from a"
                " checkpoint of stage 1 in this language and vocabulary (--finetune-from-model,"
                " --bpe-dir)?"
            )
        elif not self.has_eos:
            reason = f"{self.path} has no {EOS}; {REMEDY}"
        else:
            reason = (
                f"all n-grams that they share with the references weigh nothing by {self.path}"
                f" ({self.num_images:g} images): is it the file of this data set? {REMEDY}"
            )
        return f"{reason} ({example})"


class RewardMonitor:
    """Notices when rewards stay useless. Args: patience: batches in a row that may earn nothing."""

    def __init__(self, patience: int):
        self.patience, self.useless = patience, 0

    def should_stop(self, scores: np.ndarray) -> bool:
        """Look at the rewards of a batch: are they all zero, or not finite, for too long?"""
        useful = np.isfinite(scores).all() and scores.any()
        self.useless = 0 if useful else self.useless + 1
        return self.useless >= self.patience > 0


def results(captions: Sequence[str], images: Sequence[int], end: str = "") -> list[dict]:
    """Captions in the form of ``CiderD.compute_score``."""
    return [{"image_id": image, "caption": [text + end]} for text, image in zip(captions, images)]
