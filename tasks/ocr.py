"""Text recognition: `` what are the texts on the image?`` -> `` open daily``.

Columns ``id, image, text`` (``--selected-cols 0,1,2``). Texts are learned in lower case and
simplified Chinese. Images become the square that the network sees with their aspect kept, the rest
filled with their edge; a document's long strip is cut into four lines, one below the other.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Optional

import numpy as np
from PIL import Image

from ofa.io.flags import option
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import BatchRow, Hypothesis, Prediction, named_result
from ofa.task.scoring import Metric, TaskMetrics, mean
from ofa.task.task_spec import Example, GenerativeOptions, RowContext, TaskOptions, TaskSpec, Usage
from ofa.task.text import compared_text, learned_text, plain_text, written_text

TEXT = Column("text", target=True, max_words=64, clean=plain_text, scene_text=True)
PROMPTS = {"en": " what are the texts on the image?", "zh": "图片上的文字是什么?"}
# pixels of the shorter side: thinner images are stretched, text of fewer pixels is hard to read
SHORTEST = 64
LINES = 4  # that a document's strip is cut into
LINE = (64, 480)  # its height and width, pixels; other squares have lines of the same shape


@dataclass
class OcrOptions(GenerativeOptions):
    is_document: bool = option(False, "images are long lines, which are shown as four short ones")


def fit_square(
    image: Image.Image, size: int, document: bool = False, rng: Optional[random.Random] = None
) -> Image.Image:
    """An image of text as a square of ``size`` pixels. Args: document: it is a long strip. rng:
    where in the square it lies is drawn by chance; None: in the middle. Upstream draws it in
    evaluation as well, so that a model's answer changes from call to call; here only in training.
    """
    width, height = image.size
    shorter = max(min(SHORTEST, size), int(size * (min(width, height) / max(width, height))))
    if document:
        strip = np.asarray(resized(image, LINES * size, size * LINE[0] // LINE[1]))
        pixels = np.concatenate(np.split(strip, LINES, axis=1), axis=0)  # (LINES * line, size, 3)
    elif width >= height:
        pixels = np.asarray(resized(image, size, shorter))
    else:
        pixels = np.asarray(resized(image, shorter, size))
    free = size - min(pixels.shape[:2])
    before = free // 2 if rng is None else rng.randint(0, free)
    margins = [(0, 0), (0, 0), (0, 0)]
    margins[0 if pixels.shape[0] < size else 1] = (before, free - before)
    return Image.fromarray(np.pad(pixels, margins, mode="edge"))


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Bicubic, and the same to the last bit with every Pillow: 13 begins with the height where that
    leaves less to do, earlier ones never do; between the two steps values are rounded, which is up
    to twenty gray levels."""
    if width > image.width and height < image.height:
        image = image.resize((image.width, height), Image.Resampling.BICUBIC)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def ocr_example(row: Mapping[str, str], context: RowContext) -> Example:
    """``Open  Daily`` -> `` open daily``. Rows of evaluation splits may have no text."""
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


def edit_distance(found: str, text: str) -> float:
    """Characters to insert, delete or replace, as a part of the longer text's characters: 0
    (equal) to 1; spaces do not count."""
    from rapidfuzz.distance import Levenshtein  # not before it is needed

    return Levenshtein.normalized_distance(compared_text(found), compared_text(text))


def closeness(counts: Mapping[str, float]) -> float:
    return 1 - counts["_dist_sum"] / max(counts["_dist_cnt"], 1)


class ReadingMetrics(TaskMetrics):
    """``acc``, the part of the texts that are read without a fault, and ``ned``, 1 - the normalized
    edit distance: 1 is all right."""

    is_slow = True
    figures = (
        mean(
            "acc",
            "_acc_sum",
            "_acc_cnt",
            title="validation accuracy",
            words="share of texts read without a fault",
        ),
        Metric(
            "ned",
            ("_dist_sum", "_dist_cnt"),
            closeness,
            digits=4,
            words="1 minus the normalized edit distance",
        ),
    )

    def references(self, row: BatchRow) -> list[str]:
        return [written_text(row.target.strip())]

    def row_counts(self, prediction: Prediction, reference: Sequence[str]) -> dict[str, float]:
        distance = edit_distance(prediction.text, reference[0])
        return {"_acc_sum": distance == 0, "_acc_cnt": 1, "_dist_sum": distance, "_dist_cnt": 1}

    def constant(self, line: str) -> Prediction:
        return Prediction(plain_text(line))


SPEC = TaskSpec(
    name="ocr",
    aliases=("read",),
    columns=(ID, IMAGE, TEXT),
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
