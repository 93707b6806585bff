"""Text recognition: `` what are the texts on the image?`` -> `` open daily``.

Columns ``id, image, text`` (``--selected-cols 0,1,2``). Images keep their aspect, see
``ofa.task.ocr_images``; texts are learned in lower case and simplified Chinese, see
``ofa.task.ocr_text``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.metrics.ocr import METRICS, final_scores, make_scorer
from ofa.task.ocr_images import fit_square
from ofa.task.ocr_text import learned_text, plain_text, written_text
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import Example, RowContext, TaskOptions, TaskSpec

PROMPTS = {"en": " what are the texts on the image?", "zh": "图片上的文字是什么?"}


@dataclass
class OcrOptions(TaskOptions):
    """Options of text recognition."""

    is_document: bool = option(
        False, "images are long lines of a document, which are shown as four short ones"
    )
    eval_args: Optional[str] = option(
        "{}", 'generation options for validation, e.g. \'{"beam":5,"max_len_b":64}\''
    )
    eval_print_samples: bool = option(False, "log one text per validation batch")


def ocr_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row: ``Open  Daily`` -> `` open daily``. Rows of evaluation splits may have no text."""
    options = context.options
    text = learned_text(row["text"], options.max_tgt_length, context.language)
    if context.training and not text:
        raise UserError(
            f"{context.where}: task 'ocr' expects the text on the image, found {row['text']!r};"
            " fill it in or remove the row"
        )
    image = context.open_image(row["image"])
    return Example(
        id=row["id"],
        source=PROMPTS[context.language],
        target=f" {text}" if text else "",
        image=fit_square(
            image,
            options.patch_image_size,
            options.is_document,
            context.rng if context.training else None,
        ),
        max_source_tokens=options.max_src_length,
    )


def reading(hypothesis: Hypothesis, row: BatchRow, options: TaskOptions) -> Prediction:
    """A generated text as it is written."""
    return Prediction(written_text(hypothesis.text), hypothesis.score)


def references(row: BatchRow) -> list[str]:
    return [written_text(row.target.strip())]


def result_row(image_id: Any, text: Prediction) -> dict[str, str]:
    """One entry of the result file."""
    return {"image_id": str(image_id), "ocr": text.text}


def row_references(row: Mapping[str, str]) -> list[str]:
    """The whole text of a row, however long; none if it has none."""
    text = plain_text(row["text"]).strip()
    return [text] if text else []


def constant(line: str) -> Prediction:
    return Prediction(plain_text(line))


SPEC = TaskSpec(
    name="ocr",
    columns=("id", "image", "text"),
    default_cols="0,1,2",
    options=OcrOptions,
    example=ocr_example,
    prediction=reading,
    references=references,
    result=result_row,
    metrics=METRICS,
    make_scorer=make_scorer,
    row_references=row_references,
    final_scores=final_scores,
    constant=constant,
)
