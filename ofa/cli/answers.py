"""``ofa answers build | check``: the set of answers that a model may give, made from training
files."""

from collections import Counter
from dataclasses import dataclass

from ofa.errors import UserError
from ofa.io.flags import Parser, command, option


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


def answers_of(args: AnswerFiles):
    """(answer that a row teaches, its place), row by row; rows without answers are skipped."""
    from ofa.data.rows import open_rows
    from ofa.task.text import learned_answer

    for path in args.tsv:
        file = open_rows(path, [args.column])
        for row in range(len(file)):
            field = file.texts(row, [args.column])[0]
            if field.strip():
                yield learned_answer(field, file.where(row)), file.where(row)


def run_build(args: BuildOptions) -> int:
    from ofa.task.label_file import write_label_file

    counts = Counter(answer for answer, _ in answers_of(args))
    frequent = sorted(
        (-count, answer) for answer, count in counts.items() if count >= args.min_count
    )[: args.most]
    if not frequent:
        finding = f"{len(counts)}, none of {args.min_count} rows" if counts else "none"
        raise UserError(
            f"{', '.join(args.tsv)}: expected answers in column {args.column}, found {finding}; "
            "see --column, --min-count"
        )
    write_label_file(args.out, [answer for _, answer in frequent])
    rows, covered = sum(counts.values()), -sum(count for count, _ in frequent)
    print(
        f"{args.out}: {len(frequent)} of {len(counts)} answers, those of {covered} of {rows} rows"
        f" ({covered / rows:.1%})"
    )
    return 0


def run_check(args: CheckOptions) -> int:
    from ofa.task.answers import MissingAnswers
    from ofa.task.label_file import read_label_file

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
