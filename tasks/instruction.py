"""Any instruction: `` what does the region describe? region: <bin_12> ... <bin_812>`` -> `` a red
car``.

Columns ``id, image, instruction, answer``. Symbols such as ``<bin_12>`` stand for themselves in
both texts; an answer of four location bins is a box.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ofa.task.box_rows import box_prediction, ratios_of
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import BatchRow, Hypothesis, Prediction
from ofa.task.task_spec import (
    TAUGHT_BY_ANY,
    BoxOptions,
    Example,
    GenerativeOptions,
    RowContext,
    Symbols,
    TaskSpec,
    Text,
    Usage,
)
from ofa.tokens.boxes import text_to_bins

INSTRUCTION = Column("instruction", example="what does the image describe?")
SYMBOL = re.compile(r"((?:\s*<(?:bin|code)_\d+>)+)")


@dataclass
class InstructionOptions(GenerativeOptions, BoxOptions):
    """Those of generation, and of boxes."""


def with_symbols(text: str) -> Text:
    """``" region: <bin_1><bin_2>"`` -> ``[" region:", Symbols("<bin_1> <bin_2>")]``; the text
    has a leading space."""
    parts = SYMBOL.split(f" {text.strip()}")
    return [
        Symbols(" ".join(re.findall(r"<\w+>", part))) if place % 2 else part
        for place, part in enumerate(parts)
        if part.strip()
    ]


def instruction_example(row: Mapping[str, str], context: RowContext) -> Example:
    """A row; of rows that are not learned the answer may be empty."""
    asked, answered = row["instruction"].strip(), row["answer"].strip()
    if not asked or (context.training and not answered):
        raise context.error("an answer" if asked else "an instruction", "an empty column")
    image = context.open_image(row["image"])
    return Example(
        id=row["id"],
        source=with_symbols(row["instruction"]),
        target=with_symbols(row["answer"]),
        image=image,
        max_target_tokens=context.options.max_tgt_length,
        extra=ratios_of(image, context.options),
    )


def prediction(hypothesis: Hypothesis, row: BatchRow, options: InstructionOptions) -> Prediction:
    """The text; and the box, if it is one and the row's image is known."""
    is_box = len(text_to_bins(hypothesis.symbols)) == hypothesis.symbols.count("<") == 4
    if is_box and row.w_resize_ratio:
        return box_prediction(hypothesis, row, options)
    return Prediction(hypothesis.text.strip(), hypothesis.score)


SPEC = TaskSpec(
    name="instruction",
    aliases=("generate",),
    columns=(ID, IMAGE, INSTRUCTION, Column("answer", target=True)),
    usage=Usage(
        verb="generate",
        noun="instructions",
        about="Any instruction, as in training. Symbols such as <bin_12> stand for themselves.",
        button="Run",
        taught_by=(TAUGHT_BY_ANY,),
    ),
    options=InstructionOptions,
    example=instruction_example,
    prediction=prediction,
)
