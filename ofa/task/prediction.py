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
    """What predictions and metrics may know of a row of a batch, besides the prediction."""

    id: Any = None
    target: str = ""  # decoded
    ref_dict: Optional[Mapping[str, float]] = None  # accepted answer -> score
    w_resize_ratio: Optional[float] = None  # model pixels per original pixel
    h_resize_ratio: Optional[float] = None
    region_coord: Optional[tuple[float, ...]] = None  # the true box, xyxy in original pixels
    source: str = ""  # decoded, for tasks that draw
    target_str: Optional[str] = None  # the target as in the file, where it is kept


@dataclass(frozen=True)
class Hypothesis:
    """What the network predicted for a row."""

    text: str  # in words; symbols such as ``<bin_12>`` stand as they are
    # mean (or summed, ``--unnormalized``) log-probability of the tokens; of a ranked answer among
    # all answers
    score: float = math.nan
    symbols: str = ""  # entries of the vocabulary separated by spaces: ``<bin_12> <bin_40>``


@dataclass
class Prediction:
    """What a hypothesis means."""

    text: str  # the answer, as it is scored and written
    score: float = math.nan  # of the hypothesis
    box: Optional[tuple[float, float, float, float]] = None  # xyxy in pixels, inside the image
    bins: Optional[tuple[int, ...]] = None  # the box as the network predicts it
    decoded_box: Optional[tuple[float, float, float, float]] = None  # if clipping changed it
    codes: Optional[tuple[int, ...]] = None  # of a drawn image, row by row from the top
    image: Optional[Image.Image] = None  # as long as it is in no file
    file: Optional[str] = None
    clip_score: float = math.nan  # how well the image fits what was asked
    seed: Optional[int] = None  # of its random numbers
    reference: str = ""  # the row's accepted answer, for tasks whose result file holds it
    others: list["Prediction"] = field(default_factory=list)  # of the best: next ones, in order
    boxes: Optional[tuple[NamedBox, ...]] = None  # all objects; None: the task predicts none


@dataclass
class Shown:
    """How a row and what was predicted for it look on a page."""

    question: str = ""  # if it differs from row to row
    answer: str = ""  # the prediction in words; of a box nothing
    references: Sequence[str] = ()  # accepted answers in words
    # (one of ``ofa.report.page.OUTLINES``, xyxy in pixels) of each box to draw
    boxes: Sequence[tuple[str, Sequence[float]]] = ()
    image: str = ""  # base64 of an image to show instead of the row's


def text_prediction(hypothesis: Hypothesis, row: BatchRow, options: Any) -> Prediction:
    return Prediction(hypothesis.text.strip(), hypothesis.score)


def named_result(
    row_id: Any, prediction: Prediction, id_key: str, text_key: str, id_type: type = str
) -> dict[str, Any]:
    """One entry of the result file that has nothing but the id of the row and the text."""
    return {id_key: id_type(row_id), text_key: prediction.text}


def text_result(row_id: Any, answer: Prediction) -> dict[str, Any]:
    box = {} if answer.box is None else {"box": list(answer.box)}
    return {"uniq_id": str(row_id), "answer": answer.text, **box, "score": round(answer.score, 3)}


def parse_objects(field: str, where: str = "", what: str = "a column") -> list[NamedBox]:
    """``x0,y0,x1,y1,category id,category&&...`` -> boxes and categories. Args: where: ``file:row``.
    what: expects them. Raises: UserError with both."""
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
