"""``ofa answers build | check``: the set of answers that a model may give, made from training
files."""

import argparse
from collections import Counter

from ofa.errors import UserError


def add_parser(subparsers) -> None:
    """Add ``answers`` to the commands of ``ofa``."""
    parser = subparsers.add_parser(
        "answers", help="make or check the set of answers of a task (trainval_ans2label)"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    build = actions.add_parser(
        "build",
        help="the most frequent answers of training files",
        description=(
            "Counts the answers that training rows teach (of a row the one of highest confidence)"
            " and writes the most frequent as {answer: number}, which --ans2label-file reads."
            " Frequent answers come first, equally frequent ones in the order of the alphabet. Rows"
            " with other answers have to be left out of training: ofa answers check names them."
        ),
    )
    _add_rows(build)
    build.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="JSON file to write, or .pkl for upstream's scripts",
    )
    build.add_argument(
        "--most", type=int, metavar="N", help="at most so many answers (VQA v2 has 3129)"
    )
    build.add_argument(
        "--min-count",
        type=int,
        default=1,
        metavar="N",
        help="only answers of so many rows (%(default)s)",
    )
    build.set_defaults(run=run_build)

    check = actions.add_parser("check", help="list every answer of files that a set has not")
    _add_rows(check)
    check.add_argument(
        "--ans2label-file", required=True, metavar="FILE", help="the set, as JSON or pickle"
    )
    check.set_defaults(run=run_check)


def _add_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tsv", nargs="+", metavar="TSV", help="training files")
    parser.add_argument(
        "--column",
        type=int,
        default=3,
        metavar="N",
        help="their answers, from 0: 3 in VQA files, 2 in ImageNet files (%(default)s)",
    )


def answers_of(args: argparse.Namespace):
    """(answer that a row teaches, its place), row by row; rows without answers are skipped."""
    from ofa.data.rows import open_rows
    from ofa.task.text import learned_answer

    for path in args.tsv:
        file = open_rows(path, [args.column])
        for row in range(len(file)):
            field = file.texts(row, [args.column])[0]
            if field.strip():
                yield learned_answer(field, file.where(row)), file.where(row)


def run_build(args: argparse.Namespace) -> int:
    from ofa.task.label_file import write_label_file

    if args.most is not None and args.most < 1:
        raise UserError(f"--most: expected at least 1, found {args.most}")
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


def run_check(args: argparse.Namespace) -> int:
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
