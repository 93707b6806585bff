"""``ofa report``: a result file and the rows it answers -> a page with images, answers, boxes
and scores."""

from collections.abc import Callable, Sequence
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
    from ofa.data.rows import open_rows
    from ofa.task.scoring import Evaluation, references_of
    from ofa.tasks import spec_of

    check_files(args, "training_log", "timings")
    spec = spec_of(args.task)
    file = open_rows(args.data, args.selected_cols or spec.default_cols)
    columns = spec.names_of(len(file.selected_cols), args.data)

    def row(index: int) -> dict[str, str]:
        return dict(zip(columns, file[index]))

    outcome = Evaluation(
        spec=spec,
        predictions=predictions_by_row(args, spec, file, row),
        references=references_of(spec, row, len(file), file.where),
        row=row,
        subset=Path(args.results).stem.removesuffix("_predict"),
        model=args.results,
        source=args.data,
    )
    outcome.score(args.scores, args.cider_df)
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
    from ofa.report.evaluation_page import score_table

    table = score_table(scores, others)
    widths = [max(10, len(name) + 3) for name in table.head[1:]]
    for name, *cells in [["", *table.head[1:]], *table.rows]:
        line = [f"{cell:>{width}}" for cell, width in zip(cells, widths)]
        print(f"{name:10}{''.join(line)}".rstrip())


def predictions_by_row(args: ReportOptions, spec: Any, file: Any, row: Callable) -> list:
    """The prediction of each row, found by its id; by its place where rows have no ids. Args:
    file: of the rows. row: number of a row -> its columns by name.

    Raises: UserError if a row has none, or several, or the file answers other rows.
    """
    from ofa.task.results import prediction_of, read_predictions

    path, (id_key, *texts) = args.results, result_keys(spec)
    ids, predictions = [], []
    for number, entry in enumerate(read_predictions(path), 1):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise UserError(
                f"{where}: expects a prediction, found {str(entry)[:80]}; is it a result file?"
            )
        ids.append(str(entry[id_key]) if id_key in entry else None)
        folder, images = Path(path).parent, args.gen_images_path
        predictions.append(prediction_of(entry, where, folder, images, texts))
    found = dict(zip(ids, predictions))
    wanted = [row(index).get("id") for index in range(len(file))]
    if len(predictions) == len(wanted) and (None in wanted or ids == wanted):
        return predictions
    if None in wanted or len(found) < len(predictions):
        raise UserError(
            f"{path}: expects one entry for each of the {len(wanted)} rows of {file.path}, found"
            f" {len(predictions)} with {len(found)} different ids; is it the file that was"
            " evaluated?"
        )
    for index, name in enumerate(wanted):
        if name not in found:
            raise UserError(
                f"{file.where(index)}: expects a prediction with the id {name!r} in {path},"
                " found none; is it the file that was evaluated, and does --selected-cols name the "
                "same columns?"
            )
    return [found[name] for name in wanted]


def result_keys(spec: Any) -> tuple[str, str]:
    """What entries of a task's result file call the id of their row and their answer in words."""
    from ofa.task.prediction import Prediction

    sample = Prediction("yes", 0.0, box=(0.0, 0.0, 1.0, 1.0), bins=(0, 0, 1, 1))
    keys = {str(value): key for key, value in spec.result("7", sample).items()}
    return keys.get("7", "id"), keys.get("yes", "answer")
