"""The page of an evaluation: which figures, curves, tables and images it shows."""

import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from ofa.report import page
from ofa.report.options import PageOptions
from ofa.task.scoring import Evaluation, Scores

# of the scores of captions; other tasks show all they have
LEADING = ("CIDEr", "BLEU-4", "ROUGE-L", "METEOR")


def evaluation_report(outcome: Evaluation, options: PageOptions) -> page.Report:
    """The page of an evaluation."""
    scores = outcome.scores or Scores()
    items = _items(outcome, scores, options.report_images)
    rows = len(outcome.predictions)
    shown = f", {len(items)} of them on this page" if len(items) < rows else ""
    draws = outcome.spec.generates_images
    columns = [*options.compare, *outcome.baseline]
    tables = [score_table(scores, columns)] if scores.overall else []
    if options.timings:
        took = {} if outcome.seconds is None else {"evaluation": outcome.seconds}
        tables.append(page.stage_times(options.timings, **took))
    curves = []
    if options.training_log:  # which may hold bytes of any program
        log = Path(options.training_log).read_text(encoding="utf-8", errors="replace")
        curves = page.training_curves(log, outcome.spec)
    return page.Report(
        options.report_title or f"{outcome.spec.name}: {outcome.subset}",
        f"{rows} rows{shown} · {Path(outcome.model).name} · {time.strftime('%d %B %Y, %H:%M')}",
        scores.overall,
        _tiles(scores.overall, outcome),
        curves,
        tables,
        list(scores.by_row),
        items,
        f"{outcome.model} · {outcome.source} · {platform.machine()},"
        f" Python {platform.python_version()}",
        page.CAPTIONS if "CIDEr" in scores.by_row else None if draws else page.ANSWERS,
        wide=draws,
    )


def _items(outcome: Evaluation, scores: Scores, limit: int) -> list[page.Item]:
    """The images to show; without scores in the order of the file."""
    columns = list(scores.by_row.values())
    ranking = columns[0] if columns else range(len(outcome.predictions))
    items = []
    for row in page.choose_rows(ranking, limit):
        fields = outcome.row(row)
        references = outcome.references[row] if outcome.references else None
        shown = outcome.spec.shown(fields, outcome.predictions[row], references)
        images = [fields.get(column.name, "") for column in outcome.spec.images]
        shown.image = shown.image or next(iter(images), "")
        given = [values[row] for values in columns if not math.isnan(values[row])]
        items.append(page.Item(**vars(shown), id=str(fields.get("id", row)), row=row, scores=given))
    return items


def _tiles(scores: dict[str, float], outcome: Evaluation) -> list[page.Tile]:
    answer, baseline = outcome.constant or ("", {})
    names = [name for name in LEADING if name in scores] or list(scores)
    tiles = []
    for name in names:
        note = f"constant baseline: {baseline[name]:.3f}" if name in baseline else ""
        tiles.append(page.Tile(name, f"{scores[name]:.3f}", note))
        if len(tiles) == 1 and baseline.get(name, 0) > 0:
            times = f"{scores[name] / baseline[name]:.1f} ×"
            tiles.append(page.Tile("times the constant answer", times, f"“{answer}”"))
    return tiles


def score_table(scores: Scores, others: Sequence[tuple[str, dict[str, float]]]) -> page.Table:
    """Args: others: names and scores of further columns."""
    columns = [("model", scores.overall), *others]
    rows = [
        [name, *(f"{column[name]:.4f}" if name in column else "" for _, column in columns)]
        for name in scores.overall
    ]
    return page.Table("all scores", ["score", *(name for name, _ in columns)], rows)
