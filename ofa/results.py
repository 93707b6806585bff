"""Predictions -> ``<subset>_predict.json``, the same file for one process or many.

Every prediction carries the number of its row. Processes hand over the predictions of the rows they saw;
merging puts them in the order of the file, keeps one per row and refuses gaps.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ofa.atomic import replacing
from ofa.errors import UserError

Entry = dict[str, Any]  # one entry of the result file, e.g. {"image_id": "img0", "caption": "a cat"}
Numbered = tuple[int, Entry]  # (row number, entry)


def merge_predictions(parts: Iterable[Iterable[Numbered]], num_rows: int) -> list[Entry]:
    """Predictions of several processes in the order of the file, one per row.

    A row that two processes predicted (the last batches are sometimes padded by repeats) counts once.

    Args:
        num_rows: rows of the evaluated file.
    Raises:
        UserError: if a row has no prediction or does not exist.
    """
    by_row: dict[int, Entry] = {}
    for part in parts:
        for row, entry in part:
            by_row.setdefault(int(row), entry)
    missing = sorted(set(range(num_rows)) - set(by_row))
    foreign = sorted(set(by_row) - set(range(num_rows)))
    if missing or foreign:
        finding = (
            f"no prediction for row {missing[0] + 1}" if missing else f"a prediction for row {foreign[0] + 1}"
        )
        raise UserError(
            f"expected one prediction for each of {num_rows} rows, found {finding}"
            f" ({len(missing)} missing, {len(foreign)} foreign); did every process finish with the same file?"
        )
    return [by_row[row] for row in range(num_rows)]


def result_path(folder: str | Path, subset: str) -> Path:
    """``<folder>/<subset>_predict.json``."""
    return Path(folder) / f"{subset}_predict.json"


def write_predictions(folder: str | Path, subset: str, entries: list[Entry]) -> Path:
    """Write the result file of a split; a reader sees the old file or the whole new one."""
    path = result_path(folder, subset)
    write_json(path, entries)
    return path


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file in one step. The folder is made; a failure leaves no partial file."""
    with replacing(path) as file:
        json.dump(content, file, ensure_ascii=False)


def read_predictions(path: str | Path) -> list[Entry]:
    """Entries of a result file. Raises: UserError if it is missing or no list in JSON."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: expects a result file in JSON, found {error}; run the evaluation again"
        ) from error
    if not isinstance(entries, list):
        raise UserError(f"{path}: expects a JSON list of predictions, found {type(entries).__name__}")
    return entries
