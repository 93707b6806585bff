"""A task in one line: ``--task "[image] how many [text:thing] are there? -> [text:count]"``.

    row       the columns id, image, thing = "cubes", count = "3"
    source    " how many cubes are there?"
    target    " 3"

How a template is written is in ``ofa.task.template``; here is what the kinds of its slots mean.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Optional

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.metrics.accuracy import Accuracy
from ofa.metrics.detection import BoxAccuracy, DetectionMetrics
from ofa.task import box_rows
from ofa.task.answers import AnswerOptions, answer_texts, ranks_all
from ofa.task.columns import ID, Column
from ofa.task.prediction import parse_objects
from ofa.task.task_spec import (
    BoxOptions,
    Decoding,
    Example,
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
from ofa.tokens.boxes import parse_box

logger = logging.getLogger(__name__)

NAME = "template"


@dataclass
class TemplateOptions(AnswerOptions, BoxOptions):
    template: Optional[str] = option(
        None, "task in one line, e.g. '[image] how many [text:thing]? -> [text:count]'"
    )
    eval_args: Optional[str] = option(
        '{"beam":5,"max_len_b":30}', "generation options of validation and evaluation, as JSON"
    )


def template_example(row: Mapping[str, str], context: RowContext, template: Template) -> Example:
    return TemplateRow(row, context, template).example()


class TemplateRow:
    """A row whose columns fill the slots of a template; of evaluation splits its target may be
    empty. Raises: UserError naming the row and the column that does not hold what its slot expects.
    """

    def __init__(self, row: Mapping[str, str], context: RowContext, template: Template):
        self.row, self.context, self.template = row, context, template
        self.options, self.where = context.options, context.where
        self.images = [context.open_image(row[slot.column]) for slot in template.images]
        choices = "" if template.choices is None else self.filled("choices", template.choices)
        self.choices = list(dict.fromkeys(split_objects(choices)))  # each once

    def example(self) -> Example:
        target, extra = self.target()
        ratios = box_rows.ratios_of(self.images[0], self.options) if self.images else {}
        is_text = self.template.target.kind == "text"
        first, second, *_ = [*self.images, None, None]
        return Example(
            id=self.row["id"],
            source=self.source(),
            target=target,
            image=first,
            image_2=second,
            max_source_tokens=self.options.max_source_positions - 2,
            max_target_tokens=self.options.max_tgt_length if is_text else None,
            answers=self.choices or None,
            extra={**ratios, **extra},
        )

    def filled(self, kind: str, column: str) -> str:
        if not self.row[column].strip():
            expected = f"{self.where}: expects {kind} in the column '{column}'"
            raise UserError(f"{expected}, found an empty field; fill it in or remove the row")
        return self.row[column]

    def source(self) -> list[str]:
        """The sentence with its slots filled in: texts, and symbols of boxes."""
        parts: list[str] = [""]
        for part in self.template.source:
            if isinstance(part, str):
                parts[-1] += part
            elif part.kind == "choices":
                parts[-1] += ", ".join(self.choices)
            elif part.kind == "text":
                text = self.filled(part.kind, part.column)
                parts[-1] += truncate_words(text, self.options.max_src_length)
            else:
                parts += [*self.boxes(part, self.filled(part.kind, part.column)), ""]
        return [
            part if isinstance(part, Symbols) else spaced(part, first=number == 0)
            for number, part in enumerate(parts)
            if part
        ]

    def boxes(self, slot: Slot, field: str) -> list[str]:
        """``[<bin_1> <bin_2> ..., " dog", ...]``: each box, and of ``boxes`` its name."""
        size, where = self.images[0].size, self.where
        if slot.kind == "box":
            return [box_rows.box_symbols(parse_box(field, where), size, self.options, where)]
        parts: list[str] = []
        for box, name in parse_objects(field, where, f"column '{slot.column}'"):
            parts += [box_rows.box_symbols(box, size, self.options, where), f" {name}"]
        return parts

    def target(self) -> tuple[Text, dict[str, Any]]:
        """What is expected, and the entries of the sample that metrics need."""
        slot = self.template.target
        known = bool(self.row[slot.column].strip()) or self.context.training
        field = self.filled(slot.kind, slot.column) if known else ""
        if slot.kind in ("text", "label"):
            text = " ".join(field.split())
            if self.choices and text and text not in self.choices:
                raise UserError(
                    f"{self.where}: expects one of the choices ({', '.join(self.choices)}) in the"
                    f" column '{slot.column}', found {text[:60]!r}; correct it, or add it there"
                )
            return f" {text}" if text else "", {"ref_dict": {text: 1.0} if text else {}}
        symbols = self.boxes(slot, field) if known else []
        if slot.kind == "boxes":
            return symbols, {"target_str": field}
        import torch

        box = parse_box(field, self.where) if known else [0.0] * 4
        return symbols, {"region_coord": torch.tensor(box)}


def spaced(text: str, first: bool) -> str:
    """Runs of spaces become one; a sentence begins with a space, as all prompts do."""
    words = " ".join(text.split())
    return f" {words}" if words and (first or text[0].isspace()) else words


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
        "prediction": box_rows.box_prediction,
        "result": box_rows.box_result,
        "decoding": box_rows.boxes_only,
        "metrics": BoxAccuracy(),
    },
    "boxes": {
        "prediction": box_rows.boxes_prediction,
        "result": box_rows.boxes_result,
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
    """The task that a line describes. Raises: UserError that begins with ``where``."""
    template = parse_template(text, where)
    # choices are several texts, and a label that is one of them is of no set
    kinds = {"choices": "texts", "label": "text" if template.choices else "label"}
    columns = [ID] + [
        Column(name, kinds.get(kind, kind), target=name == template.target.column)
        for name, kind in template.columns.items()
    ]
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


UNBOUND = mixture_spec(NAME, TemplateOptions, TemplateSpec)
