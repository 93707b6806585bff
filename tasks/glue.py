"""The seven GLUE tasks: `` is the text " the book was read " grammatically correct?`` -> `` yes``.

One table; a row of it says which columns, what is asked, and which answer stands for which label of
the file. The answer is a single token of the large vocabularies, and only that is learned: no end
symbol behind it. MNLI's numbers are OFA's own (0 neutral, 1 entailment, 2 contradiction), not those
of other distributions: ``ofa prepare glue`` converts by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Optional

from ofa.metrics.accuracy import ClassFigures
from ofa.task.answers import LabelOptions, answer_texts, answers_option, prompt_type_option
from ofa.task.columns import Column
from ofa.task.prediction import named_result
from ofa.task.task_spec import Example, RowContext, TaskSpec, decode
from ofa.task.text import truncate_words


@dataclass
class GlueOptions(LabelOptions):
    ans2label_dict: Optional[str] = answers_option('{"no": 0, "yes": 1}')
    prompt_type: str = prompt_type_option("src")


@dataclass
class MnliOptions(GlueOptions):
    ans2label_dict: Optional[str] = answers_option('{"no": 0, "yes": 1, "maybe": 2}')


@dataclass
class Sst2Options(GlueOptions):
    ans2label_dict: Optional[str] = answers_option('{"negative": 0, "positive": 1}')


NO_YES = {"0": "no", "1": "yes"}
IMPLIED = {"not_entailment": "no", "entailment": "yes"}
ENTAILED = {"0": "maybe", "1": "yes", "2": "no"}
SENTIMENT = {"0": "negative", "1": "positive"}
GRAMMATICAL = ' is the text " {text} " grammatically correct?'
IMPLIES = ' can text1 " {text1} " imply text2 " {text2} "?'
SAME_MEANING = ' does text1 " {text1} " and text2 " {text2} " have the same semantics?'
HAS_ANSWER = ' does " {text2} " contain the answer to question " {text1} "?'
EQUIVALENT = ' is question " {text1} " and question " {text2} " equivalent?'
POSITIVE = ' is the sentiment of text " {text} " positive or negative?'


def glue_example(
    row: Mapping[str, str], context: RowContext, prompt: str, answers: Mapping[str, str]
) -> Example:
    """A row; of evaluation splits it may have no label, and then its texts may be empty."""
    label, options, names = row["label"].strip(), context.options, texts_of(prompt)
    if label not in answers and (label or context.training):
        remedy = "is --selected-cols right, and is it a file of ofa prepare glue for this task?"
        raise context.error(f"one of the labels {', '.join(answers)}", repr(label[:60]), remedy)
    empty = [name for name in names if not row[name].strip()]
    if empty and label:
        raise context.error(f"words in the column '{empty[0]}'", "an empty text")
    texts = {name: truncate_words(row[name].lower(), options.max_src_length) for name in names}
    answer = answers.get(label, "")
    return Example(
        source=prompt.format(**texts),
        target=f" {answer}" if answer else "",
        prompt_type=options.prompt_type,
        ends=False,
        extra={"ref_dict": {answer: 1.0} if answer else {}},
    )


def texts_of(prompt: str) -> list[str]:
    return sorted(re.findall(r"{(\w+)}", prompt))


@dataclass(frozen=True, kw_only=True)
class GlueSpec(TaskSpec):
    prompt: str

    def question(self, row: Mapping[str, str]) -> str:
        return self.prompt.format(**row).strip()


def glue(
    name: str,
    cols: str,
    prompt: str,
    answers: Mapping[str, str],
    figure: str = "",
    options: type[GlueOptions] = GlueOptions,
) -> TaskSpec:
    """Args: cols: ``--selected-cols`` of the texts and the label. prompt: with the names of the
    texts. answers: label in the file -> answer. figure: F1 or mcc beside the accuracy."""
    texts = (Column(text, max_words=512) for text in texts_of(prompt))
    return GlueSpec(
        name=name,
        columns=(*texts, Column("label", "label", target=True, labels=answers)),
        default_cols=cols,
        options=options,
        example=partial(glue_example, prompt=prompt, answers=answers),
        answers=answer_texts,
        decoding=partial(decode, rank=True),
        # the files have no ids: it is the number of the row
        result=partial(named_result, id_key="uniq_id", text_key="answer", id_type=int),
        metrics=ClassFigures(second=figure),
        prompt=prompt,
    )


SPECS = [
    glue("cola", "1,2", GRAMMATICAL, NO_YES, "mcc"),
    glue("mnli", "0,1,2", IMPLIES, ENTAILED, options=MnliOptions),
    glue("mrpc", "0,1,2", SAME_MEANING, NO_YES, "F1"),
    glue("qnli", "1,2,3", HAS_ANSWER, NO_YES | IMPLIED),
    glue("qqp", "3,4,5", EQUIVALENT, NO_YES, "F1"),
    glue("rte", "1,2,3", IMPLIES, IMPLIED),
    glue("sst2", "0,1", POSITIVE, SENTIMENT, options=Sst2Options),
]
