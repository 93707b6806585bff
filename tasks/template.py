"""A task in one line: ``--task "[image] how many [text:thing] are there? -> [text:count]"``.

    row       the columns id, image, thing = "cubes", count = "3"
    source    " how many cubes are there?"
    target    " 3"

How a template is written is in ``ofa.task.template``; here is what the kinds of its slots mean.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Optional

import torch
from PIL import Image

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.metrics.accuracy import Accuracy
from ofa.metrics.detection import BoxAccuracy, DetectionMetrics
from ofa.task.answers import AnswerOptions, answer_texts, ranks_all
from ofa.task.columns import Column
from ofa.task.prediction import parse_objects
from ofa.task.task_spec import (
    BatchRow,
    BoxOptions,
    Decoding,
    Example,
    Hypothesis,
    Prediction,
    RowContext,
    Symbols,
    TaskOptions,
    TaskSpec,
    Text,
    Usage,
    mixture_spec,
)
from ofa.task.template import Slot, Template, parse_template
from ofa.task.text import split_objects, truncate_words
from ofa.tasks import refcoco
from ofa.tokens.boxes import bins_to_boxes, parse_box, text_to_objects

logger = logging.getLogger(__name__)

NAME = "template"


@dataclass
class TemplateOptions(AnswerOptions, BoxOptions):
    """Options of a task in one line."""

    template: Optional[str] = option(
        None, "task in one line, e.g. '[image] how many [text:thing]? -> [text:count]'"
    )
    eval_args: Optional[str] = option(
        '{"beam":5,"max_len_b":30}', "generation options of validation and evaluation, as JSON"
    )


# --- from a row to an example --------------------------------------------------------------------


def template_example(row: Mapping[str, str], context: RowContext, template: Template) -> Example:
    """A row; of evaluation splits its target may be empty.

    Raises: UserError naming the row and the column that does not hold what its slot expects.
    """
    options = context.options
    images = [context.open_image(row[slot.column]) for slot in template.images]
    ratios = refcoco.ratios_of(images[0], options) if images else {}
    choices = choices_of(template, row, context)
    target, extra = target_of(template, row, context, images, choices)
    return Example(
        id=row["id"],
        source=source_of(template, row, context, images, choices),
        target=target,
        image=images[0] if images else None,
        image_2=images[1] if len(images) > 1 else None,
        max_source_tokens=options.max_source_positions - 2,
        max_target_tokens=options.max_tgt_length if template.target.kind == "text" else None,
        answers=choices or None,
        extra={**ratios, **extra},
    )


def source_of(
    template: Template,
    row: Mapping[str, str],
    context: RowContext,
    images: Sequence[Image.Image],
    choices: Sequence[str],
) -> list[str]:
    """The sentence with its slots filled in: texts, and symbols of boxes."""
    parts: list[str] = [""]
    for part in template.source:
        if isinstance(part, str):
            parts[-1] += part
        elif part.kind == "text":
            text = filled(row, part, context)
            parts[-1] += truncate_words(text, context.options.max_src_length)
        elif part.kind == "choices":
            parts[-1] += ", ".join(choices)
        else:
            shown = boxes_with_names(filled(row, part, context), part, context, images[0])
            parts += [*shown, ""]
    return [
        part if isinstance(part, Symbols) else spaced(part, first=number == 0)
        for number, part in enumerate(parts)
        if part
    ]


def spaced(text: str, first: bool) -> str:
    """Runs of spaces become one; a sentence begins with a space, as all prompts do."""
    words = " ".join(text.split())
    return f" {words}" if words and (first or text[0].isspace()) else words


def boxes_with_names(field: str, slot: Slot, context: RowContext, image: Image.Image) -> list[str]:
    """The symbols of each box, and of ``boxes`` its name: ``[<bin_1> <bin_2> ..., " dog",
    ...]``."""
    where = context.where
    if slot.kind == "box":
        return [refcoco.box_symbols(parse_box(field, where), image.size, context.options, where)]
    parts: list[str] = []
    for box, name in parse_objects(field, where, f"column '{slot.column}'"):
        parts += [refcoco.box_symbols(box, image.size, context.options, where), f" {name}"]
    return parts


def choices_of(template: Template, row: Mapping[str, str], context: RowContext) -> list[str]:
    """The texts that the label of a row is one of, each once; none if the template lists none."""
    slot = next((slot for slot in template.slots if slot.kind == "choices"), None)
    if slot is None:
        return []
    return list(dict.fromkeys(split_objects(filled(row, slot, context))))


def target_of(
    template: Template,
    row: Mapping[str, str],
    context: RowContext,
    images: Sequence[Image.Image],
    choices: Sequence[str],
) -> tuple[Text, dict[str, Any]]:
    """What is expected, and the entries of the sample that metrics need."""
    slot = template.target
    known = bool(row[slot.column].strip()) or context.training
    field = filled(row, slot, context) if known else ""
    if slot.kind in ("text", "label"):
        text = " ".join(field.split())
        if choices and text and text not in choices:
            raise UserError(
                f"{context.where}: expects one of the choices ({', '.join(choices)}) in the column "
                f"'{slot.column}', found {text[:60]!r}; correct it or add it to the choices"
            )
        return f" {text}" if text else "", {"ref_dict": {text: 1.0} if text else {}}
    symbols = boxes_with_names(field, slot, context, images[0]) if known else []
    if slot.kind == "boxes":
        return symbols, {"target_str": field}
    box = parse_box(field, context.where) if known else [0.0] * 4
    return symbols, {"region_coord": torch.tensor(box)}


def filled(row: Mapping[str, str], slot: Slot, context: RowContext) -> str:
    """The column of a slot. Raises: UserError if it is empty."""
    if not row[slot.column].strip():
        raise UserError(
            f"{context.where}: expects {slot.kind} in the column '{slot.column}', found an empty "
            "field; fill it in or remove the row"
        )
    return row[slot.column]


# --- from a hypothesis to a prediction -----------------------------------------------------------


def boxes_prediction(hypothesis: Hypothesis, row: BatchRow, options: TemplateOptions) -> Prediction:
    """All complete boxes with their names, in pixels of the image."""
    found = text_to_objects(hypothesis.text)
    if not (found and row.w_resize_ratio and row.h_resize_ratio):
        return Prediction(hypothesis.text.strip(), hypothesis.score, boxes=())
    side = options.patch_image_size
    size = round(side / row.w_resize_ratio), round(side / row.h_resize_ratio)
    bins = [bins for bins, _ in found]
    boxes = bins_to_boxes(bins, size, side, options.max_image_size, options.num_bins, clip=True)
    named = tuple((refcoco.as_box(box), name) for box, (_, name) in zip(boxes, found))
    return Prediction(hypothesis.text.strip(), hypothesis.score, boxes=named)


def boxes_result(row_id: Any, prediction: Prediction) -> dict[str, Any]:
    """One entry of the result file."""
    boxes = [{"box": list(box), "name": name} for box, name in prediction.boxes or ()]
    return {"uniq_id": str(row_id), "boxes": boxes, "score": round(prediction.score, 3)}


def ranked_choices(options: TemplateOptions, zero_shot: bool) -> Decoding:
    """Each row's own choices are scored one by one, with any ``--val-inference-type``."""
    if options.val_inference_type != "allcand":
        logger.warning("--val-inference-type: the choices of a row are always scored one by one")
    return Decoding(rank=True, zero_shot=zero_shot)


# kind of the target -> parts of the declaration
ANSWERS = {"metrics": Accuracy("score", "_score_sum", "_score_cnt")}
TARGETS: dict[str, dict[str, Any]] = {
    "text": ANSWERS,
    "label": {**ANSWERS, "answers": answer_texts, "decoding": ranks_all},
    "choices": {**ANSWERS, "decoding": ranked_choices},
    "box": {
        "prediction": refcoco.box_prediction,
        "result": refcoco.result_row,
        "decoding": refcoco.boxes_only,
        "metrics": BoxAccuracy(),
    },
    "boxes": {
        "prediction": boxes_prediction,
        "result": boxes_result,
        "metrics": DetectionMetrics(),
    },
}


@dataclass(frozen=True, kw_only=True)
class TemplateSpec(TaskSpec):
    """The task ``template`` before its options name the template."""

    def bound(self, options: TaskOptions) -> TaskSpec:
        assert isinstance(options, TemplateOptions)
        spec = template_spec(options.template or "")
        if options.ans2label_file and spec.answers is None:
            logger.warning("--ans2label-file: '%s' predicts no label of a set; unused", spec.name)
        return spec


@lru_cache(maxsize=64)
def template_spec(text: str, where: str = f"--{NAME}") -> TaskSpec:
    """The declaration of the task that a line describes.

    Raises: UserError beginning with ``where`` that shows a mistake in it.
    """
    template = parse_template(text, where)
    slots = {slot.column: slot for slot in template.slots}.values()
    columns = [Column("id", "id"), *(column_of(slot, template) for slot in slots)]
    words = "".join(
        part if isinstance(part, str) else f"[{part.column}]" for part in template.source
    )
    return TaskSpec(
        name=template.text,
        columns=tuple(columns),
        usage=Usage(title=" ".join(words.split()), noun=f"'{template.text}'", files=(NAME,)),
        options=TemplateOptions,
        example=partial(template_example, template=template),
        **TARGETS["choices" if template.choices else template.target.kind],
    )


def column_of(slot: Slot, template: Template) -> Column:
    """The column of a slot; choices are several texts, and a label that is one of them is of no
    set."""
    target = slot is template.target
    kinds = {"choices": "texts", "label": "text" if template.choices else "label"}
    return Column(slot.column, kinds.get(slot.kind, slot.kind), target=target)


UNBOUND = mixture_spec(NAME, TemplateOptions, TemplateSpec)
