"""The best answer that looks at no image: what a model has to beat."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

CANDIDATES = 200  # tried as the constant answer
SCREENED_ON = 100  # rows on which all of them are tried where scores take long ...
FINALISTS = 10  # ... and how many of them on all rows


def best_constant(
    spec: Any, lines: Sequence[str], references: Sequence[Any]
) -> tuple[str, dict[str, float]]:
    """The line that scores best when it is the answer to every row, and its scores. It is chosen on
    the very rows it is scored on, which flatters it: a model has to beat the best case.

    Args:
        spec: ``TaskSpec``.
        lines: answers to training rows. The commonest are tried, and a sample spread over the rest.
        references: of each row, as ``spec.metrics.final_scores`` takes them.
    """
    return spec.metrics.best_constant(commonest_and_others(lines, CANDIDATES), references)


def commonest_and_others(lines: Sequence[str], limit: int) -> list[str]:
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
