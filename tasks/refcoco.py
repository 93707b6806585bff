"""Visual grounding: `` which region does the text " the red car " describe?`` -> ``<bin_12>
<bin_40> <bin_300> <bin_812>``.

Columns ``id, image, text, box`` (``--selected-cols 0,4,2,3``, of the Chinese files ``0,3,1,2``). A
box is ``left,top,right,bottom`` in pixels of the image, which is squashed to a square of
``patch_image_size``; a corner there is the bin ``round(corner / max_image_size * (num_bins - 1))``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

from ofa.io.flags import option
from ofa.metrics.detection import BoxAccuracy
from ofa.task.box_rows import box_prediction, box_result, box_symbols, boxes_only, ratios_of
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.task_spec import BoxOptions, Example, RowContext, SampledOptions, TaskSpec, Usage
from ofa.task.text import clean_phrase
from ofa.tokens.boxes import parse_box

PHRASE = Column("text", max_words=80, clean=clean_phrase, example="the circle on the left")
BOX = Column("box", "box", target=True)
PROMPTS = {
    "en": ' which region does the text " {} " describe?',
    "zh": '这段文字" {} "描述的是哪个区域？',
}


@dataclass
class GroundingOptions(SampledOptions, BoxOptions):
    eval_acc: bool = option(False, "validate with the accuracy at an overlap (IoU) of 0.5")


def box_example(row: Mapping[str, str], context: RowContext) -> Example:
    """Only what is not learned may have an empty box; it is not scored."""
    import torch

    options = context.options
    text = clean_phrase(row["text"], options.max_src_length)
    if not text:
        raise context.error("a text that describes a region", repr(row["text"]))
    image = context.open_image(row["image"])
    target, box = "", [0.0] * 4
    if row["box"].strip() or context.training:
        box = parse_box(row["box"], context.where)
        target = box_symbols(box, image.size, options, context.where)
    return Example(
        id=row["id"],
        source=PROMPTS[context.language].format(text),
        target=target,
        image=image,
        extra={**ratios_of(image, options), "region_coord": torch.tensor(box)},
    )


SPEC = TaskSpec(
    name="refcoco",
    aliases=("grounding", "ground"),
    columns=(ID, IMAGE, PHRASE, BOX),
    default_cols="0,4,2,3",
    usage=Usage(
        verb="ground",
        title="Find",
        noun="finding regions",
        about="The region of the image that a text describes.",
        button="Find it",
        taught_by=("unify_task",),
    ),
    options=GroundingOptions,
    example=box_example,
    decoding=boxes_only,
    prediction=box_prediction,
    result=box_result,
    metrics=BoxAccuracy(attrgetter("eval_acc")),
)
