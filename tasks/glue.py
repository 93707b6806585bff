"""The seven GLUE tasks: `` is the text " the book was read " grammatically correct?`` -> `` yes``.

One table; a row of it says which columns, what is asked, and which answer stands for which label of
the file. The answer is a single token of the large vocabularies, and only that is learned: no end
symbol behind it. MNLI's numbers are OFA's own (0 neutral, 1 entailment, 2 contradiction), not those
of other distributions: ``ofa prepare glue`` converts by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Optional

from ofa.io.flags import option
from ofa.metrics.accuracy import ClassFigures
from ofa.task.answers import PROMPT_TYPES, answer_texts, answers_option, one_of
from ofa.task.columns import Column
from ofa.task.prediction import named_result
from ofa.task.task_spec import Decoding, Example, RowContext, TaskOptions, TaskSpec
from ofa.task.text import truncate_words


@dataclass
class GlueOptions(TaskOptions):
    """Options of a GLUE task."""

    ans2label_dict: Optional[str] = answers_option('{"no": 0, "yes": 1}')
    ans2label_file: Optional[str] = option(
        None, "file of the answers, {text: number} as pickle or JSON"
    )
    prompt_type: str = option(
        "src",
        "what the decoder is given: none, src (the source), prev_output (the source without"
        " its end)",
    )

    def __post_init__(self):
        one_of("--prompt-type", self.prompt_type, PROMPT_TYPES)


@dataclass
class MnliOptions(GlueOptions):
    """With a third answer."""

    ans2label_dict: Optional[str] = answers_option('{"no": 0, "yes": 1, "maybe": 2}')


@dataclass
class Sst2Options(GlueOptions):
    """With the answers of sentiment."""

    ans2label_dict: Optional[str] = answers_option('{"negative": 0, "positive": 1}')


@dataclass(frozen=True)
class Glue:
    """A row of the table.

    Args:
        cols: ``--selected-cols`` of the texts and the label. prompt: with the names of the text
            columns.
        answers: label in the file -> answer. figure: F1 or mcc beside the accuracy.
    """

    name: str
    cols: str
    prompt: str
    answers: Mapping[str, str]
    figure: str = ""
    options: type[GlueOptions] = GlueOptions

    @property
    def texts(self) -> tuple[str, ...]:
        return ("text",) if "{text}" in self.prompt else ("text1", "text2")


NO_YES = {"0": "no", "1": "yes"}
IMPLIED = {"not_entailment": "no", "entailment": "yes"}
IMPLIES = ' can text1 " {text1} " imply text2 " {text2} "?'
TABLE = (
    Glue("cola", "1,2", ' is the text " {text} " grammatically correct?', NO_YES, "mcc"),
    Glue("mnli", "0,1,2", IMPLIES, {"0": "maybe", "1": "yes", "2": "no"}, options=MnliOptions),
    Glue(
        "mrpc",
        "0,1,2",
        ' does text1 " {text1} " and text2 " {text2} " have the same semantics?',
        NO_YES,
        "F1",
    ),
    Glue(
        "qnli",
        "1,2,3",
        ' does " {text2} " contain the answer to question " {text1} "?',
        {**NO_YES, **IMPLIED},
    ),
    Glue(
        "qqp",
        "3,4,5",
        ' is question " {text1} " and question " {text2} " equivalent?',
        NO_YES,
        "F1",
    ),
    Glue("rte", "1,2,3", IMPLIES, IMPLIED),
    Glue(
        "sst2",
        "0,1",
        ' is the sentiment of text " {text} " positive or negative?',
        {"0": "negative", "1": "positive"},
        options=Sst2Options,
    ),
)


def glue_example(row: Mapping[str, str], context: RowContext, glue: Glue) -> Example:
    """A row; of evaluation splits it may have no label, and then the texts are as they are: a
    test row needs an answer."""
    label, options = row["label"].strip(), context.options
    if label not in glue.answers and (label or context.training):
        raise context.error(
            f"one of the labels {', '.join(glue.answers)}",
            repr(label[:60]),
            "is --selected-cols right, or is it a file of another task? (ofa prepare glue makes"
            " the files)",
        )
    empty = [name for name in glue.texts if not row[name].strip()]
    if empty and label:
        raise context.error(f"words in the column '{empty[0]}'", "an empty text")
    texts = {name: truncate_words(row[name].lower(), options.max_src_length) for name in glue.texts}
    answer = glue.answers.get(label, "")
    return Example(
        source=glue.prompt.format(**texts),
        target=f" {answer}" if answer else "",
        prompt_type=options.prompt_type,
        ends=False,
        extra={"ref_dict": {answer: 1.0} if answer else {}},
    )


def decoding(options: GlueOptions, zero_shot: bool) -> Decoding:
    return Decoding(rank=True, zero_shot=zero_shot)


@dataclass(frozen=True, kw_only=True)
class GlueSpec(TaskSpec):
    """Args: glue: the row of the table."""

    glue: Glue

    def question(self, row: Mapping[str, str]) -> str:
        return self.glue.prompt.format(**{name: row[name] for name in self.glue.texts}).strip()


def declaration(glue: Glue) -> TaskSpec:
    return GlueSpec(
        name=glue.name,
        columns=(
            *(Column(name, max_words=512) for name in glue.texts),
            Column("label", "label", target=True, labels=glue.answers),
        ),
        default_cols=glue.cols,
        options=glue.options,
        example=partial(glue_example, glue=glue),
        answers=answer_texts,
        decoding=decoding,
        # the files have no ids: it is the number of the row
        result=partial(named_result, id_key="uniq_id", text_key="answer", id_type=int),
        metrics=ClassFigures(second=glue.figure),
        glue=glue,
    )


SPECS = [declaration(glue) for glue in TABLE]
