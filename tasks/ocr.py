"""Text recognition: `` what are the texts on the image?`` -> `` open daily``.

Columns ``id, image, text`` (``--selected-cols 0,1,2``). Images keep their aspect, see
``ofa.task.ocr_images``; texts are learned in lower case and simplified Chinese, see
``ofa.task.ocr_text``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from ofa.io.flags import option
from ofa.metrics.ocr import ReadingMetrics
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.ocr_images import fit_square
from ofa.task.ocr_text import learned_text, plain_text, written_text
from ofa.task.prediction import BatchRow, Hypothesis, Prediction, named_result
from ofa.task.task_spec import Example, GenerativeOptions, RowContext, TaskOptions, TaskSpec, Usage

PROMPTS = {"en": " what are the texts on the image?", "zh": "图片上的文字是什么?"}


@dataclass
class OcrOptions(GenerativeOptions):
    """Options of text recognition."""

    is_document: bool = option(False, "images are long lines, which are shown as four short ones")


def ocr_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row: ``Open  Daily`` -> `` open daily``. Rows of evaluation splits may have no text."""
    options = context.options
    text = learned_text(row["text"], options.max_tgt_length, context.language)
    if context.training and not text:
        raise context.error("the text on the image", repr(row["text"]))
    rng = context.rng if context.training else None
    image, size = context.open_image(row["image"]), options.patch_image_size
    return Example(
        id=row["id"],
        source=PROMPTS[context.language],
        target=f" {text}" if text else "",
        image=fit_square(image, size, options.is_document, rng),
        max_source_tokens=options.max_src_length,
    )


def reading(hypothesis: Hypothesis, row: BatchRow, options: TaskOptions) -> Prediction:
    return Prediction(written_text(hypothesis.text), hypothesis.score)


SPEC = TaskSpec(
    name="ocr",
    aliases=("read",),
    columns=(
        ID,
        IMAGE,
        Column("text", target=True, max_words=64, clean=plain_text, scene_text=True),
    ),
    usage=Usage(
        verb="read",
        title="Read",
        noun="reading",
        about="The text on the image.",
        button="Read it",
        generation={"en": {"beam": 5, "max_len_b": 64}},
    ),
    options=OcrOptions,
    example=ocr_example,
    prediction=reading,
    result=partial(named_result, id_key="image_id", text_key="ocr"),
    metrics=ReadingMetrics(),
)
