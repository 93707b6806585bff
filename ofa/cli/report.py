"""``ofa report``: a result file and the rows it answers -> a page with images, answers, boxes
and scores."""

import argparse
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.json_files import load_json

EXAMPLE = """\
example:
  ofa report results/val_predict.json --data refcoco_val.tsv --task refcoco --out val.html

Works with the result files of ofa evaluate and of upstream's program, and needs no checkpoint."""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "report",
        help="show a result file beside its images",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="RESULTS", help="SUBSET_predict.json")
    parser.add_argument("--data", required=True, metavar="TSV", help="the rows that were evaluated")
    parser.add_argument(
        "--task",
        required=True,
        help="whose declaration reads the rows: caption, vqa_gen, refcoco, ...",
    )
    parser.add_argument(
        "--selected-cols", metavar="N,N,...", help="columns in the order the task names them"
    )
    parser.add_argument("--out", required=True, metavar="FILE.html", dest="report", help="the page")
    parser.add_argument(
        "--scores", metavar="NAME,...", help="captions: which scores, as in ofa evaluate"
    )
    add_cider_df(parser)
    parser.add_argument(
        "--gen-images-path",
        metavar="DIR",
        help="folder of generated images that lie outside that of RESULTS",
    )
    add_page_flags(parser)
    parser.set_defaults(run=run)


def add_cider_df(parser: Any) -> None:
    parser.add_argument(
        "--cider-df",
        "--eval-cider-cached-tokens",
        metavar="FILE",
        type=frequencies_of,
        help=(
            "captions: document frequencies for CIDEr-D, made by ofa cider-df (default: of the"
            " references)"
        ),
    )


def frequencies_of(path: str) -> dict:
    """The content of a file of document frequencies, read before anything is predicted."""
    from ofa.metrics.document_frequency import read_document_frequencies

    try:
        num_images, frequencies = read_document_frequencies(path)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return {"ref_len": num_images, "document_frequency": frequencies}


def add_page_flags(parser: Any) -> None:
    """The flags that say what a page shows besides its rows. Args: parser: or a group of one."""
    parser.add_argument(
        "--report-images",
        type=int,
        default=500,
        metavar="N",
        help="images on the page, evenly spread from the worst to the best (%(default)s)",
    )
    parser.add_argument("--report-title", metavar="TEXT", help="heading of the page")
    parser.add_argument(
        "--training-log", metavar="FILE", help="train.log whose curves the page shows"
    )
    parser.add_argument(
        "--timings",
        metavar="FILE",
        help="lines of 'stage TAB seconds' that the page shows as a table",
    )
    parser.add_argument(
        "--compare",
        metavar="NAME=FILE",
        type=named_scores,
        action="append",
        default=[],
        help=(
            "the SUBSET_scores.json of another evaluation, shown beside this one's scores; may be"
            " repeated"
        ),
    )


def named_scores(text: str) -> tuple[str, dict[str, float]]:
    """``NAME=FILE`` -> the name and the scores that an earlier evaluation wrote there."""
    name, _, path = text.rpartition("=")
    try:
        scores = load_json(Path(path).read_text(encoding="utf-8"))["scores"]
        return name or Path(path).stem.removesuffix("_scores"), {
            key: float(value) for key, value in scores.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"expected the SUBSET_scores.json of an evaluation at {path} ({type(error).__name__}:"
            f" {error}); ofa evaluate --results-path writes it"
        ) from None


def run(args: argparse.Namespace) -> int:
    """Score the predictions of the file and write the page."""
    from ofa.report.evaluation_page import Outcome, write_page
    from ofa.task.scoring import references_of, score_rows
    from ofa.tasks import spec_of

    check_files(args, "training_log", "timings")
    spec = spec_of(args.task)
    rows = open_rows(args.data, args.selected_cols or spec.default_cols, spec)
    predictions = predictions_by_row(args.path, rows, args.gen_images_path)
    references = references_of(spec, rows.row, len(rows), rows.file.where)
    scores = None
    if references is not None and spec.final_scores is not None:
        scores = score_rows(
            spec,
            predictions,
            references,
            args.scores.split(",") if args.scores else None,
            args.cider_df,
        )
        scores = scores if scores.overall else None
    if scores is not None:
        print_table(args.compare, scores)
    args.gen_subset = Path(args.path).stem.removesuffix("_predict")
    write_page(args, Outcome(spec, predictions, references, rows.row), scores, None, args.compare)
    print(f"page: {args.report}")
    return 0


def check_files(args: argparse.Namespace, *names: str) -> None:
    """Raises: UserError if a file that an option names is not there."""
    for name in names:
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise UserError(f"--{name.replace('_', '-')}: expected a file, found none at {path}")


def print_table(others: list[tuple[str, dict[str, float]]], scores) -> None:
    widths = [max(10, len(name) + 3) for name, _ in others]
    print(
        f"{'':10}{'model':>10}"
        + "".join(f"{name:>{width}}" for (name, _), width in zip(others, widths))
    )
    for name, value in scores.overall.items():
        cells = [f"{other[name]:.4f}" if name in other else "" for _, other in others]
        print(
            (
                f"{name:10}{value:10.4f}"
                + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths))
            ).rstrip()
        )


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
                " found none; is it the file that was evaluated, and does --selected-cols name the"
                " same columns?"
            )
    return [found[name] for name in ids]
