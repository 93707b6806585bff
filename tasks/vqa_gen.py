"""Visual question answering: `` what color is the man's shirt?`` -> `` red and white``.

Columns ``id, image, question, answers, objects`` (``--selected-cols 0,5,2,3,4``; a sixth is
skipped). Answers are those of several people with what each earns, ``0.6|!+yes&&1.0|!+no``: the
highest is learned, weighed by its confidence; all of them count in the soft accuracy.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

from ofa.io.flags import option
from ofa.metrics.accuracy import Accuracy
from ofa.task.answers import PromptedAnswerOptions, answer_texts, answers_option, ranks_all
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import Prediction
from ofa.task.task_spec import Decoding, Example, RowContext, TaskSpec, Usage
from ofa.task.text import JOIN, QUESTION_MARKS, clean_question, parse_answers

logger = logging.getLogger(__name__)

QUESTION = Column(
    "question", max_words=80, clean=clean_question, example="what color is the circle?"
)
ANSWERS = Column("answers", "answer", target=True, aliases=("answer",), max_words=30)
OBJECTS = Column("objects", "texts", may_be_empty=True, option="add_object")


@dataclass
class VqaOptions(PromptedAnswerOptions):
    ans2label_dict: Optional[str] = answers_option('{"no":0,"yes":1}')
    max_object_length: int = option(30, "most objects of an image that --add-object names")
    add_object: bool = option(False, "name the objects of the image behind the question")
    unconstrained_training: bool = option(False, "no set of answers: learn and generate any text")


def vqa_example(row: Mapping[str, str], context: RowContext) -> Example:
    """Rows of evaluation splits may have no answers::

    "Is it well-lit", "0.9|!+yes&&0.3|!+no", "table&&lamp"
    ->  " is it well lit?" or, with --add-object, " is it well lit? object: table lamp"
        " yes"; weight 0.9
    """
    import torch

    options = context.options
    if not row["image"].strip():
        raise context.error("an image with every question", "an empty image column")
    question = clean_question(row["question"], options.max_src_length)
    ended = question.endswith(QUESTION_MARKS if context.language == "zh" else "?")
    source = [f" {question}" if ended else f" {question}?"]
    if options.add_object:
        objects = row["objects"].strip().split(JOIN)[: options.max_object_length]
        source.append(f" object: {' '.join(objects)}")
    answers = parse_answers(row["answers"], context.where) if row["answers"].strip() else {}
    if context.training and not answers:
        raise context.error("answers such as '1.0|!+yes'", "none")
    answer = max(answers, key=answers.__getitem__) if answers else ""
    return Example(
        id=row["id"],
        source=source,
        target=f" {answer}" if answer else "",
        image=context.open_image(row["image"]),
        max_target_tokens=options.max_tgt_length,
        prompt_type=options.prompt_type,
        prefix_tokens=True,
        extra={"ref_dict": answers, "conf": torch.tensor([answers.get(answer, 1.0)])},
    )


def answers(options: VqaOptions) -> Optional[list[str]]:
    return None if options.unconstrained_training else answer_texts(options)


def decoding(options: VqaOptions, zero_shot: bool) -> Decoding:
    """A model that never saw the set of answers generates freely."""
    if zero_shot:
        return Decoding(constrained=False, zero_shot=True)
    if not options.unconstrained_training:
        return ranks_all(options, zero_shot)
    if options.ans2label_file:
        logger.warning("--unconstrained-training: the answers of --ans2label-file are not used")
    if options.val_inference_type == "allcand":
        reason = "there are no answers to score all of; validation generates (beamsearch)"
        logger.warning("--unconstrained-training: %s", reason)
    return Decoding()


def result_row(question_id: Any, answer: Prediction) -> dict[str, Union[str, int]]:
    """As the evaluation server reads it."""
    number = str(question_id)
    is_number = number.isascii() and number.isdecimal() and len(number) < 19
    return {"question_id": int(number) if is_number else number, "answer": answer.text}


SPEC = TaskSpec(
    name="vqa_gen",
    aliases=("vqa", "answer"),
    columns=(ID, IMAGE, QUESTION, ANSWERS, OBJECTS, Column("caption", may_be_absent=True)),
    default_cols="0,5,2,3,4",
    usage=Usage(
        verb="answer",
        title="Question",
        noun="questions",
        about="A question about the image and its answer.",
        button="Answer",
        files=("vqa", "trainval"),
        taught_by=("unify_task",),
    ),
    options=VqaOptions,
    example=vqa_example,
    answers=answers,
    decoding=decoding,
    result=result_row,
    metrics=Accuracy(
        "vqa_score",
        "_vqa_score_sum",
        "_vqa_cnt",
        title="validation accuracy of answers",
        words="mean confidence of the annotators in the answer",
    ),
)
