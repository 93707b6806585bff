"""How sure a figure is: the bootstrap over rows, of one model and of two on the same rows.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile intervals.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

Interval = tuple[float, float]  # of the level above


def resampled_sums(counts: np.ndarray) -> np.ndarray:
    """Sums of rows drawn with replacement, as many as there are; always the same draws.

    Args: counts: float[N, C]. Returns: float[RESAMPLES, C].
    """
    rows, random = len(counts), np.random.default_rng(0)
    drawn = (random.integers(rows, size=rows) for _ in range(RESAMPLES))
    return np.stack([np.bincount(some, minlength=rows) @ counts for some in drawn])


def _middle(values: Sequence[float] | np.ndarray) -> Interval:
    """The middle of resampled figures."""
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def intervals_of_counts(
    rows: Sequence[Mapping[str, float]],
    figures: Mapping[str, Callable[[Mapping[str, float]], float]],
) -> dict[str, Interval]:
    """Of figures of summed counts, by name. Args: rows: what each row adds; none: no intervals."""
    if not rows:
        return {}
    names = [*rows[0]]
    sums = resampled_sums(np.array([[float(row[name]) for name in names] for row in rows]))
    resampled = [dict(zip(names, one)) for one in sums.tolist()]
    return {name: _middle(list(map(figure, resampled))) for name, figure in figures.items()}


def intervals_of_means(columns: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Of the mean of each column over rows, by name."""
    if not columns:
        return {}
    values = np.array([*columns.values()], float).T
    means = resampled_sums(values).T / len(values)
    return dict(zip(columns, map(_middle, means)))


def interval_of_mean(values: Sequence[float]) -> Interval:
    """Of the mean over rows."""
    return intervals_of_means({"mean": values})["mean"]


def paired_difference(
    ours: Sequence[float], theirs: Sequence[float]
) -> tuple[float, Interval] | None:
    """Mean of the differences row by row, and its interval: narrower than those of two figures,
    since rows that are hard are hard for both.

    Args: NaN where a row has no score. Returns: None if the rows cannot be those of one file.
    """
    if len(ours) != len(theirs):
        return None
    differences = np.array(ours, float) - np.array(theirs, float)
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    return float(differences.mean()), interval_of_mean(differences.tolist())
