"""Image captioning: `` what does the image describe?`` -> `` a cat on a mat``.

Columns ``id, image, caption``. In stage 1 a row has one caption and is trained by cross-entropy
(``--selected-cols 0,4,2``); for validation, evaluation and CIDEr optimization a row has all
captions of an image, joined by ``&&`` (``--selected-cols 1,4,2``). With ``--keep-punctuation``
captions are learned and generated as they are written: `` A dog, playing.``; scores do not count
punctuation either way.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import sacrebleu

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.metrics import CiderD
from ofa.metrics.caption_scores import (
    SINGLE_IMAGE,
    ZERO_BUT_CIDER_D,
    Frequencies,
    best_constant,
    caption_scores,
    caption_words,
)
from ofa.metrics.document_frequency import count_document_frequencies
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import (
    Example,
    Metric,
    RowContext,
    Scores,
    TaskMetrics,
    TaskOptions,
    TaskSpec,
    Usage,
)
from ofa.task.text import JOIN, caption_references, caption_target, has_words, remove_punctuation

logger = logging.getLogger(__name__)

PROMPTS = {"en": " what does the image describe?", "zh": "图片描述了什么内容?"}
BLEU_ORDER = 4
UNKNOWN = "[UNK]"  # what a BERT vocabulary writes for characters that it does not know


@dataclass
class CaptionOptions(TaskOptions):
    """Options of the caption task."""

    eval_bleu: bool = option(False, "validate with corpus BLEU (0 to 100)")
    eval_cider: bool = option(False, "validate with CIDEr-D")
    eval_args: Optional[str] = option(
        "{}", 'generation options for validation, e.g. \'{"beam":5,"max_len_b":16}\''
    )
    eval_print_samples: bool = option(False, "log one caption per validation batch")
    eval_cider_cached_tokens: Optional[str] = option(
        None,
        "file with document frequencies for CIDEr-D (coco-valid-words.p); "
        "default: those of the references of the validation file",
    )
    keep_punctuation: bool = option(
        False,
        "learn and generate captions with their punctuation; as upstream ASCII"
        " punctuation is removed otherwise",
    )
    scst: bool = option(False, "keep all captions of a training row, for CIDEr optimization")
    scst_args: str = option("{}", "generation options for CIDEr optimization, as --eval-args")


def caption_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row of the caption files.

    For training by cross-entropy the punctuation goes first and then all words after
    ``max_tgt_length``; for all other uses each caption keeps its whole length, and rows of
    evaluation splits may have none::

        "Two dogs, playing."         -> " Two dogs playing"
        "A car.&&A red  car, there"  -> " A car&&A red car there"
        "两只狗，在玩。"               -> " 两只狗，在玩。"      only ASCII punctuation is removed
    """
    options = context.options
    if context.training and not options.scst:
        captions = [
            caption_target(row["caption"], options.max_tgt_length, options.keep_punctuation)
        ]
        needed = True
    else:
        captions = caption_references(row["caption"], options.keep_punctuation)
        needed = context.training or options.scst
    if needed and not any(map(has_words, captions)):
        raise UserError(
            f"{context.where}: task 'caption' expects a caption with at least one word, "
            f"found {row['caption']!r}; fill it in or remove the row"
        )
    return Example(
        id=row["id"],
        source=PROMPTS[context.language],
        target=" " + JOIN.join(captions),
        image=context.open_image(row["image"]),
        max_source_tokens=options.max_src_length,
    )


def clean_prediction(hypothesis: Hypothesis, row: BatchRow, options: CaptionOptions) -> Prediction:
    """A generated caption as it is scored and written. Characters that the vocabulary does not
    know cannot be written."""
    text = hypothesis.text.replace(UNKNOWN, "")
    return Prediction(
        text.strip() if options.keep_punctuation else remove_punctuation(text), hypothesis.score
    )


def split_references(row: BatchRow) -> list[str]:
    """The captions of a row, cleaned already; an empty one (``a cat&&``) is no reference."""
    return [
        caption for caption in caption_references(row.target, keep_punctuation=True) if caption
    ] or [""]


def result_row(image_id: Any, caption: Prediction) -> dict[str, str]:
    """One entry of the result file, as the COCO caption tools read it."""
    return {"image_id": str(image_id), "caption": caption.text}


class CaptionScorer:
    """Counts for CIDEr-D and BLEU that add up over batches and ranks.

    Args:
        options: which of them to count.
        all_references: every reference of the validation file. Without cached document frequencies
            CIDEr-D takes them from these, not from the batch: a score must not depend on the batch
            size.
    """

    def __init__(self, options: CaptionOptions, all_references: Callable[[], list[list[str]]]):
        self.options = options
        if options.eval_cider:
            cached = options.eval_cider_cached_tokens
            references = [] if cached else list(filter(any, all_references()))
            if len(references) == 1:
                logger.warning(SINGLE_IMAGE)
            self.cider = CiderD(
                df=cached or count_document_frequencies(map(cider_words, references))
            )

    def __call__(self, found: list[Prediction], rows: list[BatchRow]) -> dict[str, float]:
        predictions, references = (
            [prediction.text for prediction in found],
            list(map(split_references, rows)),
        )
        counts: dict[str, float] = {}
        if self.options.eval_cider:
            counts |= self.cider_counts(predictions, references)
        if self.options.eval_bleu:
            counts |= bleu_counts(predictions, references)
        return counts

    def cider_counts(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        """Sum of the images' scores and number of images."""
        found = [
            {"image_id": image, "caption": [caption_words(text)]}
            for image, text in enumerate(predictions)
        ]
        _, scores = self.cider.compute_score(dict(enumerate(map(cider_words, references))), found)
        return {"_cider_score_sum": float(scores.sum()), "_cider_cnt": len(scores)}


def cider_words(references: list[str]) -> list[str]:
    return list(map(caption_words, references))


def bleu_counts(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """Matching and possible n-grams, and the lengths, as sacrebleu counts them, of
    ``caption_words``."""
    predictions, references = (
        list(map(caption_words, predictions)),
        list(map(cider_words, references)),
    )
    longest = max(map(len, references))
    streams: Any = [
        [refs[i] if i < len(refs) else None for refs in references] for i in range(longest)
    ]
    bleu = sacrebleu.corpus_bleu(predictions, streams, tokenize="none")
    counts: dict[str, float] = {"_bleu_sys_len": bleu.sys_len, "_bleu_ref_len": bleu.ref_len}
    for order in range(BLEU_ORDER):
        counts[f"_bleu_counts_{order}"] = bleu.counts[order]
        counts[f"_bleu_totals_{order}"] = bleu.totals[order]
    return counts


def cider_value(counts: Mapping[str, float]) -> float:
    """Mean over the images, rounded as upstream."""
    return round(counts["_cider_score_sum"] / max(counts["_cider_cnt"], 1), 3)


def bleu_value(counts: Mapping[str, float]) -> float:
    """Corpus BLEU from summed counts, 0 to 100."""
    score = sacrebleu.BLEU.compute_bleu(
        correct=[int(counts[f"_bleu_counts_{order}"]) for order in range(BLEU_ORDER)],
        total=[int(counts[f"_bleu_totals_{order}"]) for order in range(BLEU_ORDER)],
        sys_len=int(counts["_bleu_sys_len"]),
        ref_len=int(counts["_bleu_ref_len"]),
    )
    return round(score.score, 2)


def evaluates_cider(options: CaptionOptions) -> bool:
    return options.eval_cider


def evaluates_bleu(options: CaptionOptions) -> bool:
    return options.eval_bleu


BLEU_COUNTS = ("_bleu_sys_len", "_bleu_ref_len") + tuple(
    f"_bleu_{kind}_{order}" for kind in ("counts", "totals") for order in range(BLEU_ORDER)
)


class CaptionMetrics(TaskMetrics):
    """CIDEr-D and BLEU in validation, the scores of the COCO evaluation at the end, see
    ``ofa.metrics.caption_scores``."""

    figures = (
        Metric(
            "cider",
            ("_cider_score_sum", "_cider_cnt"),
            cider_value,
            evaluates_cider,
            "validation CIDEr-D",
        ),
        Metric("bleu", BLEU_COUNTS, bleu_value, evaluates_bleu, "validation BLEU"),
    )

    def references(self, row: BatchRow) -> list[str]:
        return split_references(row)

    def make_scorer(
        self, options: CaptionOptions, all_references: Callable[[], list[list[str]]]
    ) -> "CaptionScorer":
        return CaptionScorer(options, all_references)

    def final_scores(
        self,
        predictions: Sequence[Prediction],
        references: Sequence[Sequence[str]],
        names: Optional[Sequence[str]] = None,
        cider_df: Frequencies = "corpus",
    ) -> Scores:
        if len(references) == 1:
            logger.warning(SINGLE_IMAGE if cider_df == "corpus" else ZERO_BUT_CIDER_D)
        return caption_scores(
            [prediction.text for prediction in predictions], references, names, cider_df
        )

    def best_constant(
        self, lines: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[str, dict[str, float]]:
        return best_constant(lines, references)


SPEC = TaskSpec(
    name="caption",
    columns=(
        ID,
        IMAGE,
        Column("caption", "texts", target=True, max_words=20, clean=remove_punctuation),
    ),
    default_cols="0,4,2",
    usage=Usage(
        title="Caption",
        noun="captions",
        about="One sentence about the image.",
        button="Describe the image",
        generation={
            "en": {"beam": 5, "max_len_b": 16, "no_repeat_ngram_size": 3},
            "zh": {"beam": 8, "max_len_b": 128, "no_repeat_ngram_size": 3},
        },
        taught_by=("unify_task",),
    ),
    options=CaptionOptions,
    example=caption_example,
    prediction=clean_prediction,
    result=result_row,
    metrics=CaptionMetrics(),
)
