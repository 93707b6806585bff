"""Predictions -> ``<subset>_predict.json``, the same file for one process or many.

Every prediction carries the number of its row. Processes pass the predictions of the rows they
saw; merging puts them in the order of the file, keeps one per row and refuses gaps.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa.errors import UserError, place
from ofa.io.atomic import replacing
from ofa.io.json_files import load_json
from ofa.io.numbers import read_decimal, read_integer
from ofa.io.paths import path_below, path_within
from ofa.io.values import finite

if TYPE_CHECKING:
    from ofa.task.prediction import Prediction

# one entry of the result file, e.g. {"image_id": "img0", "caption": "a cat"}
Entry = dict[str, Any]
NumberedEntry = tuple[int, Entry]  # (row number, entry)
IDS = ("image_id", "question_id", "uniq_id", "id")  # what entries call the id of their row
TEXTS = ("caption", "answer", "hyp", "ocr")  # and their answer in words


def merge_predictions(parts: Iterable[Iterable[NumberedEntry]], num_rows: int) -> list[Entry]:
    """Predictions of several processes in the order of the file, one per row.

    A row that two processes predicted (the last batches are sometimes padded by repeats) counts
    once.

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
            f"no prediction for row {missing[0] + 1}"
            if missing
            else f"a prediction for row {foreign[0] + 1}"
        )
        raise UserError(
            f"expected one prediction for each of {num_rows} rows, found {finding} ({len(missing)}"
            f" missing, {len(foreign)} foreign); did every process finish with the same file?"
        )
    return [by_row[row] for row in range(num_rows)]


def result_path(folder: str | Path, subset: str) -> Path:
    """``<folder>/<subset>_predict.json``. Raises: UserError if the subset is no name of a file."""
    return path_below(folder, f"{subset}_predict.json", "--gen-subset")


def check_folder(folder: str | Path) -> None:
    """Raises: UserError if the folder of results cannot be made or written, before hours of work
    are spent. Makes nothing."""
    parents = (Path(folder), *Path(folder).absolute().parents)
    try:
        with tempfile.TemporaryFile(dir=next(parent for parent in parents if parent.exists())):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder for results that can be written, found none"
            f" ({error.strerror}); give another --out, or change its permissions"
        ) from None


def write_predictions(folder: str | Path, subset: str, entries: list[Entry]) -> Path:
    """Write the result file of a split; a reader sees the old file or the whole new one."""
    path = result_path(folder, subset)
    write_json(path, entries)
    return path


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file in one step, NaN and inf as null. The folder is made; a failure leaves
    no partial file."""
    with replacing(path) as file:
        json.dump(finite(content), file, ensure_ascii=False)


def read_predictions(path: str | Path) -> list[Entry]:
    """Entries of a result file. Raises: UserError if it is missing or no list in JSON."""
    try:
        entries = load_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: expects a result file in JSON, found {error}; run the evaluation again"
        ) from error
    if not isinstance(entries, list):
        raise UserError(
            f"{path}: expects a JSON list of predictions, found {type(entries).__name__}"
        )
    return entries


def prediction_of(
    entry: Entry,
    where: str = "",
    folder: str | Path = "",
    images: str | Path | None = None,
    texts: Sequence[str] = TEXTS,
) -> "Prediction":
    """The prediction that an entry of a result file was made of.

    Args: folder: of the result file, from which generated images are named. images: another folder
    that they may lie in. texts: what the entry may call its answer in words.
    Raises: UserError with ``where`` if it has neither words nor a box, its numbers are none, or an
    image lies elsewhere.
    """
    # imports torch: what only reads and writes files starts without it
    from ofa.task.prediction import Prediction

    text = next((entry[key] for key in texts if isinstance(entry.get(key), str)), "")
    box = entry.get("box")
    if not text and not _is_box(box) and not any(key in entry for key in texts):
        raise UserError(
            f"{place(where)}expects {', '.join(texts)} or a box of four numbers, found"
            f" {', '.join(map(str, entry))}"
        )
    if isinstance(entry.get("files"), list):
        return _drawn(text, entry, where, Path(folder), images)
    corners: dict[str, Any] = {
        key: tuple(entry[key]) for key in ("box", "decoded_box") if _is_box(entry.get(key))
    }
    others = _list(entry, "others", where)
    if not all(isinstance(other, dict) for other in others):
        raise UserError(f"{place(where)}expects predictions as 'others', found {str(others)[:60]}")
    try:
        bins = tuple(map(read_integer, _list(entry, "bins", where))) or None
    except ValueError:
        raise UserError(
            f"{place(where)}expects integers as 'bins', found {str(entry['bins'])[:60]}"
        ) from None
    return Prediction(
        text,
        _number(entry.get("score"), where),
        bins=bins,
        **corners,
        others=[prediction_of(other, where, texts=texts) for other in others],
    )


def _list(entry: Entry, name: str, where: str) -> list:
    """A list of an entry; an empty one if it has none. Raises: UserError for anything else."""
    values = entry.get(name) or []
    if not isinstance(values, list):
        raise UserError(f"{place(where)}expects a list as '{name}', found {str(values)[:60]}")
    return values


def _number(value: Any, where: str) -> float:
    """NaN for None and NaN. Raises: UserError if the value is not a number."""
    try:
        return math.nan if value is None or value != value else read_decimal(value)
    except ValueError:
        raise UserError(
            f"{place(where)}expects a number as a score, found {str(value)[:60]!r}"
        ) from None


def _drawn(
    caption: str, entry: Entry, where: str, folder: Path, images: str | Path | None
) -> "Prediction":
    """The best image of an entry of text to image, with the others."""
    from ofa.task.prediction import Prediction

    def column(name: str) -> list[float]:
        return [
            _number(value, where)
            for value in _list(entry, name, where) or [None] * len(entry["files"])
        ]

    best, *others = [
        Prediction(
            caption,
            score,
            file=str(path_within(folder, file, where, [images] if images else [])),
            clip_score=fit,
            seed=entry.get("seed"),
        )
        for file, fit, score in zip(entry["files"], column("scores"), column("log_probabilities"))
    ] or [Prediction(caption)]
    best.others = others
    return best


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, str) and math.isfinite(read_decimal(value))
    except ValueError:
        return False
