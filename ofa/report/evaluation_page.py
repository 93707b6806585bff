"""The page of an evaluation: which figures, curves, tables and images it shows."""

import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from ofa.report.options import PageOptions
from ofa.report.page import ANSWERS, CAPTIONS, Item, Report, Table, Tile, choose_rows
from ofa.report.training_log import stage_times, training_curves
from ofa.task.scoring import Evaluation, Scores

# of the scores of captions; other tasks show all they have
LEADING = ("CIDEr", "BLEU-4", "ROUGE-L", "METEOR")


def evaluation_report(outcome: Evaluation, options: PageOptions) -> Report:
    """The page of an evaluation."""
    scores = outcome.scores or Scores()
    items = _items(outcome, scores, options.report_images)
    rows = len(outcome.predictions)
    shown = f", {len(items)} of them on this page" if len(items) < rows else ""
    draws = outcome.spec.generates_images
    log = _text_of(options.training_log) if options.training_log else ""
    columns = [*options.compare, *outcome.baseline]
    tables = [score_table(scores, columns)] if scores.overall else []
    if options.timings:
        took = {} if outcome.seconds is None else {"evaluation": outcome.seconds}
        tables.append(stage_times(options.timings, **took))
    return Report(
        options.report_title or f"{outcome.spec.name}: {outcome.subset}",
        f"{rows} rows{shown} · {Path(outcome.model).name} · {time.strftime('%d %B %Y, %H:%M')}",
        scores.overall,
        _tiles(scores.overall, outcome.constant),
        training_curves(log, outcome.spec) if log else [],
        tables,
        list(scores.by_row),
        items,
        f"{outcome.model} · {outcome.source} · {platform.machine()},"
        f" Python {platform.python_version()}",
        CAPTIONS if "CIDEr" in scores.by_row else None if draws else ANSWERS,
        wide=draws,
    )


def _text_of(path: str) -> str:
    """A log may hold bytes of any program."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def _items(outcome: Evaluation, scores: Scores, limit: int) -> list[Item]:
    """The images to show; without scores in the order of the file."""
    columns = list(scores.by_row.values())
    ranking = columns[0] if columns else list(range(len(outcome.predictions)))
    # rows without a reference come first
    ranking = [-math.inf if math.isnan(value) else value for value in ranking]
    items = []
    for row in choose_rows(ranking, limit):
        fields = outcome.row(row)
        references = outcome.references[row] if outcome.references else None
        shown = outcome.spec.shown(fields, outcome.predictions[row], references)
        images = [fields.get(column.name, "") for column in outcome.spec.images]
        shown.image = shown.image or next(iter(images), "")
        given = [values[row] for values in columns if not math.isnan(values[row])]
        items.append(Item(**vars(shown), id=str(fields.get("id", row)), row=row, scores=given))
    return items


def _tiles(scores: dict[str, float], constant: tuple[str, dict[str, float]] | None) -> list[Tile]:
    answer, baseline = constant or ("", {})
    names = [name for name in LEADING if name in scores] or list(scores)
    tiles = []
    for name in names:
        note = f"constant baseline: {baseline[name]:.3f}" if name in baseline else ""
        tiles.append(Tile(name, f"{scores[name]:.3f}", note))
        if len(tiles) == 1 and baseline.get(name, 0) > 0:
            times = f"{scores[name] / baseline[name]:.1f} ×"
            tiles.append(Tile("times the constant answer", times, f"“{answer}”"))
    return tiles


def score_table(scores: Scores, others: Sequence[tuple[str, dict[str, float]]]) -> Table:
    """Args: others: names and scores of further columns."""
    columns = [("model", scores.overall), *others]
    rows = [
        [name, *(f"{column[name]:.4f}" if name in column else "" for _, column in columns)]
        for name in scores.overall
    ]
    return Table("all scores", ["score", *(name for name, _ in columns)], rows)
