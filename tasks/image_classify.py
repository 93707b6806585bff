"""Classes of images in words: `` what does the image describe?`` -> `` golden retriever``.

Columns ``image, label`` (``--selected-cols 0,2``). ``--ans2label-file`` names the words of every
class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

from ofa.metrics.accuracy import Accuracy
from ofa.task.answers import AnswerOptions, answer_texts, answers_option, ranks_all
from ofa.task.columns import IMAGE, Column
from ofa.task.prediction import Prediction
from ofa.task.task_spec import Example, RowContext, TaskSpec, Usage
from ofa.tasks.caption import PROMPTS

TOP = 5


@dataclass
class ImageClassifyOptions(AnswerOptions):
    ans2label_dict: Optional[str] = answers_option('{"no":0,"yes":1}')


def image_classify_example(row: Mapping[str, str], context: RowContext) -> Example:
    """Rows of evaluation splits may have no label."""
    label = row["label"].strip()
    return Example(
        id=context.index,
        source=PROMPTS["en"],
        target=f" {label}" if label else "",
        image=context.open_image(row["image"]),
        augment=context.training,
        extra={"ref_dict": {label: 1.0} if label else {}, "conf": None},
    )


def result_row(row_id: Any, answer: Prediction) -> dict[str, Any]:
    """One entry of the result file, with the next best classes: the file alone can be scored."""
    others = [{"answer": other.text} for other in answer.others]
    entry = {"uniq_id": int(row_id), "answer": answer.text}
    return {**entry, "others": others} if others else entry


SPEC = TaskSpec(
    name="image_classify",
    aliases=("classify",),
    columns=(IMAGE, Column("label", "label", target=True)),
    default_cols="0,2",
    usage=Usage(
        verb="classify",
        title="Class",
        noun="classes",
        about="What the image shows, of a set of classes.",
        button="Classify",
        files=("image_classify", "imagenet"),
    ),
    options=ImageClassifyOptions,
    example=image_classify_example,
    answers=answer_texts,
    decoding=partial(ranks_all, best=TOP),
    result=result_row,
    metrics=Accuracy("score", top=("top5", TOP), digits=3),
)
