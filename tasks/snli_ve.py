"""Visual entailment: whether an image shows what a sentence says. A row of the hypothesis ``A man
rides.`` and the label ``entailment`` becomes

     does the image describe " a man rides. "?  ->   yes        (or no, maybe)

Columns ``id, image, hypothesis, caption, label`` (``--selected-cols 0,2,3,4,5``). With
``--add-caption`` the caption, which somebody wrote for the image, is part of the question.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Optional

from ofa.io.flags import option
from ofa.metrics.accuracy import Accuracy
from ofa.task.answers import PromptedAnswerOptions, answer_texts, answers_option, ranks_all
from ofa.task.columns import ID, IMAGE, Column
from ofa.task.prediction import named_result
from ofa.task.task_spec import Example, RowContext, TaskSpec, Usage
from ofa.task.text import clean_phrase

PROMPT = ' does the image describe " {} "?'
CAPTION_PROMPT = ' can image and text1 " {} " imply text2 " {} "?'
ANSWERS = {"entailment": "yes", "contradiction": "no", "neutral": "maybe"}
EXAMPLE = "a red circle is above a blue star"
HYPOTHESIS = Column("hypothesis", max_words=80, clean=clean_phrase, example=EXAMPLE)
CAPTION = Column("caption", may_be_empty=True, aliases=("premise",), option="add_caption")
LABEL = Column("label", "label", target=True, labels=ANSWERS)


@dataclass
class SnliVeOptions(PromptedAnswerOptions):
    ans2label_dict: Optional[str] = answers_option('{"no":0,"yes":1,"maybe":2}')
    add_caption: bool = option(False, "the image's caption is part of the question")


def snli_ve_example(row: Mapping[str, str], context: RowContext) -> Example:
    """Rows of evaluation splits may have no label."""
    options, label = context.options, row["label"].strip()
    if label not in ANSWERS and (label or context.training):
        remedy = "is --selected-cols right, or is it a file of another task?"
        expected = f"one of the labels {', '.join(ANSWERS)}"
        raise context.error(expected, repr(label[:60]), remedy)
    answer = ANSWERS.get(label, "")
    source = PROMPT.format(clean_phrase(row["hypothesis"], options.max_src_length))
    if options.add_caption:
        names = ("caption", "hypothesis")
        texts = (clean_phrase(row[name], options.max_src_length) for name in names)
        source = CAPTION_PROMPT.format(*texts)
    return Example(
        id=row["id"],
        source=source,
        target=f" {answer}" if answer else "",
        image=context.open_image(row["image"]),
        prompt_type=options.prompt_type,
        extra={"ref_dict": {answer: 1.0} if answer else {}},
    )


SPEC = TaskSpec(
    name="snli_ve",
    aliases=("entails",),
    columns=(ID, IMAGE, HYPOTHESIS, CAPTION, LABEL),
    default_cols="0,2,3,4,5",
    usage=Usage(
        verb="entails",
        title="Check",
        noun="checking statements",
        about="Does the image show what a statement says: yes, no or maybe?",
        button="Check it",
        validation="dev",
        taught_by=("unify_task",),
    ),
    options=SnliVeOptions,
    example=snli_ve_example,
    answers=answer_texts,
    decoding=ranks_all,
    result=partial(named_result, id_key="uniq_id", text_key="answer"),
    metrics=Accuracy("snli_score", "_snli_score_sum", "_snli_cnt"),
)
