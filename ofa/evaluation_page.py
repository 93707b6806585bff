"""The page of an evaluation: which figures, curves, tables and pictures it shows."""

import argparse
import platform
import time
from pathlib import Path

from ofa.report import Curve, Item, Report, Table, Tile, choose_rows, training_curves, write_report
from ofa.spec import Scores

Constant = tuple[str, dict[str, float]]
Column = tuple[str, dict[str, float]]


def write_page(args: argparse.Namespace, evaluation, scores: Scores | None, constant: Constant | None, others: list[Column],
               seconds: float) -> None:
    """Args: args: of ``ofa evaluate``; evaluation: its outcome; constant: the best constant caption and its scores;
    others: name and scores of each further column of the table of scores."""
    items = _items(evaluation, scores, args.report_images)
    shown = f", {len(items)} of them on this page" if len(items) < len(evaluation.texts) else ""
    write_report(args.report, Report(
        title=args.report_title or f"{evaluation.task.spec.name}: {args.gen_subset}",
        subtitle=f"{len(evaluation.texts)} pictures{shown} · {Path(args.path).name} · {time.strftime('%d %B %Y, %H:%M')}",
        tiles=_tiles(scores, constant), curves=_curves(args.training_log),
        tables=_tables(scores, others, args.timings, seconds), score_names=list(scores.by_row) if scores else [],
        items=items, footer=f"{args.path} · {args.data or args.images} · {platform.machine()}, Python "
                            f"{platform.python_version()} · made by ofa evaluate"))


def _items(evaluation, scores: Scores | None, limit: int) -> list[Item]:
    """The pictures to show; without scores in the order of the file."""
    columns = scores.by_row if scores else {}
    ranking = next(iter(columns.values())) if columns else list(range(len(evaluation.texts)))
    items = []
    for row in choose_rows(ranking, limit):
        fields = evaluation.dataset.row(row)
        items.append(Item(row, str(fields.get("id", row)), fields.get("image", ""), evaluation.texts[row],
                          evaluation.references[row] if evaluation.references else (),
                          [values[row] for values in columns.values()]))
    return items


def _tiles(scores: Scores | None, constant: Constant | None) -> list[Tile]:
    if scores is None:
        return []
    tiles = [Tile(name, f"{scores.overall[name]:.3f}",
                  f"best constant caption: {constant[1][name]:.3f}" if constant and name in constant[1] else "")
             for name in ("CIDEr", "BLEU-4", "ROUGE-L", "METEOR") if name in scores.overall]
    if constant and constant[1]["CIDEr"] > 0:
        tiles.insert(1, Tile("times the constant caption", f"{scores.overall['CIDEr'] / constant[1]['CIDEr']:.1f} ×",
                             f"“{constant[0]}”"))
    return tiles


def _curves(training_log: str | None) -> list[Curve]:
    return training_curves(Path(training_log).read_text(encoding="utf-8", errors="replace")) if training_log else []


def _tables(scores: Scores | None, others: list[Column], timings: str | None, seconds: float) -> list[Table]:
    tables = []
    if scores is not None:
        head = ["score", "model", *(name for name, _ in others)]
        rows = [[name, f"{value:.4f}", *(f"{other[name]:.4f}" if name in other else "" for _, other in others)]
                for name, value in scores.overall.items()]
        tables.append(Table("all scores", head, rows))
    if timings:
        lines = [line.split("\t") for line in Path(timings).read_text(encoding="utf-8").splitlines() if "\t" in line]
        lines.append(["evaluation", f"{seconds:.0f}"])
        total = sum(float(time_) for _, time_ in lines)
        tables.append(Table("time per stage", ["stage", "seconds"], [*lines, ["together", f"{total:.0f}"]]))
    return tables
