"""Rows of WebDataset shards by number: one index for all of them says where the samples start
(``ofa.data.shard_index``).

``webdataset`` writes our shards, and reads them as streams alone, which know no row by its number.
``wids``, its random access, left the package with version 1.0; it scanned every tar again in every
process, took one that was cut off for a shorter one, and knew no long names.

Shards of ``ofa pack`` hold the columns of a row as a JSON list, and its image beside it as an
image file::

    000000017.json  ["391895_0", "391895", "a man on a red motorcycle", "", null]  null: image
    000000017.jpg   (with several images in a row the suffix names the column: 000000017.4.jpg)

Shards that others made have their columns by name: ``key``; ``image``, the member with the suffix
of an image file; the suffixes of all other members (``txt``, ``cls``, ...); ``json.NAME`` for each
field of a JSON object. ``--selected-cols`` takes these names: ``--selected-cols=key,image,txt``.
"""

import functools
import glob
import itertools
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ofa.data.row_files import Rows, column_numbers
from ofa.data.shard_index import Members, first_bytes, first_places, open_index, read_sample
from ofa.errors import UserError
from ofa.io.image_files import IMAGE_SUFFIXES
from ofa.io.images import encode_image
from ofa.io.json_files import read_json
from ofa.io.resumable import check_manifest
from ofa.io.values import load_values
from ofa.task.text import BREAKS, as_cell

AGAIN = "make the shard again"
KEY, IMAGE, JSON = "key", "image", "json"
OPEN_SHARDS = 64  # files that a process keeps open
NO_CELL = re.compile(r"[\t\n\ud800-\udfff]")  # a half of a pair is no character
MANIFEST = "{}.shards.json"  # of the shards NAME-000000.tar, by NAME
NUMBERED = re.compile(r"(.+)-[0-9]+\.tar", re.DOTALL)
RANGE = re.compile(r"\{(-?[0-9]+)\.\.(-?[0-9]+)")
MOST_SHARDS = 1_000_000  # that a pattern stands for


class Sample:
    """The columns of a row. Args: where: ``shard:row`` for messages."""

    def __init__(self, tar: IO, where: str, key: str, members: Members):
        self.tar, self.where, self.members = tar, where, members
        self.key = BREAKS.sub(" ", key)

    @functools.cached_property
    def json(self) -> Any:
        """What the member ``json`` says; None without one."""
        try:
            return load_values(self._read(JSON)) if JSON in self.members else None
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.where}: expects JSON in the member .json, found damage ({error}); {AGAIN}"
            ) from None

    def names(self) -> list[str]:
        """Of the columns of shards that others made."""
        images = [suffix for suffix in self.members if _is_image(suffix)]
        others = sorted({*self.members} - {*images, JSON})
        fields = sorted(self.json) if isinstance(self.json, dict) else []
        images = [IMAGE, *(images if len(images) > 1 else [])] if images else []
        return [KEY, *images, *others, *(f"{JSON}.{field}" for field in fields)]

    def column(self, name: int | str) -> str:
        """Args: name: a number in shards of ``ofa pack``. Raises: UserError if the sample has no
        such member, or no text that a TSV could hold."""
        if isinstance(name, int):
            cell = self.json[name]
            if cell is None:
                return self._image(f"{name}." if self.json.count(None) > 1 else "")
            if isinstance(cell, str) and not NO_CELL.search(cell):
                return cell
            raise UserError(
                f"{self.where}: expects a text without tabs and line breaks in column {name}, found"
                f" {str(cell)[:60]!r}; {AGAIN}"
            )
        if name in (KEY, IMAGE):
            return self.key if name == KEY else self._image()
        kind, _, field = name.partition(".")
        if kind == JSON and field:
            return as_cell(self.json.get(field) if isinstance(self.json, dict) else None)
        data = self._read(name)
        return encode_image(data) if _is_image(name) else as_cell(data.decode("utf-8", "replace"))

    def _image(self, start: str = "") -> str:
        found = [name for name in self.members if name.startswith(start) and _is_image(name)]
        return encode_image(self._read((found or [f"{start}jpg or another image"])[0]))

    def _read(self, suffix: str) -> bytes:
        if suffix not in self.members:
            raise UserError(
                f"{self.where}: expects a member .{suffix}, found .{', .'.join(self.members)} of"
                f" the sample {self.key}; {AGAIN}, or leave the sample out"
            )
        member = self.members[suffix]
        data = os.pread(self.tar.fileno(), member.size, member.offset_data)
        if len(data) < member.size:
            raise UserError(f"{self.where}: the shard changed while it was read; start again")
        return data


def _is_image(suffix: str) -> bool:
    return f".{suffix}".endswith(IMAGE_SUFFIXES)


class ShardFile(Rows):
    """The rows of some shards. Images are given in base64, as tasks expect them.

    Args: path: folder, one tar, or a pattern: ``x-{000000..000009}.tar``, ``x-*.tar``.
    Attributes: shard_starts: int64[shards + 1], first row of each, and the number of rows. names:
        of the columns, for ``selected_cols``; none in shards of ``ofa pack``.
    Raises: UserError if no shard is there, one is missing or broken, and for a column that the
    first row lacks.
    """

    even = True

    def __init__(self, path: str | Path, selected_cols: str | Sequence[int] | None = None):
        self.path = str(path)
        self.files, noted = zip(*find_shards(self.path))
        self.bases = first_bytes(self.files)
        first = first_places(self.places, self.bases) - np.arange(len(self.files))
        self.shard_starts = np.append(first, len(self.places) - len(self.files))
        shards = zip(self.files, self.shard_starts.tolist(), noted)
        self.checksums = {shard: (row, entry["sha256"]) for shard, row, entry in shards if entry}
        sample = self._sample(0)
        self.names = [] if isinstance(sample.json, list) else sample.names()
        self.num_columns = len(self.names or sample.json)
        self.selected_cols = column_numbers(self.path, selected_cols, self.num_columns, self.names)

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    def __getstate__(self) -> dict:
        opened = {"_opened", "places", "offsets"}
        return {name: self.__dict__[name] for name in self.__dict__.keys() - opened}

    @functools.cached_property
    def places(self) -> np.ndarray:
        """The index, memory-mapped in this process. Raises: UserError as ``open_index``, and if it
        has another number of rows than in the first process."""
        places = open_index(self.files, self.bases)
        starts = getattr(self, "shard_starts", None)
        if starts is not None and len(places) != starts[-1] + len(self.files):
            raise UserError(
                f"{self.path}: expects {starts[-1]} rows as when it was opened, found"
                f" {len(places) - len(self.files)}; a shard changed: start again"
            )
        return places

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        ends = self.shard_starts[1:-1] + np.arange(len(self.files) - 1)
        offsets = np.delete(self.places, ends)
        offsets[0] = 0  # whatever lies before it in its shard
        return offsets

    def texts(self, index: int, columns: Sequence[int]) -> list[str]:
        sample = self._sample(index)
        if self.names:
            return [sample.column(self.names[column]) for column in columns]
        found = len(sample.json) if isinstance(sample.json, list) else 0
        if found != self.num_columns:
            raise UserError(
                f"{sample.where}: expects a member .json with {self.num_columns} columns as"
                f" row 1 has, found {found} columns; were shards of different data mixed?"
            )
        return [*map(sample.column, columns)]

    def raw(self, first: int, stop: int) -> list[bytes | UserError]:
        return [*map(self._line, range(first, stop))]

    def where(self, index: int) -> str:
        shard, row = self._place(index)
        return f"{self.files[shard]}:{row + 1}"

    def _line(self, index: int) -> bytes | UserError:
        try:
            cells = self.texts(index, range(self.num_columns))
            return "\t".join(cells).encode("utf-8", "surrogatepass")
        except UserError as error:
            return UserError(str(error).removeprefix(f"{self.where(index)}: "))

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the shard, row in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: row {index} of {len(self)}")
        shard = int(np.searchsorted(self.shard_starts, index, side="right")) - 1
        return shard, int(index - self.shard_starts[shard])

    def _sample(self, index: int) -> Sample:
        shard, row = self._place(index)
        tar, where = self._opened(shard), f"{self.files[shard]}:{row + 1}"
        start, end = (int(at) - int(self.bases[shard]) for at in self.places[index + shard :][:2])
        try:
            return Sample(tar, where, *read_sample(tar, start, end))
        except ValueError as error:
            raise UserError(
                f"{where}: expects a sample as it was indexed, found {error}; the shard changed:"
                f" start again (if it happens again, remove {self.files[0]}*.idx)"
            ) from None

    @functools.cached_property
    def _opened(self) -> Callable[[int], IO]:
        """Number of a shard -> its file in this process; those used last stay open."""
        opened = functools.lru_cache(OPEN_SHARDS)
        return opened(lambda shard: open(self.files[shard], "rb", buffering=0))


# --- which shards


def names_shards(path: str) -> bool:
    """Whether a path of ``--data`` stands for shards: a folder, a tar, or a pattern of tars."""
    return path.endswith((".tar", ".tar.gz", ".tgz")) or os.path.isdir(path)


def name_of(shard: str) -> str:
    """``NAME`` of ``NAME-000000.tar``; other names as they are."""
    match = NUMBERED.fullmatch(os.path.basename(shard))
    return match[1] if match else os.path.basename(shard)


def find_shards(path: str) -> list[tuple[str, dict]]:
    """The shards in order, each with its entry in the manifest beside it (empty without one).
    Raises: UserError if there is none, or one is missing or not as long as the manifest says."""
    shards = [path] if os.path.exists(path) else _matches(path)
    manifest = functools.cache(read_manifest)
    if os.path.isdir(path):  # the shards that are there, and those that the manifest says should be
        shards = glob.glob(os.path.join(glob.escape(path), "*.tar"))
        names = sorted({*map(name_of, shards)})
        if len(names) > 1:
            raise UserError(
                f"{path}: expected a folder with shards of one name, found {', '.join(names)};"
                f" give a pattern: {os.path.join(path, names[0])}-*.tar"
            )
        listed = [file for name in names for file in manifest(os.path.dirname(shards[0]), name)]
        shards = sorted({*shards, *(os.path.join(path, file) for file in listed)})
    if not shards:
        raise UserError(
            f"{path}: expected WebDataset shards (.tar), found none; check the path or the pattern,"
            " or make them: ofa pack"
        )
    places = map(os.path.split, shards)
    noted = [manifest(folder, name_of(file)).get(file, {}) for folder, file in places]
    for shard, entry in zip(shards, noted):
        finding = "a shard, found no such file"
        if os.path.isfile(shard):
            size, expected = os.path.getsize(shard), entry.get("bytes")
            if expected in (None, size):
                continue
            what = "a shard that is cut off" if size < expected else "another one"
            finding = f"{expected} bytes as its manifest says, found {size}: {what}"
        raise UserError(f"{shard}: expected {finding}; copy or make it again")
    return list(zip(shards, noted))


def _matches(pattern: str) -> list[str]:
    """Paths that a pattern stands for, whether they exist or not."""
    from braceexpand import braceexpand

    try:
        spans = (abs(int(end) - int(start)) + 1 for start, end in RANGE.findall(pattern))
        if math.prod(spans) > MOST_SHARDS:
            raise ValueError("more")
        parts = [*braceexpand(pattern)]
    except ValueError as error:
        raise UserError(
            f"{pattern}: expected a pattern of at most {MOST_SHARDS:,} shards, such as"
            f" x-{{000000..000009}}.tar, found {error}; correct it"
        ) from None
    found = (sorted(glob.glob(part)) if glob.has_magic(part) else [part] for part in parts)
    return [*itertools.chain(*found)]


def read_manifest(folder: str, name: str) -> dict[str, dict]:
    """File name -> its entry in the manifest that ``ofa pack`` writes beside the shards of a name;
    none for shards of others. Shards come from others, and so does this file: it may name nothing
    but shards of its own name in its own folder. Raises: UserError if it is no such manifest."""
    path, expected = Path(folder, MANIFEST.format(name)), "the manifest of ofa pack"
    if not path.exists():
        return {}
    manifest = read_json(path, expected, kind=dict)
    try:
        check_manifest(manifest)
        for file, entry in manifest["files"].items():
            match = NUMBERED.fullmatch(file)
            if not match or match[1] != name or not isinstance(entry.get("sha256"), str):
                raise ValueError(
                    f"{file[:60]!r} in place of {name}-000000.tar or another number and its SHA-256"
                )
    except ValueError as error:
        raise UserError(
            f"{path}: expected {expected}, found something else ({error}); remove it, or make the"
            " shards again"
        ) from None
    return manifest["files"]
