"""The page of an evaluation: which figures, curves, tables and images it shows."""

import math
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ofa.io.terminal import with_noun
from ofa.report import page
from ofa.report.options import PageOptions
from ofa.task.intervals import LEVEL, paired_difference
from ofa.task.scoring import Evaluation, Scores

# of the scores of captions; other tasks show all they have
LEADING = ("CIDEr", "BLEU-4", "ROUGE-L", "METEOR")
BARS = 20  # of a histogram
ANSWERS = 12  # in the tables of answers, the commonest ones
OTHERS = "(others)"


def evaluation_report(outcome: Evaluation, options: PageOptions) -> page.Report:
    """The page of an evaluation."""
    scores = outcome.scores or Scores()
    ranked_by = outcome.spec.metrics.ranked_by or next(iter(scores.by_row), "")
    items = _items(outcome, scores, ranked_by, options.report_images)
    rows = len(outcome.predictions)
    shown = f", {len(items)} of them on this page" if len(items) < rows else ""
    draws = outcome.spec.generates_images
    tables = [score_table(outcome, options.compare)] if scores.overall else []
    tables += answer_tables(outcome, scores)
    if options.timings:
        took = {} if outcome.seconds is None else {"evaluation": outcome.seconds}
        tables.append(page.stage_times(options.timings, **took))
    curves = []
    if options.training_log:  # which may hold bytes of any program
        log = Path(options.training_log).read_text(encoding="utf-8", errors="replace")
        curves = page.training_curves(log, outcome.spec)
    return page.Report(
        options.report_title or f"{outcome.spec.name}: {outcome.subset}",
        f"{Path(outcome.source).name} · {with_noun(rows, 'row')}{shown}"
        f" · {Path(outcome.model).name} · {time.strftime('%d %B %Y, %H:%M')}",
        scores.overall,
        _tiles(scores.overall, outcome),
        curves,
        tables,
        histograms(scores),
        list(scores.by_row),
        items,
        f"{outcome.model} · {outcome.source} · {platform.machine()},"
        f" Python {platform.python_version()}",
        page.CAPTIONS if "CIDEr" in scores.by_row else None if draws else page.ANSWERS,
        wide=draws,
        ranked_by=ranked_by,
    )


def _items(outcome: Evaluation, scores: Scores, ranked_by: str, limit: int) -> list[page.Item]:
    """The images to show, the worst first; without scores in the order of the file."""
    columns = list(scores.by_row.values())
    ranking = scores.by_row.get(ranked_by, range(len(outcome.predictions)))
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
        notes = [f"constant baseline: {baseline[name]:.3f}"] if name in baseline else []
        if interval := outcome.scores and outcome.scores.intervals.get(name):
            notes.insert(0, f"{LEVEL:.0%}: {_range(interval)}")
        note = " · ".join(notes)
        tiles.append(page.Tile(name, f"{scores[name]:.3f}", note))
        if len(tiles) == 1 and baseline.get(name, 0) > 0:
            times = f"{scores[name] / baseline[name]:.1f} ×"
            tiles.append(page.Tile("times the constant answer", times, f"“{answer}”"))
    return tiles


def score_table(outcome: Evaluation, compare: Sequence[tuple[str, Scores]] = ()) -> page.Table:
    """The scores with their intervals, beside those of other evaluations and of the constant
    baseline; differences are paired row by row. Args: compare: names and scores of others."""
    scores = outcome.scores or Scores()
    names, means = [*scores.overall], {*scores.mean_names()}
    columns: dict[str, dict[str, str]] = {"model": _cells(scores.overall)}
    if scores.intervals:
        columns[f"{LEVEL:.0%} interval"] = {
            name: _range(interval) for name, interval in scores.intervals.items()
        }
    for title, other in compare:
        columns[title] = _cells(other.overall)
        paired = {
            name: paired_difference(scores.by_row[name], other.by_row[name])
            for name in means & {*other.mean_names()}
        }
        differences = {
            name: f"{found[0]:+.4f} ({_range(found[1], '+')})"
            for name, found in paired.items()
            if found is not None
        }
        if differences:
            columns[f"minus {title}"] = differences
    for title, baseline in outcome.baseline:
        columns[title] = _cells(baseline)
    rows = [[name, *(cells.get(name, "") for cells in columns.values())] for name in names]
    return page.Table(
        "all scores", ["score", *columns], rows, note="; ".join(explanations(outcome))
    )


def explanations(outcome: Evaluation) -> list[str]:
    """What each score measures, a line each."""
    scores, known = outcome.scores or Scores(), outcome.spec.metrics.explanations()
    return [f"{name}: {known[name]}" for name in scores.overall if name in known]


def _cells(scores: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in scores.items()}


def _range(interval: tuple[float, float], sign: str = "") -> str:
    low, high = interval
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def histograms(scores: Scores) -> list[page.Histogram]:
    """Of the leading scores that are more than right or wrong."""
    found = []
    for name in [name for name in LEADING if name in scores.by_row] or scores.by_row:
        values = np.array(scores.by_row[name])
        values = values[np.isfinite(values)]
        if len(np.unique(values)) > 2:
            span = min(0.0, values.min()), max(1.0, values.max())
            counts, edges = np.histogram(values, BARS, span)
            title = f"rows by {name}"
            found.append(page.Histogram(title, edges.tolist(), counts.tolist()))
    return found


def answer_tables(outcome: Evaluation, scores: Scores) -> list[page.Table]:
    """Of tasks with accepted answers (questions, labels): how good each of the commonest answers
    is, and what is taken for what."""
    values = next(iter(scores.by_row.values()), [])
    known = zip(outcome.references or (), outcome.predictions, values)
    rows = [(accepted, one.text, value) for accepted, one, value in known if accepted]
    if not rows or not all(isinstance(accepted, Mapping) for accepted, _, _ in rows):
        return []
    pairs = [(_true(accepted, said), said) for accepted, said, _ in rows]
    true = Counter(expected for expected, _ in pairs)
    names = [name for name, _ in true.most_common(ANSWERS)]
    if true[names[0]] == 1:  # nearly every answer is its own
        return []
    said, taken = Counter(answer for _, answer in pairs), Counter(pairs)
    score = next(iter(scores.by_row))
    of_answer = []
    for name in names:
        earned = [value for (expected, _), (_, _, value) in zip(pairs, rows) if expected == name]
        wrong = Counter({b: count for (a, b), count in taken.items() if a == name != b})
        mistaken = ", ".join(f"{b or '(nothing)'} ({count})" for b, count in wrong.most_common(3))
        mean = f"{np.mean(earned):.3f}"
        of_answer.append([name, str(true[name]), str(said[name]), mean, mistaken])
    head = ["answer", "rows", "predicted", score, "wrong predictions"]
    rest = len(true) - len(names)
    note = f"The {len(names)} commonest of {len(true)} answers." if rest else ""
    tables = [page.Table("each answer", head, of_answer, words=True, note=note)]
    return [*tables, _confusion(pairs, names)] if len(names) > 1 else tables


def _true(accepted: Mapping[str, float], said: str) -> str:
    """The expected answer; of several equally good ones the predicted one."""
    best = max(accepted, key=accepted.__getitem__)
    return said if accepted.get(said) == accepted[best] else best


def _confusion(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> page.Table:
    """Args: pairs: expected and predicted answer of each row. names: answers to tell apart."""
    known = {name: name for name in names}
    counts = Counter((known.get(a, OTHERS), known.get(b, OTHERS)) for a, b in pairs)
    shown = [*names, OTHERS] if any(OTHERS in pair for pair in counts) else list(names)
    rows = [[a, *(str(counts[a, b]) for b in shown)] for a in shown]
    note = "A row for each expected answer, a column for each predicted one."
    return page.Table("expected and predicted", ["", *shown], rows, note=note, counts=True)
