"""The answer column: people's answers, normalized and scored as the VQA evaluation does; and ``ofa
answers``, the set of answers that a model may give, made from training files."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofa.data.rows import open_rows
from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.terminal import with_noun
from ofa.io.values import RowError, words_of
from ofa.task.answers import (
    MissingAnswers,
    counts_in_words,
    differing_in_case,
    read_label_file,
    write_label_file,
)
from ofa.task.columns import Column
from ofa.task.text import CONFIDENCE, JOIN, learned_answer, without_join

logger = logging.getLogger(__name__)

DIGITS = "zero one two three four five six seven eight nine ten".split()
NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(DIGITS)}}
ARTICLES = {"a", "an", "the"}
# Contractions that the evaluation completes, * for the apostrophe that it adds: "dont" -> "don't".
# Words that are missing on purpose are words of their own: shed, lets, im, id, well, hell, were,
# ill. Source: vqaEval.py of the VQA challenge; its entries with capitals (Im, Ive, Id've) never
# match, as answers are in lower case by then.
CONTRACTIONS = """
ain*t aren*t can*t could*ve couldn*t couldn'*tve couldn't*ve couldn*t've didn*t doesn*t don*t
hadn*t hadn*t've hadn't*ve hasn*t haven*t he*d he*d've he'd*ve he*s how*d how*ll how*s isn*t it*d
it*d've it'd*ve it*ll ma*am mightn*t mightn*t've mightn't*ve might*ve mustn*t must*ve needn*t
not*ve o*clock oughtn*t *ow's'at 'ow*s'at 'ow's*at shan*t she*d've she'd*ve should*ve shouldn*t
shouldn*t've shouldn't*ve somebody*d've somebody'd*ve somebody*ll somebody*s someone*d
someone*d've someone'd*ve someone*ll someone*s something*d something*d've something'd*ve
something*ll that*s there*d there*d've there'd*ve there*re there*s they*d they*d've they'd*ve
they*ll they*re they*ve *twas wasn*t we*d've we'd*ve we*ve weren*t what*ll what*re what*s what*ve
when*s where*d where*s where*ve who*d who*d've who'd*ve who*ll who*s who*ve why*ll why*re why*s
won*t would*ve wouldn*t wouldn*t've wouldn't*ve y*all y*all'll y'all*ll y*all'd've y'all*d've
y'all'd*ve you*d you*d've you'd*ve you*ll you*re you*ve
""".split()
COMPLETED = {word.replace("*", ""): word.replace("*", "'") for word in CONTRACTIONS}
COMPLETED["somebody'd"] = "somebodyd"  # as published
MARKS = ';/[]"{}()=+\\_-><@`,?!'
DIGITS_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")


def normal_answer(answer: str) -> str:
    """An answer as the VQA evaluation compares it: ``"The  two dogs."`` -> ``"2 dogs"``. An answer
    of which nothing would be left stays: ``"A"`` -> ``"a"``, the letter. Source: its vqaEval.py."""
    text = whole = " ".join(answer.lower().split())
    thousands = DIGITS_COMMA.search(whole)
    for mark in MARKS:  # spaces and digits of the answer as it was, as there
        joins = thousands or f"{mark} " in whole or f" {mark}" in whole
        text = text.replace(mark, "" if joins else " ")
    words = (NUMBERS.get(word, word) for word in FULL_STOP.sub("", text).split())
    return " ".join(COMPLETED.get(word, word) for word in words if word not in ARTICLES) or whole


def confidences(answers: Sequence[str]) -> dict[str, float]:
    """Share of people's answers -> the score that answering so earns, highest first.

    An answer counts min(1, others who said it / 3), averaged over leaving each person out once;
    with ten people 1, 2, 3 and 4 of a kind earn 0.3, 0.6, 0.9 and 1.0. Source: VQA challenge.
    """
    people = len(answers)
    if people == 1:
        return {answers[0]: 1.0}
    scores = {}
    for answer, count in Counter(answers).most_common():
        earned = count * min(1, (count - 1) / 3) + (people - count) * min(1, count / 3)
        scores[answer] = round(earned / people, 4)
    return scores


def answer_column(scores: dict[str, float]) -> str:
    """``{"yes": 1.0, "no": 0.3}`` -> ``"1.0|!+yes&&0.3|!+no"``."""
    return JOIN.join(f"{confidence}{CONFIDENCE}{answer}" for answer, confidence in scores.items())


def answer_of(value: Any) -> str:
    """The answer of one person, a text, a number, or ``{"answer": ...}``, without the marks that
    separate answers in the column. Raises: RowError for none."""
    words = words_of(value, "an answer", "answer").replace(CONFIDENCE, " ")
    text = without_join(words).strip()
    if not text:
        raise RowError("an answer, found nothing but marks that separate answers")
    return text


def note_answers(columns: Mapping[int, Column], rows: Sequence[Sequence[str]]) -> None:
    """Log how many rows each class has, and warn of answers that differ in case alone. Args:
    columns: number -> column. rows: their cells."""
    for number, column in columns.items():
        cells = [row[number] for row in rows if row[number]]
        if not cells or column.kind not in ("label", "answer"):
            continue
        counts = Counter(map(learned_answer, cells) if column.kind == "answer" else cells)
        if column.kind == "label":
            logger.info("%s: %s", column.public_name, counts_in_words(counts))
        if groups := differing_in_case(counts):
            logger.warning(
                "%d %s only in case, such as %s: are they meant to be different?",
                len(groups),
                column.public_name + (" differs" if len(groups) == 1 else "s differ"),
                " and ".join(map(repr, groups[0])),
            )


def number_answers(taught: Iterable[str], min_count: int = 1) -> dict[str, int]:
    """The answers that come often enough, numbered: frequent ones first, then by the alphabet."""
    counts = Counter(taught)
    frequent = sorted((-count, answer) for answer, count in counts.items() if count >= min_count)
    return {answer: number for number, (_, answer) in enumerate(frequent)}


@dataclass(frozen=True, kw_only=True)
class AnswerFiles:
    tsv: tuple[str, ...] = option(help="training files", positional=True)
    column: int = option(3, "column of the answers, from 0 (VQA: 3, ImageNet: 2)", least=0)

    def answers(self) -> Iterator[tuple[str, str]]:
        """(answer that a row teaches, its place), row by row; rows without answers are skipped."""
        for path in self.tsv:
            file = open_rows(path, [self.column])
            for row in range(len(file)):
                field = file.texts(row, [self.column])[0]
                if field.strip():
                    yield learned_answer(field, file.where(row)), file.where(row)


@dataclass(frozen=True, kw_only=True)
class BuildOptions(AnswerFiles):
    out: str = option(help="JSON or .pkl file to write")
    most: int | None = option(None, "answers at most (VQA v2: 3129)", least=1)
    min_count: int = option(1, "rows that an answer needs at least")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(AnswerFiles):
    ans2label_file: str = option(help="answer set, as JSON or pickle")


@action
def build(args: BuildOptions) -> None:
    """The most frequent answers of training files.

    Counts the answer of highest confidence of each training row and writes the most frequent as
    {answer: number}, which --ans2label-file reads. Frequent answers come first, equally frequent
    ones in alphabetical order. Rows with other answers have to be removed from training: ofa
    answers check names them.
    """
    counts = Counter(answer for answer, _ in args.answers())
    answers = list(number_answers(counts, args.min_count))[: args.most]
    if not answers:
        finding = f"{len(counts)}, none of {args.min_count} rows" if counts else "none"
        raise UserError(
            f"{', '.join(args.tsv)}: expected answers in column {args.column}, found {finding}; "
            "see --column, --min-count"
        )
    write_label_file(args.out, answers)
    rows, covered = counts.total(), sum(counts[answer] for answer in answers)
    print(
        f"{args.out}: {len(answers)} of {with_noun(len(counts), 'answer')}, those of {covered} of"
        f" {with_noun(rows, 'row')} ({covered / rows:.1%})"
    )


@action
def check(args: CheckOptions) -> int:
    """List the answers that a set does not have."""
    found = MissingAnswers(dict.fromkeys(read_label_file(args.ans2label_file), 0).get)
    for answer, where in args.answers():
        found.look_at(answer, where)
    for line in found.lines():
        print(line)
    wrong = sum(found.counts.values())
    rows = with_noun(found.rows, "row")
    print(f"{wrong} of {rows} with an answer that {args.ans2label_file} lacks")
    return 1 if found else 0
