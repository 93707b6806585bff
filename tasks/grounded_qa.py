"""Questions about a region: `` what color is the car? region: <bin_12> ... <bin_812>`` -> `` red``.

Columns ``id, image, question, box, answers`` and perhaps ``objects`` (``--selected-cols
0,5,2,3,4``): a row of ``vqa_gen`` and the box that it asks about, ``left,top,right,bottom`` in
pixels of the image. Source: OFA paper, fig. 10.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ofa.task.box_rows import box_symbols
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.task_spec import BoxOptions, Example, RowContext
from ofa.tasks.vqa_gen import ANSWERS, QUESTION, VqaOptions
from ofa.tasks.vqa_gen import SPEC as VQA
from ofa.tokens.boxes import parse_box

REGION = " region:"


@dataclass
class GroundedQaOptions(VqaOptions, BoxOptions):
    """Those of ``vqa_gen``, and of boxes."""


def grounded_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row of ``vqa_gen``, its question followed by the region's four bins."""
    if context.options.add_object and "objects" not in row:
        expected = "a sixth column with objects for --add-object"
        raise context.error(expected, "none", "give it by --selected-cols")
    example = VQA.example({"objects": "", **row}, context)
    box = parse_box(row["box"], context.where)
    image: Any = example.image
    region = box_symbols(box, image.size, context.options, context.where)
    return replace(example, source=[*example.source, REGION, region])


BOX = Column("box", "box", aliases=("region",))
OBJECTS = Column("objects", "texts", may_be_absent=True)
SPEC = replace(
    VQA,
    name="grounded_qa",
    aliases=("region_vqa",),
    columns=(ID, IMAGE, QUESTION, BOX, ANSWERS, OBJECTS),
    usage=replace(
        VQA.usage,
        files=("grounded_qa",),
        title="Region",
        noun="questions about regions",
        taught_by=(),
    ),
    options=GroundedQaOptions,
    example=grounded_example,
)
