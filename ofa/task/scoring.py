"""How good predictions are: the metrics of a task in validation and over a file, the constant
baseline that a model has to beat, and the predictions for a file with their scores."""

import inspect
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional

from ofa.errors import naming
from ofa.io.terminal import with_noun
from ofa.task.intervals import Interval, intervals_of_counts
from ofa.task.prediction import BatchRow, Prediction

logger = logging.getLogger(__name__)

CANDIDATES = 200  # tried as the constant answer
SCREENED_ON = 100  # rows on which all of them are tried where scores take long ...
FINALISTS = 10  # ... and how many of them on all rows
# (predictions of a batch, its rows) -> counts by name
Scorer = Callable[[list[Prediction], list[BatchRow]], dict[str, float]]
Names = Optional[Sequence[str]]  # of scores; None: the usual ones


@dataclass(frozen=True)
class Metric:
    """A figure, computed from counts that are summed over rows, batches and ranks first."""

    name: str  # as in ``--best-checkpoint-metric``
    counts: tuple[str, ...]  # their names, each with a leading ``_``
    exact: Callable[[Mapping[str, float]], float]  # summed counts by name -> the figure
    # options -> whether a validation computes it; None: each does
    enabled: Optional[Callable[[Any], bool]] = None
    title: str = ""  # what a curve of it is called
    digits: Optional[int] = None  # that validation rounds it to, as upstream
    words: str = ""  # what it measures, below a table of scores

    def value(self, counts: Mapping[str, float]) -> float:
        """The figure of a validation, rounded."""
        found = self.exact(counts)
        return found if self.digits is None else round(found, self.digits)


def mean(
    name: str,
    total: str,
    count: str,
    enabled: Optional[Callable[[Any], bool]] = None,
    title: str = "",
    digits: int = 4,
    words: str = "",
) -> Metric:
    """A figure: the sum ``total`` over the rows ``count``, rounded as upstream."""
    exact = partial(_ratio, total, count)
    return Metric(name, (total, count), exact, enabled, title, digits, words)


def _ratio(total: str, count: str, counts: Mapping[str, float]) -> float:
    return counts[total] / max(counts[count], 1)


@dataclass
class Scores:
    """Scores of a whole evaluation by name: over all rows, one value per row, and how sure they
    are. ``counts``: what each scored row adds to ``Metric.counts``."""

    overall: dict[str, float] = field(default_factory=dict)
    by_row: dict[str, list[float]] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    counts: list[Mapping[str, float]] = field(default_factory=list)

    def mean_names(self) -> list[str]:
        """Scores over all rows that are the mean of the rows' own."""
        known = {
            name: [value for value in rows if not math.isnan(value)]
            for name, rows in self.by_row.items()
        }
        return [
            name
            for name, rows in known.items()
            if rows
            and math.isclose(sum(rows) / len(rows), self.overall.get(name, math.nan), abs_tol=1e-9)
        ]


class TaskMetrics:
    """Tasks derive ``figures``, ``row_counts`` and, if they do not score the texts of
    ``references``, ``reference``. This class scores nothing."""

    is_slow = False  # constant answers are tried on a few rows first
    ranked_by = ""  # the score that tells bad rows from good ones; "": the leading one
    # what sampled predictions earn when they are optimized (``--scst``); None: CIDEr-D, as captions
    reward: Optional[Callable[[Sequence[Prediction], Sequence[BatchRow]], list[float]]] = None

    @property
    def figures(self) -> tuple[Metric, ...]:
        """What validation may report."""
        return ()

    @property
    def reported(self) -> tuple[Metric, ...]:
        """The figures of a whole evaluation, the leading one first."""
        return self.figures

    def references(self, row: BatchRow) -> list[str]:
        """The accepted answers of a row of a batch, in words."""
        return [row.target.strip()]

    def reference(self, row: BatchRow) -> Any:
        """What the prediction of a row of a batch is compared with."""
        return self.references(row)

    def row_counts(self, prediction: Prediction, reference: Any) -> Mapping[str, float]:
        """What a row adds to ``Metric.counts``. Args: reference: as ``TaskSpec.row_references``
        gives it."""
        return {}

    def make_scorer(self, options: Any, all_references: Callable[[], list[list[str]]]) -> Scorer:
        """What counts for ``figures``. Args: all_references: of every validation row."""
        return self.counts

    def counts(
        self, predictions: Sequence[Prediction], rows: Sequence[BatchRow]
    ) -> dict[str, float]:
        """The counts of a batch."""
        of_rows = map(self.row_counts, predictions, map(self.reference, rows))
        return _summed(self.figures, list(of_rows))

    def final_scores(
        self, predictions: Sequence[Prediction], references: Sequence[Any], names: Names = None
    ) -> Scores:
        """What ``ofa evaluate`` reports. Args: references: ``TaskSpec.row_references`` of each."""
        rows = list(map(self.row_counts, predictions, references))
        total = _summed(self.reported, rows)
        return Scores(
            {figure.name: figure.exact(total) for figure in self.reported},
            {figure.name: list(map(figure.exact, rows)) for figure in self.reported},
            counts=rows,
        )

    def intervals(self, scores: Scores) -> dict[str, Interval]:
        """How sure each score is, of those that can be resampled row by row."""
        return intervals_of_counts(scores.counts, {one.name: one.exact for one in self.reported})

    def explanations(self) -> dict[str, str]:
        """What scores measure, by name."""
        return {figure.name: figure.words for figure in self.reported if figure.words}

    def constants(self, references: Sequence[Any]) -> list[str]:
        """Lines that may be the constant baseline: the answers of the rows. Args: as of
        ``final_scores``."""
        texts = (reference for reference in references if not isinstance(reference, str))
        return [
            *(reference for reference in references if isinstance(reference, str)),
            *(text for some in texts for text in some if isinstance(text, str)),
        ]

    def constant(self, line: str) -> Prediction:
        """The prediction that a line of text is when every row is answered so."""
        return Prediction(line)

    def best_constant(
        self, lines: Sequence[str], references: Sequence[Any]
    ) -> tuple[str, dict[str, float]]:
        """The line that answers all rows best, and its scores. It is chosen on the very rows it is
        scored on, which flatters it: a model has to beat the best case. Args: lines:
        ``commonest_and_others`` of training rows. references: as ``final_scores``."""
        best = self.best_line(lines, references)
        return best, self._scores_of_constant(best, references)

    def best_line(self, lines: Sequence[str], references: Sequence[Any]) -> str:
        """The first of the lines with the best leading score as the answer to all rows; metrics
        that find it faster than by scoring each line override this. Args: as ``best_constant``."""

        def leading(line: str, rows: int) -> float:
            return next(iter(self._scores_of_constant(line, references[:rows]).values()))

        rows = len(references)
        return best_screened(lines, rows, leading, SCREENED_ON if self.is_slow else rows)

    def _scores_of_constant(self, line: str, references: Sequence[Any]) -> dict[str, float]:
        return self.final_scores([self.constant(line)] * len(references), references).overall


def _summed(figures: Sequence[Metric], rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [name for figure in figures for name in figure.counts]
    return {name: float(sum(row[name] for row in rows)) for name in names}


def commonest_and_others(lines: Sequence[str], limit: int = CANDIDATES) -> list[str]:
    """Different lines: half of them the commonest, the others evenly spread over the rest."""
    common = [line for line, _ in Counter(filter(None, map(str.strip, lines))).most_common()]
    frequent, rest = common[: limit // 2], common[limit // 2 :]
    return frequent + rest[:: max(1, len(rest) // (limit // 2))][: limit // 2]


def best_screened(
    lines: Sequence[str], rows: int, score: Callable[[str, int], float], first: int = SCREENED_ON
) -> str:
    """The line with the best score, of those that do best on the first rows. Args: rows: of the
    file. score: (line, number of first rows) -> how well it answers them."""
    for some in (min(first, rows), rows):
        found = {line: score(line, some) for line in lines}
        lines = sorted(lines, key=lambda line: -found[line])[:FINALISTS]
    return lines[0]


@dataclass(kw_only=True)
class Evaluation:
    """The predictions for the rows of a file, in their order, and how good they are; rows without a
    reference are counted, named and not scored."""

    spec: Any  # ``TaskSpec``
    predictions: Sequence[Prediction]  # the best one per row, with the others that were asked for
    references: Sequence[Any] | None  # of each row (``references_of``); None if no row has any
    row: Callable[[int], Mapping[str, str]]  # number of a row -> its columns by name
    subset: str  # name of the predicted rows
    model: str  # checkpoint or result file
    source: str  # of the rows
    scores: Scores | None = None
    constant: tuple[str, dict[str, float]] | None = None  # the constant baseline and its scores
    seconds: float | None = None  # that the evaluation took
    path: Path | None = None  # of the result file
    broken: bool = False  # image files could not be read and were skipped

    def score(self, names: str | None = None, cider_df: dict | None = None) -> Scores:
        """Args: names: of scores, separated by commas; None: the usual ones."""
        scores, wanted = Scores(), names.split(",") if names else None
        if self.references is not None:
            scores = score_rows(self.spec, self.predictions, self.references, wanted, cider_df)
        self.scores = scores if scores.overall else None
        return scores

    @property
    def baseline(self) -> list[tuple[str, dict[str, float]]]:
        """A column to set beside the model's scores, if there is a constant baseline."""
        return [("constant baseline", self.constant[1])] if self.constant else []


def references_of(
    spec: Any, texts: Callable[[int], Any], count: int, where: Callable[[int], str]
) -> list[Any] | None:
    """References of each row as they stand in the file (``TaskSpec.row_references``).

    Args: texts, where: number of a row -> its columns by name, its ``file:row``.
    Returns: empty where a row has none, which is warned of; None if no row has one.
    Raises: UserError that names the row of a reference that cannot be read.
    """
    references = []
    for row in range(count):
        columns = texts(row)
        with naming(where(row)):
            references.append(spec.row_references(columns))
    lacking = [row for row, reference in enumerate(references) if not reference]
    if len(lacking) == count:
        return None
    if lacking:
        missing = f"{len(lacking)} of {with_noun(count, 'row')}"
        logger.warning("not scored, without a reference: %s, %s", missing, where(lacking[0]))
    return references


def score_rows(
    spec: Any,
    predictions: Sequence[Prediction],
    references: Sequence[Any],
    names: Sequence[str] | None = None,
    cider_df: dict | None = None,
) -> Scores:
    """``TaskMetrics.final_scores`` over the rows with a reference; ``by_row`` is NaN for the
    others. Args: cider_df: document frequencies for tasks that are scored by CIDEr-D."""
    final_scores: Callable[..., Scores] = spec.metrics.final_scores
    more = {}
    if cider_df is not None and "cider_df" in inspect.signature(final_scores).parameters:
        more = {"cider_df": cider_df}
    elif cider_df is not None:
        unused = f"task '{spec.name}' is not scored by CIDEr-D; the file is ignored"
        logger.warning("--cider-df: %s", unused)
    known = [row for row, reference in enumerate(references) if reference]
    of_known = [predictions[row] for row in known], [references[row] for row in known]
    scores = final_scores(*of_known, names, **more)
    scores.intervals = spec.metrics.intervals(scores)
    for name, values in scores.by_row.items():
        of_row = dict(zip(known, values, strict=True))
        scores.by_row[name] = [of_row.get(row, math.nan) for row in range(len(references))]
    return scores
