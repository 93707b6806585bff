"""How good captions are: in validation, as on the COCO server, and the constant baseline."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from typing import Any

import sacrebleu

from ofa.errors import UserError
from ofa.metrics import Bleu, CiderD, character_tokenize, coco_caption_scores, ptb_tokenize
from ofa.metrics.caption import DEFAULT_NAMES
from ofa.metrics.document_frequency import count_document_frequencies
from ofa.metrics.row_means import mean
from ofa.task.prediction import BatchRow, Prediction
from ofa.task.scoring import Metric, Names, Scorer, Scores, TaskMetrics, best_screened
from ofa.task.text import caption_references, is_chinese, remove_punctuation

logger = logging.getLogger(__name__)

BY_ROW = ("CIDEr", "BLEU-4", "ROUGE-L")
CIDER_COUNTS = ("_cider_score_sum", "_cider_cnt")
BLEU_COUNTS = ("_bleu_sys_len", "_bleu_ref_len") + tuple(
    f"_bleu_{kind}_{order}" for kind in ("counts", "totals") for order in range(4)
)
Frequencies = str | Path | dict  # of n-grams, as ``CiderD`` takes them
MARKED = re.compile(r"(\W*)(.*?)(\W*)")  # marks before a word, the word, marks behind it
ZERO_BUT_CIDER_D = (
    "CIDEr of a single image is 0 whatever is predicted: read CIDEr-D, which has document"
    " frequencies of --cider-df"
)
SINGLE_IMAGE = (
    "CIDEr and CIDEr-D of a single image are 0 whatever is predicted: each n-gram occurs in all"
    " documents and weighs nothing; score at least two images, or take CIDEr-D with document"
    " frequencies, made by ofa cider-df (--cider-df of ofa evaluate and report,"
    " --eval-cider-cached-tokens of validation)"
)


def caption_words(text: str, chinese: bool | None = None, marks: bool = False) -> str:
    """Words of a caption as CIDEr-D counts them in training, separated by spaces: without ASCII
    punctuation, ``"Two dogs, playing."`` -> ``"Two dogs playing"``; of Chinese characters without
    any punctuation, ``"两只狗，T恤"`` -> ``"两 只 狗 t 恤"``.

    Args:
        chinese: of a Chinese data set, its captions in Latin letters too; None: look at the text.
        marks: marks of punctuation around words are words of their own: ``"Two dogs , playing ."``.
    """
    if is_chinese(text) if chinese is None else chinese:
        return character_tokenize([text], marks)[0]
    if not marks:
        return " ".join(remove_punctuation(text).split())
    found: list[str] = []
    for chunk in map(MARKED.fullmatch, text.split()):
        before, word, behind = chunk.groups() if chunk else ("", "", "")
        found += [*before, remove_punctuation(word), *behind]
    return " ".join(filter(None, found))


def numbered(captions: Sequence[str]) -> list[dict]:
    """Captions in the form of ``CiderD.compute_score``."""
    return [{"image_id": row, "caption": [caption]} for row, caption in enumerate(captions)]


def tokenizer_of(references: Sequence[Sequence[str]]) -> Callable[[list[str]], list[str]]:
    """By character if any caption of the data set is Chinese, else PTB."""
    chinese = any(is_chinese(text) for texts in references for text in texts)
    return character_tokenize if chinese else ptb_tokenize


def caption_scores(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    names: Sequence[str] | None = None,
    cider_df: Frequencies = "corpus",
) -> Scores:
    """The scores of the COCO evaluation after PTB tokenization (Chinese: by character), and the
    CIDEr-D of validation: overall, and those of ``BY_ROW`` for each image.

    Args:
        names: of ``coco_caption_scores``; default: all but SPICE, METEOR only if it can run.
        cider_df: document frequencies of CIDEr-D, see ``validation_cider``.
    Raises: UserError if a score that was asked for by name cannot be computed.
    """
    gts, res = dict(enumerate(references)), numbered(predictions)
    tokenize = tokenizer_of(references)
    found = coco_caption_scores(gts, res, DEFAULT_NAMES if names is None else names, tokenize)
    if names is None and tokenize is ptb_tokenize:
        try:
            found |= coco_caption_scores(gts, res, ["METEOR"], tokenize)
        except UserError as error:
            logger.warning("skipped: %s", error)
    scores = Scores(
        {name: float(mean) for name, (mean, _) in found.items()},
        {name: [float(value) for value in found[name][1]] for name in BY_ROW if name in found},
    )
    scores.overall["CIDEr-D"] = validation_cider(predictions, references, cider_df)
    return scores


def validation_cider(
    predictions: Sequence[str], references: Sequence[Sequence[str]], df: Frequencies = "corpus"
) -> float:
    """CIDEr-D as validation during training computes it, see ``caption_words``. Args: df: document
    frequencies: those of the references, or a file of ``ofa cider-df`` or its content."""
    chinese = tokenizer_of(references) is character_tokenize
    gts = {row: words_of(texts, chinese) for row, texts in enumerate(references)}
    return CiderD(df=df).compute_score(gts, numbered(words_of(predictions, chinese)))[0]


def best_constant(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[str, dict[str, float]]:
    """The caption that scores best (CIDEr) when it is the answer to every image, and its
    scores; see ``ofa.task.scoring``."""
    tokenize = tokenizer_of(references)
    tokens = iter(tokenize([text for texts in references for text in texts]))
    gts = {row: [next(tokens) for _ in texts] for row, texts in enumerate(references)}

    def cider(text: str, images: int) -> float:
        some = {row: gts[row] for row in range(images)}
        return CiderD().compute_score(some, numbered([text] * images))[0]

    best = best_screened(list(dict.fromkeys(tokenize(list(candidates)))), len(gts), cider)
    means, _ = Bleu().compute_score(gts, numbered([best] * len(gts)))
    return best, {"CIDEr": cider(best, len(gts)), "BLEU-4": means[3]}


# --- validation ---------------------------------------------------------------------------------


def split_references(row: BatchRow) -> list[str]:
    """The captions of a row, cleaned already; an empty one (``a cat&&``) is no reference."""
    return [text for text in caption_references(row.target, keep_punctuation=True) if text] or [""]


class CaptionScorer:
    """Counts for CIDEr-D and BLEU that add up over batches and ranks.

    Args: all_references: of the validation file. Without cached document frequencies CIDEr-D takes
    them from these, not from the batch: a score must not depend on the batch size.
    """

    def __init__(self, options: Any, all_references: Callable[[], list[list[str]]]):
        self.options = options
        if options.eval_cider:
            cached = options.eval_cider_cached_tokens
            references = [] if cached else list(filter(any, all_references()))
            if len(references) == 1:
                logger.warning(SINGLE_IMAGE)
            df = cached or count_document_frequencies(map(words_of, references))
            self.cider = CiderD(df=df)

    def __call__(self, found: list[Prediction], rows: list[BatchRow]) -> dict[str, float]:
        predictions = words_of(prediction.text for prediction in found)
        references = [words_of(split_references(row)) for row in rows]
        counts: dict[str, float] = {}
        if self.options.eval_cider:
            gts = dict(enumerate(references))
            scores = self.cider.compute_score(gts, numbered(predictions))[1]
            counts |= dict(zip(CIDER_COUNTS, (float(scores.sum()), len(scores))))
        if self.options.eval_bleu:
            counts |= bleu_counts(predictions, references)
        return counts


def words_of(captions: Iterable[str], chinese: bool | None = None) -> list[str]:
    return [caption_words(text, chinese) for text in captions]


def bleu_counts(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """Lengths, and matching and possible n-grams, as sacrebleu counts them."""
    streams: Any = list(map(list, zip_longest(*references)))
    bleu = sacrebleu.corpus_bleu(predictions, streams, tokenize="none")
    return dict(zip(BLEU_COUNTS, (bleu.sys_len, bleu.ref_len, *bleu.counts, *bleu.totals)))


def bleu_value(counts: Mapping[str, float]) -> float:
    sys_len, ref_len, *ngrams = (int(counts[name]) for name in BLEU_COUNTS)
    score = sacrebleu.BLEU.compute_bleu(ngrams[:4], ngrams[4:], sys_len, ref_len)
    return round(score.score, 2)


class CaptionMetrics(TaskMetrics):
    """CIDEr-D and BLEU in validation, the scores of the COCO evaluation at the end."""

    figures = (
        mean("cider", *CIDER_COUNTS, attrgetter("eval_cider"), "validation CIDEr-D", digits=3),
        Metric("bleu", BLEU_COUNTS, bleu_value, attrgetter("eval_bleu"), "validation BLEU"),
    )

    def references(self, row: BatchRow) -> list[str]:
        return split_references(row)

    def make_scorer(self, options: Any, all_references: Callable[[], list[list[str]]]) -> Scorer:
        return CaptionScorer(options, all_references)

    def final_scores(
        self,
        predictions: Sequence[Prediction],
        references: Sequence[Sequence[str]],
        names: Names = None,
        cider_df: Frequencies = "corpus",
    ) -> Scores:
        if len(references) == 1:
            logger.warning(SINGLE_IMAGE if cider_df == "corpus" else ZERO_BUT_CIDER_D)
        return caption_scores([one.text for one in predictions], references, names, cider_df)

    def best_constant(
        self, lines: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[str, dict[str, float]]:
        return best_constant(lines, references)
