"""Visual grounding: `` which region does the text " the red car " describe?`` -> ``<bin_12>
<bin_40> <bin_300> <bin_812>``.

Columns ``id, image, text, box``: RefCOCO, RefCOCO+ and RefCOCOg have them as ``--selected-cols
0,4,2,3``, the Chinese files as ``0,3,1,2``. A box is ``left,top,right,bottom`` in pixels of the
image. The image is squashed to a square of ``patch_image_size``, its aspect not kept, and a
corner there is the bin ``round(corner / max_image_size * (num_bins - 1))``.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from PIL import Image

from ofa.errors import UserError, place
from ofa.io.flags import option
from ofa.metrics.detection import BoxAccuracy
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import (
    BoxOptions,
    Example,
    RowContext,
    SampledOptions,
    Symbols,
    TaskOptions,
    TaskSpec,
    Usage,
    decode,
)
from ofa.task.text import clean_phrase
from ofa.tokens import boxes

if TYPE_CHECKING:
    import torch  # only where samples are made: commands start without it

logger = logging.getLogger(__name__)

PROMPTS = {
    "en": ' which region does the text " {} " describe?',
    "zh": '这段文字" {} "描述的是哪个区域？',
}
# size of what stands for an image that is not decoded, when only the words of a row are wanted
UNSEEN = (1, 1)
BEST = 5  # boxes per text in the result file, where the beam is that wide
Box = tuple[float, float, float, float]


@dataclass
class GroundingOptions(SampledOptions, BoxOptions):
    """Options of the grounding task."""

    eval_acc: bool = option(False, "validate with the accuracy at an overlap (IoU) of 0.5")


def box_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row. Only what is not learned may have an empty box; it is not scored."""
    import torch

    options = context.options
    text = clean_phrase(row["text"], options.max_src_length)
    if not text:
        raise context.error("a text that describes a region", repr(row["text"]))
    image = context.open_image(row["image"])
    target, box = "", [0.0] * 4
    if row["box"].strip() or context.training:
        box = boxes.parse_box(row["box"], context.where)
        target = box_symbols(box, image.size, options, context.where)
    return Example(
        id=row["id"],
        source=PROMPTS[context.language].format(text),
        target=target,
        image=image,
        extra={**ratios_of(image, options), "region_coord": torch.tensor(box)},
    )


def ratios_of(image: Image.Image, options: TaskOptions) -> dict[str, "torch.Tensor"]:
    """Model pixels per pixel of the image, as entries of a sample."""
    import torch

    x, y = boxes.resize_ratios(image.size, options.patch_image_size)
    return {"w_resize_ratio": torch.tensor(x), "h_resize_ratio": torch.tensor(y)}


def box_symbols(
    box: Sequence[float], image_size: tuple[int, int], options: GroundingOptions, where: str = ""
) -> Symbols:
    """Four bins of a box in pixels. Raises: UserError with ``where`` if it is not in its image."""
    if options.patch_image_size > options.max_image_size:
        raise UserError(
            f"--patch-image-size {options.patch_image_size}: expects at most --max-image-size"
            f" ({options.max_image_size}), or the last bins would stand for many places; raise it"
        )
    if image_size == UNSEEN:
        return Symbols("")
    if not boxes.check_inside(box, image_size, where):
        warn_of_overhang(where.rpartition(":")[0])
    bins = boxes.boxes_to_bins(
        box, image_size, options.patch_image_size, options.max_image_size, options.num_bins
    )
    return Symbols(boxes.bins_to_text(bins))


@cache
def warn_of_overhang(file: str) -> None:
    """Once per file and process."""
    logger.warning("%sboxes reach beyond their images; 'ofa doctor' names the rows", place(file))


def box_prediction(hypothesis: Hypothesis, row: BatchRow, options: Any) -> Prediction:
    """The box of four bins; anything else is an empty box at the upper left corner."""
    bins = boxes.text_to_bins(hypothesis.symbols)
    if len(bins) != 4:
        return Prediction(hypothesis.text.strip(), hypothesis.score, box=(0.0, 0.0, 0.0, 0.0))
    side = options.patch_image_size
    image_size = round(side / (row.w_resize_ratio or 1)), round(side / (row.h_resize_ratio or 1))
    decoded = boxes.bins_to_boxes(bins, image_size, side, options.max_image_size, options.num_bins)
    box, decoded_box = as_box(boxes.clip_boxes(decoded, image_size)), as_box(decoded)
    changed = None if decoded_box == box else decoded_box
    return Prediction(boxes.bins_to_text(bins), hypothesis.score, box, tuple(bins), changed)


def as_box(box: "torch.Tensor") -> Box:
    """float[4] -> numbers, to a thousandth of a pixel."""
    x0, y0, x1, y1 = (round(number, 3) for number in box.tolist())
    return x0, y0, x1, y1


def result_row(row_id: Any, prediction: Prediction) -> dict[str, Any]:
    """One entry of the result file: the upstream ``uniq_id`` and ``box``, and what is known
    besides. ``decoded_box`` is there where clipping changed the box."""
    entry = {"uniq_id": row_id, **described(prediction)}
    if prediction.decoded_box is not None:
        entry["decoded_box"] = list(prediction.decoded_box)
    if prediction.others:
        entry["others"] = [described(other) for other in prediction.others]
    return entry


def described(prediction: Prediction) -> dict[str, Any]:
    """Scores to a thousandth: what lies behind depends on the number of threads."""
    return {
        "box": list(prediction.box or ()),
        "score": round(prediction.score, 3),
        "bins": prediction.bins and list(prediction.bins),
    }


# four bins, whatever the network would rather say
boxes_only = partial(decode, bins_only=True, best=BEST)


SPEC = TaskSpec(
    name="refcoco",
    aliases=("grounding", "ground"),
    columns=(
        ID,
        IMAGE,
        Column("text", max_words=80, clean=clean_phrase, example="the circle on the left"),
        Column("box", "box", target=True),
    ),
    default_cols="0,4,2,3",
    usage=Usage(
        verb="ground",
        title="Find",
        noun="finding regions",
        about="The region of the image that a text describes.",
        button="Find it",
        files=("refcoco",),
        taught_by=("unify_task",),
    ),
    options=GroundingOptions,
    example=box_example,
    decoding=boxes_only,
    prediction=box_prediction,
    result=result_row,
    metrics=BoxAccuracy(attrgetter("eval_acc")),
)
