"""Image captioning: `` what does the image describe?`` -> `` a cat on a mat``.

Columns ``id, image, caption``: one caption for cross-entropy (``--selected-cols 0,4,2``); for
validation, evaluation and CIDEr optimization all captions of an image, joined by ``&&``
(``--selected-cols 1,4,2``). Scores do not count punctuation, also with ``--keep-punctuation``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Optional

from ofa.io.flags import option
from ofa.metrics.caption_scores import CaptionMetrics
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import BatchRow, Hypothesis, Prediction, named_result
from ofa.task.task_spec import Example, RowContext, SampledOptions, TaskSpec, Usage
from ofa.task.text import JOIN, caption_references, caption_target, has_words, remove_punctuation

PROMPTS = {"en": " what does the image describe?", "zh": "图片描述了什么内容?"}
CAPTIONS = Column("caption", "texts", target=True, max_words=20, clean=remove_punctuation)
UNKNOWN = "[UNK]"  # what a BERT vocabulary writes for characters that it does not know


@dataclass
class CaptionOptions(SampledOptions):
    eval_bleu: bool = option(False, "validate with corpus BLEU (0 to 100)")
    eval_cider: bool = option(False, "validate with CIDEr-D")
    eval_cider_cached_tokens: Optional[str] = option(
        None, "document frequencies for CIDEr-D, if not those of the validation file"
    )
    keep_punctuation: bool = option(False, "keep ASCII punctuation in captions, else it is removed")


def caption_example(row: Mapping[str, str], context: RowContext) -> Example:
    """For training by cross-entropy the punctuation goes first and then all words after
    ``max_tgt_length``; for all other uses each caption keeps its whole length, and rows of
    evaluation splits may have none::

        "Two dogs, playing."         -> " Two dogs playing"
        "A car.&&A red  car, there"  -> " A car&&A red car there"
        "两只狗，在玩。"               -> " 两只狗，在玩。"      only ASCII punctuation is removed
    """
    options = context.options
    text, keep = row["caption"], options.keep_punctuation
    if context.training and not options.scst:
        captions = [caption_target(text, options.max_tgt_length, keep)]
    else:
        captions = caption_references(text, keep)
    if (context.training or options.scst) and not any(map(has_words, captions)):
        raise context.error("a caption with at least one word", repr(text))
    return Example(
        id=row["id"],
        source=PROMPTS[context.language],
        target=" " + JOIN.join(captions),
        image=context.open_image(row["image"]),
        max_source_tokens=options.max_src_length,
    )


def clean_prediction(hypothesis: Hypothesis, row: BatchRow, options: CaptionOptions) -> Prediction:
    """A generated caption as it is scored and written, without unknown characters."""
    text = hypothesis.text.replace(UNKNOWN, "")
    text = text.strip() if options.keep_punctuation else remove_punctuation(text)
    return Prediction(text, hypothesis.score)


SPEC = TaskSpec(
    name="caption",
    columns=(ID, IMAGE, CAPTIONS),
    default_cols="0,4,2",
    usage=Usage(
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
    result=partial(named_result, id_key="image_id", text_key="caption"),
    metrics=CaptionMetrics(),
)
