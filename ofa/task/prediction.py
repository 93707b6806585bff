"""From what the network predicted to what is scored, written and shown: ``Hypothesis`` ->
``Prediction`` -> ``Shown``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from PIL import Image

from ofa.errors import UserError, place
from ofa.task.text import JOIN
from ofa.tokens.boxes import NamedBox, parse_box


@dataclass
class BatchRow:
    """What predictions and metrics may know of a row of a batch, besides the prediction.

    Args:
        target: the decoded target text. target_str: the target as in the file, where it is kept.
        ref_dict: accepted answer -> score. region_coord: the true box, xyxy in original pixels.
        w_resize_ratio, h_resize_ratio: model pixels per original pixel.
        source: the decoded source text, for tasks that draw.
    """

    id: Any = None
    target: str = ""
    ref_dict: Optional[Mapping[str, float]] = None
    w_resize_ratio: Optional[float] = None
    h_resize_ratio: Optional[float] = None
    region_coord: Optional[tuple[float, ...]] = None
    source: str = ""
    target_str: Optional[str] = None


@dataclass(frozen=True)
class Hypothesis:
    """What the network predicted for a row.

    Args:
        text: in words; symbols such as ``<bin_12>`` stand as they are.
        score: mean (or summed, ``--unnormalized``) log-probability of the tokens; of a ranked
            answer the log-probability among all answers.
        symbols: entries of the vocabulary separated by spaces, e.g. ``<bin_12> <bin_40>``.
    """

    text: str
    score: float = math.nan
    symbols: str = ""


@dataclass
class Prediction:
    """What a hypothesis means.

    Args:
        text: the answer, as it is scored and written. score: of the hypothesis.
        box: xyxy in pixels of the original image, inside of it. bins: as the network predicts it.
            decoded_box: before it is clipped to the image; None: the same.
        boxes: all objects that it names, with their names; None: the task predicts none.
        codes: of a drawn image, row by row from the top. image: as long as it is in no file.
            clip_score: how well it fits what was asked. seed: of its random numbers.
        reference: the row's accepted answer, for tasks whose result file holds it.
        others: the predictions of the other hypotheses, best first; only of the best one.
    """

    text: str
    score: float = math.nan
    box: Optional[tuple[float, float, float, float]] = None
    bins: Optional[tuple[int, ...]] = None
    decoded_box: Optional[tuple[float, float, float, float]] = None
    codes: Optional[tuple[int, ...]] = None
    image: Optional[Image.Image] = None
    file: Optional[str] = None
    clip_score: float = math.nan
    seed: Optional[int] = None
    reference: str = ""
    others: list["Prediction"] = field(default_factory=list)
    boxes: Optional[tuple[NamedBox, ...]] = None


@dataclass
class Shown:
    """How a row and what was predicted for it look on a page.

    Args:
        question: what was asked, if it differs from row to row.
        answer: the prediction in words; of a box nothing. references: accepted answers in words.
        boxes: (one of ``ofa.report.page.OUTLINES``, xyxy in pixels) of each box to draw.
        image: base64 of an image to show instead of the row's.
    """

    question: str = ""
    answer: str = ""
    references: Sequence[str] = ()
    boxes: Sequence[tuple[str, Sequence[float]]] = ()
    image: str = ""


def text_prediction(hypothesis: Hypothesis, row: BatchRow, options: Any) -> Prediction:
    """The text, as it is scored and written."""
    return Prediction(hypothesis.text.strip(), hypothesis.score)


def named_result(
    row_id: Any, prediction: Prediction, id_key: str, text_key: str, id_type: type = str
) -> dict[str, Any]:
    """One entry of the result file that has nothing but the id of the row and the text."""
    return {id_key: id_type(row_id), text_key: prediction.text}


def text_result(row_id: Any, answer: Prediction) -> dict[str, Any]:
    """One entry of the result file."""
    box = {} if answer.box is None else {"box": list(answer.box)}
    return {"uniq_id": str(row_id), "answer": answer.text, **box, "score": round(answer.score, 3)}


def parse_objects(field: str, where: str = "", what: str = "a column") -> list[NamedBox]:
    """``x0,y0,x1,y1,category id,category&&...`` -> boxes and categories.

    Args: where: ``file:row``. what: expects them, for messages.
    Raises: UserError with both.
    """
    objects: list[NamedBox] = []
    for part in field.strip().split(JOIN):
        *numbers, _, name = part.split(",", 5) if part.count(",") >= 5 else ("", "")
        if not name.strip():
            raise UserError(
                f"{place(where)}{what} expects objects 'x0,y0,x1,y1,category id,category' joined by"
                f" {JOIN}, found {part[:80]!r}; are the selected columns in the order of the task?"
            )
        objects.append((parse_box(",".join(numbers), where), name.strip()))
    return objects
