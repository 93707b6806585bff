"""``ofa report``: a result file and the rows it answers -> a page with images, answers, boxes
and scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import Parser, command, option
from ofa.report.options import PageOptions

EXAMPLE = """\
example:
  ofa report results/val_predict.json --data refcoco_val.tsv --task refcoco --out val.html

Works with the result files of ofa evaluate and of upstream's program, and needs no checkpoint."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(PageOptions):
    """A result file, and the rows it answers."""

    results: str = option(help="SUBSET_predict.json", positional=True)
    data: str = option(help="rows that were evaluated")
    task: str = option(help="task that reads the rows: caption, vqa_gen, refcoco, ...")
    selected_cols: str | None = option(
        None, "columns in the order the task names them", metavar="N,N,..."
    )
    out: str = option(help="page to write")
    gen_images_path: str | None = option(None, "folder of generated images outside that of RESULTS")


def set_up(parser: Parser) -> None:
    """The flags of ``ofa report``."""
    command(parser, ReportOptions, run, EXAMPLE)


def run(args: ReportOptions) -> int:
    """Score the predictions of the file and write the page."""
    from ofa.report.evaluation_page import Outcome
    from ofa.task.scoring import references_of, score_rows
    from ofa.tasks import spec_of

    check_files(args, "training_log", "timings")
    spec = spec_of(args.task)
    rows = open_rows(args.data, args.selected_cols or spec.default_cols, spec)
    outcome = Outcome(
        spec=spec,
        predictions=predictions_by_row(args.results, rows, args.gen_images_path),
        references=references_of(spec, rows.row, len(rows), rows.file.where),
        row=rows.row,
        subset=Path(args.results).stem.removesuffix("_predict"),
        model=args.results,
        source=args.data,
    )
    if outcome.references is not None:
        names = args.scores.split(",") if args.scores else None
        scores = score_rows(spec, outcome.predictions, outcome.references, names, args.cider_df)
        outcome.scores = scores if scores.overall else None
    if outcome.scores is not None:
        print_table(args.compare, outcome.scores)
    write_pages(args.out, outcome, args)
    return 0


def write_pages(path: str | None, outcome: Any, args: PageOptions) -> None:
    """The page of an evaluation and the same as JSON, whichever is wanted."""
    from ofa.report.evaluation_page import evaluation_report
    from ofa.report.page import write_report, write_report_json

    report = evaluation_report(outcome, args)
    if path:
        write_report(path, report)
        print(f"page: {path}")
    if args.json:
        write_report_json(args.json, report)
        print(f"json: {args.json}")


def check_files(args: PageOptions, *names: str) -> None:
    """Raises: UserError if a file that an option names is not there."""
    for name in names:
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise UserError(f"--{name.replace('_', '-')}: expected a file, found none at {path}")


def print_table(others: Sequence[tuple[str, dict[str, float]]], scores: Any) -> None:
    """Args: others: names and scores of further columns."""
    widths = [max(10, len(name) + 3) for name, _ in others]
    names = [f"{name:>{width}}" for (name, _), width in zip(others, widths)]
    print(f"{'':10}{'model':>10}" + "".join(names))
    for name, value in scores.overall.items():
        cells = [f"{other[name]:.4f}" if name in other else "" for _, other in others]
        cells = [f"{cell:>{width}}" for cell, width in zip(cells, widths)]
        print(f"{name:10}{value:10.4f}{''.join(cells)}".rstrip())


class Rows:
    """Rows of a TSV file by column name."""

    def __init__(self, file, columns: tuple[str, ...]):
        self.file, self.columns = file, columns

    def __len__(self) -> int:
        return len(self.file)

    def row(self, index: int) -> dict[str, str]:
        return dict(zip(self.columns, self.file[index]))


def open_rows(path: str, selected_cols: str, spec) -> Rows:
    """Raises: UserError if the file is missing or its columns do not fit the task."""
    from ofa.data import rows

    file = rows.open_rows(path, selected_cols)
    return Rows(file, spec.names_of(len(file.selected_cols), path))


def predictions_by_row(path: str, rows: Rows, images: str | None = None) -> list:
    """The prediction of each row, found by its id; by its place where rows have no ids. Args:
    images: as of ``prediction_of``.

    Raises: UserError if a row has none, or several, or the file answers other rows.
    """
    from ofa.task.results import id_of, prediction_of, read_predictions

    entries = read_predictions(path)
    found: dict[str | None, Any] = {}
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise UserError(
                f"{path}: entry {number}: expects a prediction, found {str(entry)[:80]}; is it a"
                " result file?"
            )
        found[id_of(entry)] = prediction_of(
            entry, f"{path}: entry {number}", Path(path).parent, images
        )
    ids = [rows.row(index)["id"] for index in range(len(rows))] if "id" in rows.columns else None
    if len(entries) == len(rows) and (ids is None or ids == list(map(id_of, entries))):
        return [prediction_of(entry, folder=Path(path).parent, images=images) for entry in entries]
    if ids is None or len(found) < len(entries):
        raise UserError(
            f"{path}: expects one entry for each of the {len(rows)} rows of {rows.file.path}, found"
            f" {len(entries)} with {len(found)} different ids; is it the file that was evaluated?"
        )
    for index, name in enumerate(ids):
        if name not in found:
            raise UserError(
                f"{rows.file.where(index)}: expects a prediction with the id {name!r} in {path},"
                " found none; is it the file that was evaluated, and does --selected-cols name the "
                "same columns?"
            )
    return [found[name] for name in ids]
