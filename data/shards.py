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
import functools
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

    @functools.cached_property
    def json(self) -> Any:
        """What the member ``json`` says; None without one."""
        if JSON not in self.places:
            return None
        _, text = self.read(JSON)
        try:
            return load_values(text)
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

    def cell(self, column: int) -> str:
        """A column of a row of ``ofa pack``. Raises: UserError if it is no text that a TSV could
        hold."""
        cell = self.json[column]
        if cell is None:
            return self.image(column if self.json.count(None) > 1 else None)
        if not isinstance(cell, str) or NO_CELL.search(cell):
            raise UserError(
                f"{self.where}: expects a text without tabs and line breaks in column {column},"
                f" found {str(cell)[:60]!r}; make the shard again"
            )
        return cell

    def named(self, name: str) -> str:
        """A column of shards that others made."""
        if name in (KEY, IMAGE):
            return self.key() if name == KEY else self.image()
        kind, _, field = name.partition(".")
        if kind == JSON and field:
            return as_cell(self.json.get(field) if isinstance(self.json, dict) else None)
        _, data = self.read(name)
        is_image = name.rpartition(".")[2] in IMAGES
        return encode_image(data) if is_image else as_cell(data.decode("utf-8", "replace"))

    def column_names(self) -> list[str]:
        """Names of the columns of shards that others made."""
        images = [suffix for suffix in self.places if suffix.rpartition(".")[2] in IMAGES]
        first = [KEY, IMAGE] if images else [KEY]
        several = images if len(images) > 1 else []
        others = sorted({*self.places} - {*images, JSON})
        fields = sorted(self.json) if isinstance(self.json, dict) else []
        return [*first, *several, *others, *(f"{JSON}.{field}" for field in fields)]

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
    as ``TsvFile`` is. Images are given in base64, as tasks expect them.

    Args: path: folder, one tar, or a pattern: ``x-{000000..000009}.tar``, ``x-*.tar``.
        selected_cols: columns that ``[]`` returns, by number or (shards of others) by name; all
        when None.
    Attributes: files, noted: as ``find_shards`` gives them. shard_starts: int64[shards + 1], first
    row of each, and the number of rows. names: of the columns; none in shards of ``ofa pack``.
    Raises: UserError if no shard is there, one is missing or broken, and for a column that the
    first row lacks.
    """

    def __init__(self, path: str | Path, selected_cols: str | Sequence[int] | None = None):
        self.path = str(path)
        self.files, self.noted = zip(*find_shards(self.path))
        sizes: Iterator[int] = (len(open_shard_index(shard)[1]) for shard in self.files)
        if len(self.files) > OPEN_SHARDS:
            sizes = counted(sizes, len(self.files), f"opening {self.path}", "shards")
        self.shard_starts = np.cumsum([0, *sizes])
        self._open: OrderedDict[int, tuple[IO, list[str], np.ndarray]] = OrderedDict()
        first = self._row(0)
        self.names = [] if isinstance(first.json, list) else first.column_names()
        self.num_columns = len(self.names or first.json)
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
        if self.names:
            return [row.named(self.names[column]) for column in columns]
        if not isinstance(row.json, list) or len(row.json) != self.num_columns:
            found = f"{len(row.json)} columns" if isinstance(row.json, list) else "none"
            raise UserError(
                f"{row.where}: expects a member .json with {self.num_columns} columns as"
                f" row 1 has, found {found}; were shards of different data mixed?"
            )
        return [row.cell(column) for column in columns]

    def where(self, index: int) -> str:
        """``shard:row`` for messages; rows of the shard, from 1."""
        shard, row = self._place(index)
        return f"{self.files[shard]}:{row + 1}"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": OrderedDict()}

    def _row(self, index: int) -> ShardRow:
        shard, row = self._place(index)
        tar, suffixes, table = self._opened(shard)
        places = {name: (at, size) for name, (at, size) in zip(suffixes, table[row].tolist()) if at}
        found = ShardRow(tar, self.where(index), places)
        if not places:
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
            path, expected = self.files[shard], int(np.diff(self.shard_starts)[shard])
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
    and tabs become spaces; ``{"answer": "yes"}`` stands for its text. What is no text
    (``ofa.io.values``) is empty, as null is: tasks refuse a row without words, and metadata in
    columns that nobody selects do not matter."""
    parts = value if isinstance(value, list) else [value]
    try:
        texts = [text_of(part, "a text", "answer", "caption", "raw", "text") for part in parts]
    except RowError:
        return ""
    between = JOIN if any(isinstance(part, (str, dict)) for part in parts) else ","
    cell = BREAKS.sub(" ", between.join(texts)).strip()
    return cell.encode("utf-8", "replace").decode("utf-8")


# --- which shards


def names_shards(path: str) -> bool:
    """Whether a path of ``--data`` stands for shards: a folder, a tar, or a pattern of tars."""
    return path.endswith((".tar", ".tar.gz", ".tgz")) or os.path.isdir(path)


def find_shards(path: str) -> list[tuple[str, dict]]:
    """The shards in order, each with its entry in the manifest beside it (empty without one).
    Raises: UserError if there is none, or one is missing or not as long as the manifest says."""
    manifest = functools.cache(manifest_of)
    if os.path.isdir(path):  # the shards that are there, and those that the manifest says should be
        there = glob.glob(os.path.join(glob.escape(path), "*.tar"))
        names = sorted({name_of(shard) for shard in there})
        if len(names) > 1:
            raise UserError(
                f"{path}: expected a folder with shards of one name, found {', '.join(names)};"
                f" give a pattern: {os.path.join(path, names[0])}-*.tar"
            )
        listed = manifest(path, names[0]) if names else ()
        shards = sorted({*there, *(os.path.join(path, file) for file in listed)})
    elif os.path.exists(path):
        shards = [path]
    else:
        shards = [
            shard
            for part in _alternatives(path)
            for shard in (sorted(glob.glob(part)) if glob.has_magic(part) else [part])
        ]
    if not shards:
        raise UserError(
            f"{path}: expected WebDataset shards (.tar), found none; check the path or the pattern,"
            " or make them: ofa pack"
        )
    noted = [
        manifest(os.path.dirname(one), name_of(one)).get(os.path.basename(one), {})
        for one in shards
    ]
    for shard, entry in zip(shards, noted):
        if not os.path.isfile(shard):
            raise UserError(
                f"{shard}: expected a shard, found no such file; copy it again, or make it again:"
                " ofa pack"
            )
        size = os.path.getsize(shard)
        if entry and entry["bytes"] != size:
            found = "a shard that is cut off" if size < entry["bytes"] else "another one"
            raise UserError(
                f"{shard}: expected {entry['bytes']} bytes as {MANIFEST.format(name_of(shard))}"
                f" says, found {size}: {found}; copy or make it again"
            )
    return list(zip(shards, noted))


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


def name_of(shard: str) -> str:
    """``NAME`` of ``NAME-000000.tar``; other names as they are."""
    match = NUMBERED.fullmatch(os.path.basename(shard))
    return match[1] if match else os.path.basename(shard)


def manifest_of(folder: str, name: str) -> dict[str, dict]:
    """File name -> its entry in the manifest that ``ofa pack`` writes beside the shards of a name;
    none for shards of others. Shards come from others, and so does this file: it may name nothing
    but shards of its own name in its own folder. Raises: UserError if it is no such manifest."""
    path, expected = Path(folder, MANIFEST.format(name)), "the manifest of ofa pack"
    if not path.exists():
        return {}
    manifest = read_json(path, expected, kind=dict)
    noted = manifest.get("files")
    if isinstance(manifest.get("shards"), list):  # as earlier versions wrote it
        listed = [entry if isinstance(entry, dict) else {} for entry in manifest["shards"]]
        noted = {str(entry.get("name")): entry for entry in listed}
    finding = "no files"
    if isinstance(noted, dict):
        wrong = (_wrong_entry(name, *item) for item in noted.items())
        finding = next(
            (f"shard {at}: expected {what}" for at, what in enumerate(wrong) if what), ""
        )
    if finding:
        raise UserError(
            f"{path}: expected {expected}, found something else ({finding}); remove it, or make the"
            " shards again"
        )
    return noted


def _wrong_entry(name: str, file: str, entry: Any) -> str:
    """What the manifest should list in place of this; empty if it is right."""
    match = NUMBERED.fullmatch(file)
    if match is None or match[1] != name:
        return f"the name {name}-000000.tar or another number, found {file[:60]!r}"
    given = entry if isinstance(entry, dict) else {}
    numbers = all(
        type(given.get(key)) is int and 0 <= given[key] < 1 << 63 for key in ("rows", "bytes")
    )
    right = numbers and isinstance(given.get("sha256"), str)
    return "" if right else "numbers of rows and bytes, and a SHA-256"
