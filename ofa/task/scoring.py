"""Scores of the rows of a file: rows without a reference are counted, named and not scored."""

import inspect
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from ofa.errors import UserError
from ofa.task.prediction import Prediction
from ofa.task.task_spec import Scores, TaskSpec

logger = logging.getLogger(__name__)


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
    references = [_placed(spec.row_references, texts(row), where(row)) for row in range(count)]
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


def _placed(references: Callable[[Any], Any], row: Any, where: str) -> Any:
    try:
        return references(row)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


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
    more: dict[str, Any] = {}
    if (
        cider_df is not None
        and "cider_df" in inspect.signature(spec.metrics.final_scores).parameters
    ):
        more["cider_df"] = cider_df
    elif cider_df is not None:
        logger.warning(
            "--cider-df: task '%s' is not scored by CIDEr-D; the file is ignored", spec.name
        )
    known = [row for row, reference in enumerate(references) if reference]
    of_known = [predictions[row] for row in known], [references[row] for row in known]
    scores = spec.metrics.final_scores(*of_known, names, **more)
    for name, values in scores.by_row.items():
        every = [math.nan] * len(references)
        for row, value in zip(known, values, strict=True):
            every[row] = value
        scores.by_row[name] = every
    return scores
