"""The page of an evaluation: which figures, curves, tables and images it shows."""

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.report.options import PageOptions
from ofa.report.page import (
    ANSWERS,
    CAPTIONS,
    Curve,
    Item,
    Outline,
    Report,
    Table,
    Tile,
    choose_rows,
    stage_times,
    training_curves,
    write_report,
)
from ofa.task.prediction import Prediction
from ofa.task.task_spec import Scores, TaskSpec

Constant = tuple[str, dict[str, float]]
Column = tuple[str, dict[str, float]]
# of the scores of captions; other tasks show all they have
LEADING = ("CIDEr", "BLEU-4", "ROUGE-L", "METEOR")


@dataclass
class Outcome:
    """What a page is made of.

    Args:
        predictions, references: one per row; references None if the rows have none.
        row: number of a row -> its columns by name.
    """

    spec: TaskSpec
    predictions: Sequence[Prediction]
    references: Sequence[Any] | None
    row: Callable[[int], Mapping[str, str]]


def write_page(
    path: str,
    outcome: Outcome,
    options: PageOptions,
    sources: tuple[str, str, str],
    scores: Scores | None,
    constant: Constant | None = None,
    others: Sequence[Column] = (),
    seconds: float | None = None,
) -> None:
    """Write the page of an evaluation.

    Args:
        sources: name of the predicted rows, the checkpoint or result file, the rows.
        constant: the constant baseline and its scores.
        others: name and scores of each further column of the table of scores.
    """
    subset, model, rows = sources
    items = _items(outcome, scores, options.report_images)
    shown = f", {len(items)} of them on this page" if len(items) < len(outcome.predictions) else ""
    names = list(scores.by_row) if scores else []
    write_report(
        path,
        Report(
            title=options.report_title or f"{outcome.spec.name}: {subset}",
            subtitle=(
                f"{len(outcome.predictions)} rows{shown} · {Path(model).name} ·"
                f" {time.strftime('%d %B %Y, %H:%M')}"
            ),
            tiles=_tiles(scores, constant),
            curves=_curves(options.training_log, outcome.spec),
            tables=_tables(scores, others, options.timings, seconds),
            score_names=names,
            items=items,
            grading=CAPTIONS
            if "CIDEr" in names
            else None
            if outcome.spec.generates_images
            else ANSWERS,
            wide=outcome.spec.generates_images,
            footer=(f"{model} · {rows} · {platform.machine()}, Python {platform.python_version()}"),
        ),
    )


def _items(outcome: Outcome, scores: Scores | None, limit: int) -> list[Item]:
    """The images to show; without scores in the order of the file."""
    columns = scores.by_row if scores else {}
    ranking = next(iter(columns.values())) if columns else list(range(len(outcome.predictions)))
    # rows without a reference come first
    ranking = [-math.inf if math.isnan(value) else value for value in ranking]
    items = []
    for row in choose_rows(ranking, limit):
        fields = outcome.row(row)
        shown = outcome.spec.shown(
            fields,
            outcome.predictions[row],
            outcome.references[row] if outcome.references else None,
        )
        image = next((fields.get(column.name, "") for column in outcome.spec.images), "")
        items.append(
            Item(
                row,
                str(fields.get("id", row)),
                shown.image or image,
                shown.answer,
                shown.references,
                [values[row] for values in columns.values() if not math.isnan(values[row])],
                shown.question,
                [Outline(kind, box) for kind, box in shown.boxes],
            )
        )
    return items


def _tiles(scores: Scores | None, constant: Constant | None) -> list[Tile]:
    if scores is None:
        return []
    names = [name for name in LEADING if name in scores.overall] or list(scores.overall)
    tiles = [
        Tile(
            name,
            f"{scores.overall[name]:.3f}",
            (
                f"constant baseline: {constant[1][name]:.3f}"
                if constant and name in constant[1]
                else ""
            ),
        )
        for name in names
    ]
    if constant and constant[1].get(names[0], 0) > 0:
        tiles.insert(
            1,
            Tile(
                "times the constant answer",
                f"{scores.overall[names[0]] / constant[1][names[0]]:.1f} ×",
                f"“{constant[0]}”",
            ),
        )
    return tiles


def _curves(training_log: str | None, spec: TaskSpec) -> list[Curve]:
    return (
        training_curves(Path(training_log).read_text(encoding="utf-8", errors="replace"), spec)
        if training_log
        else []
    )


def _tables(
    scores: Scores | None, others: Sequence[Column], timings: str | None, seconds: float | None
) -> list[Table]:
    tables = []
    if scores is not None:
        head = ["score", "model", *(name for name, _ in others)]
        rows = [
            [
                name,
                f"{value:.4f}",
                *(f"{other[name]:.4f}" if name in other else "" for _, other in others),
            ]
            for name, value in scores.overall.items()
        ]
        tables.append(Table("all scores", head, rows))
    if timings:
        tables.append(stage_times(timings, *([] if seconds is None else [("evaluation", seconds)])))
    return tables
