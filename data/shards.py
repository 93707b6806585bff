"""Rows of WebDataset shards by number, as ``ofa.data.tsv`` has those of a TSV: one index per shard,
one ``pread`` per member.

Shards of ``ofa pack`` hold the columns of a row as a JSON list, and its image beside it as an
image file::

    000000017.json  ["391895_0", "391895", "a man on a red motorcycle", "", null]  null: image
    000000017.jpg   (with several images in a row the suffix names the column: 000000017.4.jpg)

Shards that others made have their columns by name: ``key``; ``image``, the member with the suffix
of an image file; the suffixes of all other members (``txt``, ``cls``, ...); ``json.NAME`` for each
field of a JSON object. ``--selected-cols`` takes these names: ``--selected-cols=key,image,txt``.
"""

import glob
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa.data.shard_index import BLOCK, open_shard_index, split_name, states_size
from ofa.data.tsv import column_numbers
from ofa.errors import UserError
from ofa.io.image_paths import IMAGE_SUFFIXES
from ofa.io.images import encode_image
from ofa.io.json_files import load_json
from ofa.io.progress import counted
from ofa.io.values import RowError, load_values, text_of
from ofa.task.text import JOIN

IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
KEY, IMAGE, JSON = "key", "image", "json"
MANIFEST = "{}.shards.json"  # of the shards NAME-000000.tar, by NAME
NUMBERED = re.compile(r"(.+)-[0-9]+\.tar", re.DOTALL)
RANGE = re.compile(r"\{(-?[0-9]+)\.\.(-?[0-9]+)")
MOST_SHARDS = 1_000_000  # that a pattern stands for
OPEN_SHARDS = 64  # files and indexes that a process keeps open
BREAKS = re.compile(r"[\t\r\n]+")
NO_CELL = re.compile(r"[\t\n\ud800-\udfff]")  # a half of a pair is no character


@dataclass
class OpenShard:
    """A shard in this process. Args: size: bytes. places: int64[N, S, 2], first byte and size of
    each member, memory-mapped."""

    file: Any
    size: int
    suffixes: list[str]
    places: np.ndarray

    def member(self, row: int, suffix: str, where: str) -> bytes | None:
        """Content of a member; None if the sample has none. Raises: UserError if something else
        is there."""
        start, size = (
            map(int, self.places[row, self.suffixes.index(suffix)])
            if suffix in self.suffixes
            else (0, 0)
        )
        if not start:
            return None
        # an index that was made up may ask for any memory
        there = BLOCK <= start and 0 <= size and start + size <= self.size
        data = os.pread(self.file.fileno(), size + BLOCK, start - BLOCK) if there else b""
        if len(data) != size + BLOCK or not states_size(data[:BLOCK], size):
            raise UserError(
                f"{where}: expects a member of {size} bytes at byte {start}, found something else;"
                " the shard changed after it was indexed: start again (if it happens again, remove"
                f" {self.file.name}.idx)"
            )
        return data[BLOCK:]

    def present(self, row: int) -> list[str]:
        return [suffix for suffix, place in zip(self.suffixes, self.places[row]) if place[0]]


class ShardFile:
    """The rows of some shards as lists of strings, in any order, from any number of processes; used
    as ``TsvFile`` is.

    Images are given in base64, as tasks expect them.

    Args:
        path: folder, one tar, or a pattern: ``x-{000000..000009}.tar``, ``x-*.tar``.
        selected_cols: columns that ``[]`` returns, by number or (shards of others) by name; all
            when None.

    Attributes: shards: paths in order. shard_starts: int64[shards + 1], first row of each, and the
    number of rows.
    Raises: UserError if no shard is there, one is missing or broken, and for a column that the
    first row lacks.
    """

    def __init__(self, path: str | Path, selected_cols: str | Sequence[int] | None = None):
        self.path = str(path)
        self.shards = find_shards(self.path)
        shown = (
            counted(self.shards, len(self.shards), f"opening {self.path}", "shards")
            if len(self.shards) > OPEN_SHARDS
            else self.shards
        )
        self.shard_starts = np.cumsum([0, *(len(open_shard_index(shard)[1]) for shard in shown)])
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self.names: list[str] = []  # of the columns; none in shards of ``ofa pack``
        first = self._columns_member(0)
        if isinstance(first, list):
            self.num_columns = len(first)
        else:
            self.names = self._names(first)
            self.num_columns = len(self.names)
        self.selected_cols = column_numbers(self.path, selected_cols, self.num_columns, self.names)

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    def __iter__(self) -> Iterator[list[str]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> list[str]:
        """Selected columns of row ``index``. Raises: IndexError beyond the end; UserError if the
        row is broken."""
        return self.texts(index, self.selected_cols)

    def texts(self, index: int, columns: Sequence[int]) -> list[str]:
        """Some columns of a row, without reading the images in others."""
        content = self._columns_member(index)
        if self.names:
            return [self._named(index, self.names[column], content) for column in columns]
        if not isinstance(content, list) or len(content) != self.num_columns:
            found = f"{len(content)} columns" if isinstance(content, list) else "none"
            raise UserError(
                f"{self.where(index)}: expects a member .json with {self.num_columns} columns as"
                f" row 1 has, found {found}; were shards of different data mixed?"
            )
        images = [number for number, cell in enumerate(content) if cell is None]
        return [
            (
                self._image(index, column if len(images) > 1 else None)
                if content[column] is None
                else self._text(index, column, content[column])
            )
            for column in columns
        ]

    def _text(self, index: int, column: int, cell: Any) -> str:
        """A cell of a row of ``ofa pack``. Raises: UserError if it is no text that a TSV could
        hold."""
        if not isinstance(cell, str) or NO_CELL.search(cell):
            raise UserError(
                f"{self.where(index)}: expects a text without tabs and line breaks in column"
                f" {column}, found {str(cell)[:60]!r}; make the shard again"
            )
        return cell

    def where(self, index: int) -> str:
        """``shard:row`` for messages; rows of the shard, from 1."""
        shard, row = self._place(index)
        return f"{self.shards[shard]}:{row + 1}"

    def key(self, index: int) -> str:
        """The name that the members of a row have in common."""
        shard, row = self._place(index)
        opened = self._opened(shard)
        start = min(
            (place[0] for place in opened.places[row].tolist() if place[0] >= BLOCK), default=BLOCK
        )
        name = os.pread(opened.file.fileno(), BLOCK, start - BLOCK)
        prefix, stem = (
            name[part].split(b"\0")[0].decode("utf-8", "replace")
            for part in (slice(345, 500), slice(0, 100))
        )
        parts = split_name(f"{prefix}/{stem}" if prefix else stem)
        return BREAKS.sub(" ", parts[0] if parts else stem)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": OrderedDict()}

    # --- members
    # ----------------------------------------------------------------------------------------------

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the shard, row in it."""
        index = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: row {index} of {len(self)}")
        shard = int(np.searchsorted(self.shard_starts, index, side="right")) - 1
        return shard, index - int(self.shard_starts[shard])

    def _opened(self, shard: int) -> OpenShard:
        """The shard in this process; those used last stay open."""
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1].file.close()
            path = self.shards[shard]
            suffixes, places = open_shard_index(path)
            if len(places) != self.shard_starts[shard + 1] - self.shard_starts[shard]:
                raise UserError(
                    f"{path}: expects {self.shard_starts[shard + 1] - self.shard_starts[shard]}"
                    f" samples as when it was opened, found {len(places)}; the shard changed: start"
                    " again"
                )
            self._open[shard] = OpenShard(
                open(path, "rb", buffering=0), os.path.getsize(path), suffixes, places
            )
        self._open.move_to_end(shard)
        return self._open[shard]

    def member(self, index: int, suffix: str) -> bytes | None:
        """Content of a member of a row; None if there is none."""
        shard, row = self._place(index)
        return self._opened(shard).member(row, suffix, self.where(index))

    def members(self, index: int) -> list[str]:
        """Suffixes of the members of a row."""
        shard, row = self._place(index)
        return self._opened(shard).present(row)

    def _columns_member(self, index: int) -> list | dict | None:
        """What the member ``json`` says; None without one."""
        data = self.member(index, JSON)
        try:
            return None if data is None else load_values(data)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.where(index)}: expects JSON in the member .json, found damage ({error});"
                " make the shard again"
            ) from None

    def _names(self, first: dict | None) -> list[str]:
        """Names of the columns of shards that others made: those of the first row."""
        present = self.members(0)
        images = [suffix for suffix in present if suffix.rpartition(".")[2] in IMAGES]
        others = sorted(suffix for suffix in present if suffix not in images and suffix != JSON)
        named = images if len(images) > 1 else []
        return [
            KEY,
            *([IMAGE] if images else []),
            *named,
            *others,
            *(f"{JSON}.{name}" for name in sorted(first if isinstance(first, dict) else {})),
        ]

    def _named(self, index: int, name: str, content: Any) -> str:
        """A column of shards that others made."""
        if name == KEY:
            return self.key(index)
        if name == IMAGE:
            return self._image(index, None)
        if name.startswith(f"{JSON}."):
            return as_cell(
                content.get(name.partition(".")[2]) if isinstance(content, dict) else None
            )
        data = self.member(index, name)
        if data is None:
            raise self._missing(index, f".{name}")
        return (
            encode_image(data)
            if name.rpartition(".")[2] in IMAGES
            else as_cell(data.decode("utf-8", "replace"))
        )

    def _image(self, index: int, column: int | None) -> str:
        """Base64 of the image of a row. Args: column: None where there is but one."""
        for suffix in self.members(index):
            head, _, kind = suffix.rpartition(".")
            data = self.member(index, suffix) if kind in IMAGES else None
            if data is not None and (column is None or head == str(column)):
                return encode_image(data)
        raise self._missing(
            index,
            " or .".join([" with an image: .jpg", "png"])
            + (f" for column {column}" if column is not None else ""),
        )

    def _missing(self, index: int, what: str) -> UserError:
        found = ", ".join(f".{suffix}" for suffix in self.members(index))
        return UserError(
            f"{self.where(index)}: expects a member {what.strip()}, found {found} of the sample"
            f" {self.key(index)}; make the shard again, or leave the sample out"
        )


def as_cell(value: Any) -> str:
    """A value of JSON as a column: texts of a list joined by ``&&``, numbers by commas; line breaks
    and tabs become spaces.

    An object of an annotation stands for its text, ``{"answer": "yes"}``. What is no text
    (``ofa.io.values``) is empty, as null is: tasks refuse a row without words, and the metadata in
    columns that nobody selects do not matter.
    """
    parts = value if isinstance(value, list) else [value]
    try:
        texts = [text_of(part, "a text", "answer", "caption", "raw", "text") for part in parts]
    except RowError:
        return ""
    numbers = not any(isinstance(part, (str, dict)) for part in parts)
    return (
        BREAKS.sub(" ", ("," if numbers else JOIN).join(texts))
        .strip()
        .encode("utf-8", "replace")
        .decode("utf-8")
    )


# --- which shards
# ---------------------------------------------------------------------------------------------


def names_shards(path: str) -> bool:
    """Whether a path of ``--data`` stands for shards: a folder, a tar, or a pattern of tars."""
    return path.endswith((".tar", ".tar.gz", ".tgz")) or os.path.isdir(path)


def find_shards(path: str) -> list[str]:
    """Paths of the shards, in order. Raises: UserError if there is none, or one of those that
    belong together is missing."""
    if os.path.isdir(path):
        shards = shards_of_folder(path)
    elif os.path.exists(path):
        shards = [path]
    else:
        shards = [
            found
            for part in alternatives(path)
            for found in (sorted(glob.glob(part)) if glob.has_magic(part) else [part])
        ]
    if not shards:
        raise UserError(
            f"{path}: expected WebDataset shards (.tar), found none; check the path or the pattern,"
            " or make them: ofa pack"
        )
    noted = {
        name: manifest_of(shard)
        for name, shard in {
            (os.path.dirname(shard), name_of(shard)): shard for shard in shards
        }.items()
    }
    for shard in shards:
        check_shard(
            shard, noted[os.path.dirname(shard), name_of(shard)].get(os.path.basename(shard))
        )
    return shards


def shards_of_folder(folder: str) -> list[str]:
    """The shards that are there, and those that the manifest says should be."""
    shards = sorted(glob.glob(os.path.join(glob.escape(folder), "*.tar")))
    names = sorted({name_of(shard) for shard in shards})
    if len(names) > 1:
        raise UserError(
            f"{folder}: expected a folder with shards of one name, found {', '.join(names)}; give a"
            f" pattern: {os.path.join(folder, names[0])}-*.tar"
        )
    return (
        sorted({*shards, *(os.path.join(folder, name) for name in manifest_of(shards[0]))})
        if shards
        else []
    )


def alternatives(path: str) -> list[str]:
    """Paths that a pattern with braces stands for."""
    from braceexpand import braceexpand

    for start, end in RANGE.findall(path):
        if max(len(start), len(end)) > 18 or abs(int(end) - int(start)) >= MOST_SHARDS:
            raise UserError(
                f"{path}: expected a pattern of at most {MOST_SHARDS:,} shards, found"
                f" {start[:20]}..{end[:20]}; correct the range"
            )
    try:
        return list(braceexpand(path))
    except ValueError as error:
        raise UserError(
            f"{path}: expected a pattern such as x-{{000000..000009}}.tar, found {error}"
        ) from None


def check_shard(path: str, noted: dict | None) -> None:
    """Raises: UserError if a shard is missing, or is not as long as the manifest beside it says."""
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: expected a shard, found no such file; copy it again, or make it again: ofa"
            " pack"
        )
    size = os.path.getsize(path)
    if noted is not None and noted["bytes"] != size:
        found = "a shard that is cut off" if size < noted["bytes"] else "another one"
        raise UserError(
            f"{path}: expected {noted['bytes']} bytes as {MANIFEST.format(name_of(path))} says,"
            f" found {size}: {found}; copy or make it again"
        )


def name_of(shard: str) -> str:
    """``NAME`` of ``NAME-000000.tar``; other names as they are."""
    match = NUMBERED.fullmatch(os.path.basename(shard))
    return match[1] if match else os.path.basename(shard)


def manifest_of(shard: str) -> dict[str, dict]:
    """File name -> its entry in the manifest that ``ofa pack`` writes beside the shards; none
    for shards of others."""
    manifest = read_manifest(Path(shard).parent / MANIFEST.format(name_of(shard)), name_of(shard))
    return {entry["name"]: entry for entry in manifest.get("shards", [])}


def read_manifest(path: Path, name: str) -> dict[str, Any]:
    """The manifest that ``ofa pack`` wrote for shards ``NAME-000000.tar``; an empty one if there is
    none.

    Shards come from others, and so does this file: it may name nothing but shards of its own name
    in its own folder.
    Raises: UserError if it is no such manifest.
    """
    try:
        manifest = load_json(path.read_text(encoding="utf-8"))
        finding = _foreign(manifest, name)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        finding = f"{type(error).__name__}: {error}"
    if finding:
        raise UserError(
            f"{path}: expected the manifest of ofa pack, found something else ({finding}); remove"
            " it, or make the shards again"
        )
    return manifest


def _foreign(manifest: Any, name: str) -> str:
    """Why the content is no manifest of shards of this name, or an empty text."""
    if not isinstance(manifest, dict) or not isinstance(manifest.get("shards"), list):
        return "no list of shards"
    for number, entry in enumerate(manifest["shards"]):
        shard = entry.get("name") if isinstance(entry, dict) else None
        match = NUMBERED.fullmatch(shard) if isinstance(shard, str) else None
        if match is None or match[1] != name or "/" in name:
            return (
                f"shard {number}: expected the name {name}-000000.tar or another number, found"
                f" {str(shard)[:60]!r}"
            )
        if not all(
            type(entry.get(key)) is int and 0 <= entry[key] < 1 << 63 for key in ("rows", "bytes")
        ):
            return f"shard {number}: expected numbers of rows and bytes"
        if not isinstance(entry.get("sha256"), str):
            return f"shard {number}: expected a SHA-256"
    return ""
