"""``ofa answers build | check``: the set of answers that a model may give, made from training
files."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ofa.data.rows import open_rows
from ofa.errors import UserError
from ofa.io.flags import Parser, command, option
from ofa.prepare.answer_column import number_answers
from ofa.task.answers import MissingAnswers, read_label_file, write_label_file
from ofa.task.text import learned_answer


@dataclass(frozen=True, kw_only=True)
class AnswerFiles:
    """Rows with answers."""

    tsv: tuple[str, ...] = option(help="training files", positional=True)
    column: int = option(3, "column of the answers, from 0 (VQA: 3, ImageNet: 2)", least=0)


@dataclass(frozen=True, kw_only=True)
class BuildOptions(AnswerFiles):
    """An answer set to write."""

    out: str = option(help="JSON or .pkl file to write")
    most: int | None = option(None, "answers at most (VQA v2: 3129)", least=1)
    min_count: int = option(1, "rows that an answer needs at least")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(AnswerFiles):
    """An answer set to compare with."""

    ans2label_file: str = option(help="answer set, as JSON or pickle")


def set_up(parser: Parser) -> None:
    """The actions of ``ofa answers``."""
    add = parser.add_actions()
    command(
        add("build", help="the most frequent answers of training files"),
        BuildOptions,
        run_build,
        description="Counts the answer of highest confidence of each training row and writes the "
        "most frequent as {answer: number}, which --ans2label-file reads. Frequent answers come "
        "first, equally frequent ones in alphabetical order. Rows with other answers have to be "
        "removed from training: ofa answers check names them.",
    )
    command(add("check", help="list the answers that a set does not have"), CheckOptions, run_check)


def answers_of(args: AnswerFiles) -> Iterator[tuple[str, str]]:
    """(answer that a row teaches, its place), row by row; rows without answers are skipped."""
    for path in args.tsv:
        file = open_rows(path, [args.column])
        for row in range(len(file)):
            field = file.texts(row, [args.column])[0]
            if field.strip():
                yield learned_answer(field, file.where(row)), file.where(row)


def run_build(args: BuildOptions) -> None:
    counts = Counter(answer for answer, _ in answers_of(args))
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
        f"{args.out}: {len(answers)} of {len(counts)} answers, those of {covered} of {rows} rows"
        f" ({covered / rows:.1%})"
    )


def run_check(args: CheckOptions) -> int:
    found = MissingAnswers(dict.fromkeys(read_label_file(args.ans2label_file), 0).get)
    for answer, where in answers_of(args):
        found.look_at(answer, where)
    for line in found.lines():
        print(line)
    print(
        f"{sum(found.counts.values())} of {found.rows} rows have answers that {args.ans2label_file}"
        " has not"
    )
    return 1 if found else 0
