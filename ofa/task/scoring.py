"""The predictions for a file and their scores; rows without a reference are counted, named and not
scored."""

import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.task.prediction import Prediction
from ofa.task.task_spec import Scores, TaskSpec

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Evaluation:
    """The predictions for the rows of a file, in their order, and how good they are.

    Args:
        predictions: the best one per row, with the others that were asked for.
        references: of each row (``references_of``); None if no row has any.
        row: number of a row -> its columns by name.
        subset: name of the predicted rows. model: checkpoint or result file. source: of the rows.
        constant: the constant baseline and its scores. seconds: that the evaluation took.
        path: of the result file. broken: image files could not be read and were skipped.
    """

    spec: TaskSpec
    predictions: Sequence[Prediction]
    references: Sequence[Any] | None
    row: Callable[[int], Mapping[str, str]]
    subset: str
    model: str
    source: str
    scores: Scores | None = None
    constant: tuple[str, dict[str, float]] | None = None
    seconds: float | None = None
    path: Path | None = None
    broken: bool = False

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
    spec: TaskSpec, texts: Callable[[int], Any], count: int, where: Callable[[int], str]
) -> list[Any] | None:
    """References of each row as they stand in the file (``TaskSpec.row_references``).

    Args:
        texts: number of a row -> its columns by name.
        where: number of a row -> ``file:row``.
    Returns: empty where a row has none, which is warned of; None if no row has one.
    Raises: UserError that names the row of a reference that cannot be read.
    """
    references = []
    for row in range(count):
        columns = texts(row)
        try:
            references.append(spec.row_references(columns))
        except UserError as error:
            raise UserError(f"{where(row)}: {error}") from None
    lacking = [row for row, reference in enumerate(references) if not reference]
    if len(lacking) == count:
        return None
    if lacking:
        logger.warning(
            "%d of %d rows have no reference and are not scored, the first is %s",
            len(lacking),
            count,
            where(lacking[0]),
        )
    return references


def score_rows(
    spec: TaskSpec,
    predictions: Sequence[Prediction],
    references: Sequence[Any],
    names: Sequence[str] | None = None,
    cider_df: dict | None = None,
) -> Scores:
    """``TaskMetrics.final_scores`` over the rows with a reference; ``by_row`` is NaN for the
    others.

    Args: cider_df: document frequencies for tasks that are scored by CIDEr-D.
    """
    final_scores: Callable[..., Scores] = spec.metrics.final_scores
    more = {}
    if cider_df is not None and "cider_df" in inspect.signature(final_scores).parameters:
        more = {"cider_df": cider_df}
    elif cider_df is not None:
        logger.warning(
            "--cider-df: task '%s' is not scored by CIDEr-D; the file is ignored", spec.name
        )
    known = [row for row, reference in enumerate(references) if reference]
    of_known = [predictions[row] for row in known], [references[row] for row in known]
    scores = final_scores(*of_known, names, **more)
    for name, values in scores.by_row.items():
        of_row = dict(zip(known, values, strict=True))
        scores.by_row[name] = [of_row.get(row, math.nan) for row in range(len(references))]
    return scores
