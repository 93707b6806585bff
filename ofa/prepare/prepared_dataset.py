"""What a data set holds, before any image is opened: the common ground of all sources."""

import json
import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.values import finding, in_fractions, load_values, one_line
from ofa.prepare.tsv_writer import Group

logger = logging.getLogger(__name__)

NAMED_AT_MOST = 5
IN_FRACTIONS = (
    "a box in pixels, found {}: less than one pixel; are these fractions of the image? --box-format"
    " of csv and jsonl takes them"
)
# pixels by which annotated boxes may leave the image (COCO's do, by rounding): they are clipped
BEYOND = 1.0


@dataclass
class Problems:
    """Entries that cannot become rows: all are collected, then said at once, or left out.

    Args: skip: leave them out instead of stopping. remedy: end of the message.
    """

    skip: bool
    remedy: str = "fix them, or skip them with --skip-broken"
    messages: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        self.messages.append(message)

    def settle(self) -> None:
        """Raises: UserError with the first ones, unless they are to be skipped."""
        if not self.messages:
            return
        more = len(self.messages) - NAMED_AT_MOST
        text = "; ".join(self.messages[:NAMED_AT_MOST]) + (f"; and {more} more" if more > 0 else "")
        if not self.skip:
            raise UserError(f"{text}. {self.remedy[0].upper()}{self.remedy[1:]}")
        logger.warning("%d entries skipped: %s", len(self.messages), text)

    def counts(self) -> dict[str, int]:
        """For the manifest: nothing where nothing was skipped."""
        return {"entries_left_out": len(self.messages)} if self.messages else {}


@dataclass
class PreparedDataset:
    """The rows of a data set.

    Args:
        kind: the data set, as in ``ofa prepare KIND``.
        files: file name -> groups of rows, images as paths.
        inputs: the annotation files that were read. settings: the options that decide the content.
        counts: figures for the manifest. texts: further small files: name -> (content, entries).
        sizes: image path -> (width, height) that the annotations state; an image of another size
            is refused.
        images_of: split -> images with captions (``tsv_writer.Image``), for captioning.
    """

    kind: str
    files: dict[str, list[Group]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, tuple[str, int]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    images_of: dict[str, list] = field(default_factory=dict)

    def image_paths(self) -> list[str]:
        """Every image once, in order of the path."""
        paths = {path for groups in self.files.values() for group in groups for path in group.paths}
        paths.update(image.source for images in self.images_of.values() for image in images)
        return sorted(paths)


def grouped(rows: Iterable[tuple[str, tuple[str, ...]]]) -> list[Group]:
    """(image path, columns) in order -> groups of neighbors with the same image."""
    groups: list[tuple[str, list]] = []
    for path, columns in rows:
        if not groups or groups[-1][0] != path:
            groups.append((path, []))
        groups[-1][1].append(columns)
    return [Group(path, tuple(columns)) for path, columns in groups]


def box_text(box: Sequence[float]) -> str:
    """``[10, 20.126, 30, 40]`` -> ``"10.0,20.13,30.0,40.0"``."""
    return ",".join(repr(round(float(number), 2)) for number in box)


def checked_box(box: Sequence[float], size: tuple[int, int]) -> tuple[str, str]:
    """A box as a column, and what is wrong with it.

    Args: box: xyxy in pixels. size: width and height of the image.
    Returns: ("x0,y0,x1,y1", "") with overhang of a pixel clipped, or ("", finding).
    """
    found = ",".join(f"{number:g}" for number in box)
    if not all(math.isfinite(number) for number in box):
        return "", f"a box of numbers, found {found}"
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return "", f"a box with x0 < x1 and y0 < y1, found {found} (turned round or empty)"
    if in_fractions(box) and max(size) > 1:
        return "", IN_FRACTIONS.format(found)
    width, height = size
    if x0 < -BEYOND or y0 < -BEYOND or x1 > width + BEYOND or y1 > height + BEYOND:
        return "", f"a box inside the image of {width} x {height} pixels, found {found}"
    inside = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return "", f"a box inside the image of {width} x {height} pixels, found {found}"
    return box_text(inside), ""


def label_text(labels: Mapping[str, int]) -> tuple[str, int]:
    """A label file as JSON, and its number of entries."""
    return json.dumps(labels, ensure_ascii=False, indent=0) + "\n", len(labels)


def read_json_lines(path: str | Path) -> list[tuple[int, dict]]:
    """Line numbers and objects of a JSONL file. Raises: UserError naming the line."""
    entries = []
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    entry = load_values(line)
                    if not isinstance(entry, dict):
                        raise UserError(
                            f"{path}:{number}: expected one JSON object per line, found"
                            f" {line[:60]!r}"
                        )
                    entries.append((number, entry))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: expected UTF-8 text, found other bytes ({error}); save it as UTF-8"
        ) from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f"{path}:{number}: expected one JSON object per line, found {error}; is the file"
            " complete?"
        ) from None
    if not entries:
        raise UserError(f"{path}: expected one JSON object per line, found an empty file")
    return entries


def entries_of(record: Mapping[str, Any], key: str, path: str | Path) -> list[dict]:
    """A list of objects in a JSON file. Raises: UserError naming the file if it is anything
    else."""
    entries = record[key]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        wrong = (
            [
                f"{finding(entry)} in entry {i}"
                for i, entry in enumerate(entries)
                if not isinstance(entry, dict)
            ][0]
            if isinstance(entries, list)
            else finding(entries)
        )
        raise UserError(
            f"{path}: expected a list of objects as {key!r}, found {wrong}; is this the right"
            " annotation file?"
        )
    return entries


def read_prefixes(given: Sequence[str] | None, files: Sequence[str]) -> list[str]:
    """``--id-prefix`` -> the prefix of the ids of each file.

    Args: given: one per file; empty: the files' names without ending; None: no prefix.
    Raises: UserError if there is another number of them, or one twice.
    """
    if given is None:
        return [""] * len(files)
    prefixes = list(given) or [f"{Path(path).stem}_" for path in files]
    if len(prefixes) != len(files) or len(set(prefixes)) != len(files):
        raise UserError(
            f"--id-prefix: expected one for each of {len(files)} files, all different, found"
            f" {' '.join(prefixes)}; give as many as there are files, in their order"
        )
    if any(not one_line(prefix) == prefix for prefix in prefixes):
        raise UserError(
            f"--id-prefix: expected texts of one line, found {prefixes!r}; write letters and digits"
        )
    return prefixes


def split_at_random(
    items: Sequence[Any], key: Callable[[Any], str], fraction: float, seed: int
) -> dict[str, list]:
    """``train`` and ``val`` parts; what shares a key (its image) stays together; the same each
    time.

    Args: fraction: of the keys that goes to val, rounded, at least one. Raises: UserError if none
    would be left.
    """
    keys = sorted({key(item) for item in items})
    count = max(1, round(fraction * len(keys)))
    if not 0 < fraction < 1 or count >= len(keys):
        raise UserError(
            f"--val-fraction {fraction}: expected a fraction between 0 and 1 that leaves images"
            f" for training, found {len(keys)} images in all"
        )
    random.Random(seed).shuffle(keys)
    val = set(keys[:count])
    return {
        "train": [item for item in items if key(item) not in val],
        "val": [item for item in items if key(item) in val],
    }
