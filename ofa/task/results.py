"""Predictions -> ``<subset>_predict.json``, the same file for one process or many; and back."""

import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ofa.errors import UserError, place
from ofa.io.atomic import replacing
from ofa.io.json_files import read_json
from ofa.io.paths import path_below, path_within
from ofa.io.values import finite, read_decimal, read_integer
from ofa.task.prediction import Prediction

# one entry of the result file, e.g. {"image_id": "img0", "caption": "a cat"}
Entry = dict[str, Any]
IDS = ("image_id", "question_id", "uniq_id", "id")  # what entries call the id of their row
TEXTS = ("caption", "answer", "hyp", "ocr")  # and their answer in words
T = TypeVar("T")


def merge_predictions(parts: Iterable[Iterable[tuple[int, T]]], num_rows: int) -> list[T]:
    """Predictions of several processes, each with the number of its row, in the order of the file.
    A row that two processes predicted (last batches may be padded by repeats) counts once. Raises:
    UserError if a row has no prediction or does not exist."""
    by_row: dict[int, T] = {}
    for row, prediction in itertools.chain.from_iterable(parts):
        by_row.setdefault(int(row), prediction)
    missing = sorted(set(range(num_rows)) - set(by_row))
    foreign = sorted(set(by_row) - set(range(num_rows)))
    if missing or foreign:
        finding = "no prediction" if missing else "a prediction"
        raise UserError(
            f"expected one prediction for each of {num_rows} rows, found {finding} for row"
            f" {(missing or foreign)[0] + 1} ({len(missing)} missing, {len(foreign)} foreign); did"
            " every process finish with the same file?"
        )
    return [by_row[row] for row in range(num_rows)]


def check_folder(folder: str | Path) -> None:
    """Raises: UserError if the folder of results cannot be made or written. Makes nothing."""
    parents = (Path(folder), *Path(folder).absolute().parents)
    place = next(parent for parent in parents if parent.exists())
    if not place.is_dir():
        raise UserError(
            f"{folder}: expected a folder to write, found the file {place}; give another --out"
        )
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: expected a folder for results that can be written, found none"
            f" ({error.strerror}); give another --out, or change its permissions"
        ) from None


def write_predictions(folder: str | Path, subset: str, entries: list[Entry]) -> Path:
    """Write ``SUBSET_predict.json``. Raises: UserError if the subset is no name of a file."""
    path = path_below(folder, f"{subset}_predict.json", "--gen-subset")
    write_json(path, entries)
    return path


def write_json(path: str | Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file in one step, NaN and inf as null: a reader sees the old file or the whole
    new one. The folder is made."""
    with replacing(path) as file:
        json.dump(finite(content), file, ensure_ascii=False, indent=indent)
        file.write("\n" if indent else "")


def read_predictions(path: str | Path) -> list[Entry]:
    """Entries of a result file. Raises: UserError if it is missing or no list in JSON."""
    return read_json(path, "a JSON list of predictions", kind=list)


def prediction_of(
    entry: Any,
    where: str = "",
    folder: str | Path = "",
    images: Sequence[str | Path] = (),
    texts: Sequence[str] = TEXTS,
) -> Prediction:
    """The prediction that an entry of a result file was made of.

    Args: folder: of the result file, from which generated images are named. images: further folders
    that they may lie in. texts: what the entry may call its answer in words.
    Raises: UserError with ``where`` if it is no object, has neither words nor a box, its numbers
    are none, or an image lies elsewhere.
    """
    if not isinstance(entry, dict):
        raise UserError(
            f"{place(where)}expects a prediction, found {str(entry)[:80]}; is it a result file?"
        )
    text = next((entry[key] for key in texts if isinstance(entry.get(key), str)), "")
    boxes: dict[str, Any] = {
        key: box for key in ("box", "decoded_box") if (box := _box(entry.get(key)))
    }
    if "boxes" in entry:
        named = _read_list(entry, "boxes", "a list of boxes with names", _named_box, where)
        boxes["boxes"] = tuple(named)
    if not (text or boxes.keys() & {"box", "boxes"} or any(key in entry for key in texts)):
        raise UserError(
            f"{place(where)}expects {', '.join(texts)} or a box of four numbers, found"
            f" {', '.join(map(str, entry))}"
        )
    if isinstance(entry.get("files"), list):
        return _drawn(text, entry, where, Path(folder), images)
    score = _read(entry, "score", "a number", _score, where)
    bins = _read_list(entry, "bins", "a list of integers", read_integer, where)
    others = _read_list(entry, "others", "a list of predictions", _entry, where)
    found = Prediction(text, score, bins=tuple(bins) or None, **boxes)
    found.others = [prediction_of(other, where, texts=texts) for other in others]
    return found


def _drawn(
    caption: str, entry: Entry, where: str, folder: Path, images: Sequence[str | Path]
) -> Prediction:
    """The best image of an entry of text to image, with the others."""
    files, unknown = entry["files"], [math.nan] * len(entry["files"])
    numbers = ("a list of numbers", _score, where)
    fits = _read_list(entry, "scores", *numbers) or unknown
    scores = _read_list(entry, "log_probabilities", *numbers) or unknown
    paths = [path_within(folder, file, where, images) for file in files]
    seed = entry.get("seed")
    first, *others = [
        Prediction(caption, score, file=str(path), clip_score=fit, seed=seed)
        for path, fit, score in zip(paths, fits, scores)
    ] or [Prediction(caption, seed=seed)]
    first.others = others
    return first


def _read(entry: Entry, name: str, expected: str, read: Callable[[Any], T], where: str) -> T:
    """What ``read`` makes of a value. Raises: UserError if it raises ValueError."""
    value = entry.get(name)
    try:
        return read(value)
    except ValueError:
        finding = f"found {str(value)[:60]!r}"
        raise UserError(f"{place(where)}expects {expected} as '{name}', {finding}") from None


def _read_list(
    entry: Entry, name: str, expected: str, read: Callable[[Any], T], where: str
) -> list[T]:
    """As ``_read``, for every value of a list; None is an empty one."""

    def read_each(values: Any) -> list[T]:
        if not isinstance(values, (list, type(None))):
            raise ValueError("no list")
        return [read(value) for value in values or ()]

    return _read(entry, name, expected, read_each, where)


def _score(value: Any) -> float:
    return math.nan if value is None or value != value else read_decimal(value)


def _entry(value: Any) -> Entry:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _named_box(value: Any) -> tuple[tuple[float, ...], str]:
    box = _box(_entry(value).get("box"))
    if box is None or not isinstance(value.get("name"), str):
        raise ValueError("no box with a name")
    return box, value["name"]


def _box(value: Any) -> tuple[float, ...] | None:
    """Four numbers; None for anything else."""
    if not isinstance(value, list) or len(value) != 4 or str in map(type, value):
        return None
    try:
        return tuple(value) if all(math.isfinite(read_decimal(one)) for one in value) else None
    except ValueError:
        return None
