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

import contextlib
import glob
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ofa.data.shard_index import BLOCK, open_shard_index, read_header, split_name
from ofa.data.tsv import column_numbers
from ofa.errors import UserError
from ofa.io.image_files import IMAGE_SUFFIXES
from ofa.io.images import encode_image
from ofa.io.json_files import read_json
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
class ShardRow:
    """The members of a row. Args: where: ``shard:row`` for messages. places: suffix -> first byte,
    bytes."""

    tar: IO
    where: str
    places: dict[str, tuple[int, int]]

    def read(self, suffix: str) -> tuple[str, bytes]:
        """Name, as far as the header has it, and content of a member. Raises: UserError if the
        sample has none, or something else is there."""
        if suffix not in self.places:
            raise self.missing(f".{suffix}")
        start, size = self.places[suffix]
        # an index that was made up may ask for any memory
        if BLOCK <= start and 0 <= size <= os.fstat(self.tar.fileno()).st_size - start:
            data = os.pread(self.tar.fileno(), size + BLOCK, start - BLOCK)
            with contextlib.suppress(ValueError):
                header = read_header(data[:BLOCK])
                if header.size == size == len(data) - BLOCK:
                    return header.name, data[BLOCK:]
        raise self.changed(f"a member of {size} bytes at byte {start}")

    def key(self) -> str:
        """The name that the members have in common."""
        name, _ = self.read(min(self.places, key=lambda suffix: self.places[suffix][1]))
        return BREAKS.sub(" ", (split_name(name) or (name,))[0])

    def json(self) -> Any:
        """What the member ``json`` says; None without one."""
        try:
            return load_values(self.read(JSON)[1]) if JSON in self.places else None
        except UserError:
            raise
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{self.where}: expects JSON in the member .json, found damage ({error}); make the"
                " shard again"
            ) from None

    def image(self, column: int | None = None) -> str:
        """Base64 of the image. Args: column: where there are several."""
        for suffix in self.places:
            head, _, kind = suffix.rpartition(".")
            if kind in IMAGES and (column is None or head == str(column)):
                return encode_image(self.read(suffix)[1])
        of_column = "" if column is None else f" for column {column}"
        raise self.missing(f"with an image: .jpg or .png{of_column}")

    def cells(self, content: list, columns: Sequence[int]) -> list[str]:
        """Columns of a row of ``ofa pack``. Args: content: its JSON."""
        several = sum(cell is None for cell in content) > 1
        return [
            self.image(column if several else None)
            if content[column] is None
            else self.text(column, content[column])
            for column in columns
        ]

    def text(self, column: int, cell: Any) -> str:
        """Raises: UserError if the cell is no text that a TSV could hold."""
        if not isinstance(cell, str) or NO_CELL.search(cell):
            raise UserError(
                f"{self.where}: expects a text without tabs and line breaks in column {column},"
                f" found {str(cell)[:60]!r}; make the shard again"
            )
        return cell

    def named(self, name: str, content: Any) -> str:
        """A column of shards that others made. Args: content: the row's JSON."""
        if name == KEY:
            return self.key()
        if name == IMAGE:
            return self.image()
        kind, _, field = name.partition(".")
        if kind == JSON and field:
            return as_cell(content.get(field) if isinstance(content, dict) else None)
        _, data = self.read(name)
        is_image = name.rpartition(".")[2] in IMAGES
        return encode_image(data) if is_image else as_cell(data.decode("utf-8", "replace"))

    def column_names(self) -> list[str]:
        """Names of the columns of shards that others made."""
        images = [suffix for suffix in self.places if suffix.rpartition(".")[2] in IMAGES]
        others = sorted({*self.places} - {*images, JSON})
        first, content = ([IMAGE] if images else []), self.json()
        fields = sorted(content) if isinstance(content, dict) else []
        several = images if len(images) > 1 else []
        return [KEY, *first, *several, *others, *(f"{JSON}.{field}" for field in fields)]

    def changed(self, expected: str) -> UserError:
        return UserError(
            f"{self.where}: expects {expected}, found something else; the shard changed after it"
            f" was indexed: start again (if it happens again, remove {self.tar.name}.idx)"
        )

    def missing(self, what: str) -> UserError:
        found = ", ".join(f".{suffix}" for suffix in self.places)
        return UserError(
            f"{self.where}: expects a member {what}, found {found} of the sample {self.key()}; make"
            " the shard again, or leave the sample out"
        )


class ShardFile:
    """The rows of some shards as lists of strings, in any order, from any number of processes; used
    as ``TsvFile`` is.

    Images are given in base64, as tasks expect them.

    Args:
        path: folder, one tar, or a pattern: ``x-{000000..000009}.tar``, ``x-*.tar``.
        selected_cols: columns that ``[]`` returns, by number or (shards of others) by name; all
            when None.

    Attributes: shards: paths in order. shard_starts: int64[shards + 1], first row of each, and the
    number of rows. names: of the columns; none in shards of ``ofa pack``.
    Raises: UserError if no shard is there, one is missing or broken, and for a column that the
    first row lacks.
    """

    def __init__(self, path: str | Path, selected_cols: str | Sequence[int] | None = None):
        self.path = str(path)
        self.shards: Sequence[str] = find_shards(self.path)
        sizes: Iterator[int] = (len(open_shard_index(shard)[1]) for shard in self.shards)
        if len(self.shards) > OPEN_SHARDS:
            sizes = counted(sizes, len(self.shards), f"opening {self.path}", "shards")
        self.shard_starts = np.cumsum([0, *sizes])
        self._open: OrderedDict[int, tuple[IO, list[str], np.ndarray]] = OrderedDict()
        first = self._row(0)
        content = first.json()
        self.names = [] if isinstance(content, list) else first.column_names()
        self.num_columns = len(self.names or content)
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
        row = self._row(index)
        content = row.json()
        if self.names:
            return [row.named(self.names[column], content) for column in columns]
        if not isinstance(content, list) or len(content) != self.num_columns:
            found = f"{len(content)} columns" if isinstance(content, list) else "none"
            raise UserError(
                f"{row.where}: expects a member .json with {self.num_columns} columns as"
                f" row 1 has, found {found}; were shards of different data mixed?"
            )
        return row.cells(content, columns)

    def where(self, index: int) -> str:
        """``shard:row`` for messages; rows of the shard, from 1."""
        shard, row = self._place(index)
        return f"{self.shards[shard]}:{row + 1}"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": OrderedDict()}

    def _row(self, index: int) -> ShardRow:
        shard, row = self._place(index)
        tar, suffixes, places = self._opened(shard)
        members = zip(suffixes, places[row].tolist())
        there = {suffix: (start, size) for suffix, (start, size) in members if start}
        found = ShardRow(tar, f"{self.shards[shard]}:{row + 1}", there)
        if not there:
            raise found.changed("a sample")
        return found

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the shard, row in it."""
        index = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: row {index} of {len(self)}")
        shard = int(np.searchsorted(self.shard_starts, index, side="right")) - 1
        return shard, index - int(self.shard_starts[shard])

    def _opened(self, shard: int) -> tuple[IO, list[str], np.ndarray]:
        """File and index of a shard in this process; those used last stay open."""
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1][0].close()
            path, expected = self.shards[shard], int(np.diff(self.shard_starts)[shard])
            suffixes, places = open_shard_index(path)
            if len(places) != expected:
                raise UserError(
                    f"{path}: expects {expected} samples as when it was opened, found"
                    f" {len(places)}; the shard changed: start again"
                )
            self._open[shard] = open(path, "rb", buffering=0), suffixes, places
        self._open.move_to_end(shard)
        return self._open[shard]


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


def names_shards(path: str) -> bool:
    """Whether a path of ``--data`` stands for shards: a folder, a tar, or a pattern of tars."""
    return path.endswith((".tar", ".tar.gz", ".tgz")) or os.path.isdir(path)


def find_shards(path: str) -> list[str]:
    """Paths of the shards, in order. Raises: UserError if there is none, or one of those that
    belong together is missing."""
    if os.path.isdir(path):
        shards = _shards_of_folder(path)
    elif os.path.exists(path):
        shards = [path]
    else:
        parts = ((part, sorted(glob.glob(part))) for part in _alternatives(path))
        shards = [
            shard for part, found in parts for shard in (found if glob.has_magic(part) else [part])
        ]
    if not shards:
        raise UserError(
            f"{path}: expected WebDataset shards (.tar), found none; check the path or the pattern,"
            " or make them: ofa pack"
        )
    noted: dict[tuple[str, str], dict] = {}
    for shard in shards:
        family = os.path.dirname(shard), name_of(shard)
        if family not in noted:
            noted[family] = manifest_of(shard)
        _check_shard(shard, noted[family].get(os.path.basename(shard)))
    return shards


def _shards_of_folder(folder: str) -> list[str]:
    """The shards that are there, and those that the manifest says should be."""
    shards = glob.glob(os.path.join(glob.escape(folder), "*.tar"))
    names = sorted({name_of(shard) for shard in shards})
    if len(names) > 1:
        raise UserError(
            f"{folder}: expected a folder with shards of one name, found {', '.join(names)}; give a"
            f" pattern: {os.path.join(folder, names[0])}-*.tar"
        )
    noted = manifest_of(shards[0]) if shards else ()
    return sorted({*shards, *(os.path.join(folder, name) for name in noted)})


def _alternatives(path: str) -> list[str]:
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


def _check_shard(path: str, noted: dict | None) -> None:
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


def manifest_of(shard: str | Path) -> dict[str, dict]:
    """File name -> its entry in the manifest that ``ofa pack`` writes beside the shards; none
    for shards of others.

    Shards come from others, and so does this file: it may name nothing but shards of its own name
    in its own folder.
    Raises: UserError if it is no such manifest.
    """
    name, expected = name_of(str(shard)), "the manifest of ofa pack"
    path = Path(shard).parent / MANIFEST.format(name)
    if not path.exists():
        return {}
    manifest = read_json(path, expected, kind=dict)
    noted = manifest.get("files")
    if isinstance(manifest.get("shards"), list):  # as earlier versions wrote it
        listed = [entry if isinstance(entry, dict) else {} for entry in manifest["shards"]]
        noted = {str(entry.get("name")): entry for entry in listed}
    finding = "" if isinstance(noted, dict) else "no files"
    for number, (file, entry) in enumerate(noted.items() if isinstance(noted, dict) else ()):
        match = NUMBERED.fullmatch(file)
        numbers = [entry.get(key) for key in ("rows", "bytes")] if isinstance(entry, dict) else [""]
        if match is None or match[1] != name:
            finding = (
                f"shard {number}: expected the name {name}-000000.tar or another number, found"
                f" {file[:60]!r}"
            )
        elif not all(type(value) is int and 0 <= value < 1 << 63 for value in numbers) or not (
            isinstance(entry.get("sha256"), str)
        ):
            finding = f"shard {number}: expected numbers of rows and bytes, and a SHA-256"
        if finding:
            break
    if finding:
        raise UserError(
            f"{path}: expected {expected}, found something else ({finding}); remove it, or make the"
            " shards again"
        )
    return noted
