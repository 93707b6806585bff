"""Annotations of others: lists in JSON files, JSON lines and CSV files become entries, each with
its place; what is wrong with single entries is collected.
"""

import csv
import logging
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa.errors import UserError, listed
from ofa.io import json_files
from ofa.io.image_files import TABLE, ImageFolders
from ofa.io.terminal import with_noun
from ofa.io.text_files import not_utf8, read_lines
from ofa.io.values import SHOWN, RowError, WrittenFloat, finding, one_line

logger = logging.getLogger(__name__)

NAMED_AT_MOST = 5
LIST = re.compile(r"\[\s*(\{|$)")  # how a file of one list of objects begins
JSON = re.compile(r"\s*(\[\s*(\{|$)|\{\s*\")")  # a list of objects, or an object
DELIMITERS = ",;\t|"
RIGHT_FILE = "is this the right annotation file?"


@dataclass
class Problems:
    """Entries that cannot become rows: all are collected, then said at once, or skipped and
    counted. Args: skip: leave them out instead of stopping."""

    skip: bool
    messages: list[str] = field(default_factory=list)
    remedies: dict[str, None] = field(default_factory=dict)  # each once, in order
    said: int = 0

    def add(self, message: str) -> None:
        self.messages.append(message)

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        """Work on the entry of this place; a RowError skips the rest of it."""
        try:
            yield
        except RowError as error:
            self.add(f"{where}: expected {error.reason}")
            if error.remedy:
                self.remedies[error.remedy] = None

    def settle(self) -> None:
        """Raises: UserError with the first ones, a line each, unless they are to be skipped."""
        new = self.messages[self.said :]
        shown = list(dict.fromkeys(new))  # several texts of a place may share its fault
        self.said = len(self.messages)
        if not new:
            return
        remedies, self.remedies = list(self.remedies), {}
        if not self.skip:
            text = listed(shown, NAMED_AT_MOST, "\n")
            them, end = ("them", ".\n") if len(shown) > 1 else ("it", ". ")
            todo = ". ".join([*remedies, f"Fix {them}, or skip {them} with --skip-broken"])
            raise UserError(f"{text}{end}{todo}")
        text = "; ".join([listed(shown, NAMED_AT_MOST, "; "), *remedies])
        logger.warning("%s skipped: %s", with_noun(len(new), "entry"), text)


class Entry(dict[str, Any]):
    """The values of an entry. Args: where: its place, for messages."""

    def __init__(self, values: Mapping[str, Any], where: str):
        super().__init__(values)
        self.where = where


def _entry(value: Any, where: str, needs: Sequence[str], hint: str) -> Entry:
    """Raises: UserError for anything but an object with the keys it needs."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object, found {finding(value)}; {hint}")
    lacking = [key for key in needs if key not in value]
    if lacking:
        raise UserError(
            f"{where}: expected an entry with {', '.join(map(repr, needs))}, found one without"
            f" {lacking[0]!r}; {hint}"
        )
    return Entry(value, where)


def read_record(path: str | Path, *keys: str) -> dict[str, Any]:
    """A JSON object with these keys. Raises: UserError naming the file and what is wrong."""
    expected = f"JSON with the keys {', '.join(keys)}"
    record = json_files.read_json(path, expected, kind=dict, fraction=WrittenFloat)
    lacking = [key for key in keys if key not in record]
    if lacking:
        raise UserError(
            f"{path}: expected {expected}, found none called {lacking[0]!r}; {RIGHT_FILE}"
        )
    return record


def list_of(
    path: str | Path,
    entries: Any,
    what: str,
    needs: Sequence[str] = (),
    hint: str = RIGHT_FILE,
    named_by: str = "",
) -> Iterator[Entry]:
    """The entries of a list in a file. Args: what: they are: ``question``. needs: keys of every
    entry. hint: end of messages. named_by: key of the id by which messages name an entry as well.
    Raises: UserError for anything but a list of objects."""
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a list of {what}s, found {finding(entries)}; {hint}")
    for number, value in enumerate(entries):
        entry = _entry(value, f"{path}: {what} {number}", needs, hint)
        if isinstance(entry.get(named_by), (str, int, float)):
            name = one_line(str(entry[named_by]))[:SHOWN]
            entry.where = f"{path}: entry {number}, {what} {name}"
        yield entry


def read_json_lines(
    path: str, needs: Sequence[str] = (), hint: str = "write one JSON object per line"
) -> Iterator[Entry]:
    """The objects of a JSONL file, or of a list in a JSON file. Args: needs, hint: as of
    ``list_of``."""
    lines = numbered_lines(path, "of one JSON object each")
    if LIST.match(next(lines)[1]):
        content = json_files.read_json(path, "a list of objects", fraction=WrittenFloat)
        if not content:
            raise UserError(f"{path}: expected objects, found an empty list; {hint}")
        yield from list_of(path, content, "entry", needs, hint)
        return
    for where, line in numbered_lines(path, "of one JSON object each"):
        expected = "one JSON object per line"
        value = json_files.parse_json(line, where, expected, fraction=WrittenFloat)
        yield _entry(value, where, needs, hint)


def delimiter_of(path: str, header: str) -> str:
    """What stands between the columns of a table: that of the header, else that of the name."""
    try:
        return csv.Sniffer().sniff(header, DELIMITERS).delimiter
    except csv.Error:
        return "\t" if path.endswith(TABLE) else ","


def read_csv(path: str, delimiter: str | None = None) -> Iterator[Entry]:
    """The rows of a CSV file with a header, whose names lose spaces around them. Args: delimiter:
    if not as the header shows."""
    row = None
    limit = csv.field_size_limit(sys.maxsize)  # the process's: a field may be an image
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            if JSON.match(header):
                raise UserError(
                    f"{path}: expected a CSV file with a header, found JSON; run: ofa prepare jsonl"
                )
            delimiter = delimiter or delimiter_of(path, header)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            names = Counter(reader.fieldnames)
            if len(names) < names.total():
                raise UserError(
                    f"{path}:1: expected every column once, found {names.most_common(1)[0][0]!r}"
                    " again; rename one of them"
                )
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(
                        f"{where}: expected {len(names)} columns as the header has, found another"
                        " number; is a field with the delimiter in it quoted?"
                    )
                yield Entry(row, where)
    except OSError as error:
        remedy = "check the path" if error.strerror else "give a file, not a pipe"
        found = error.strerror or error
        raise UserError(f"{path}: cannot be read ({found}); {remedy}") from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except csv.Error as error:
        raise UserError(f"{path}: expected a CSV file with a header, found {error}") from None
    finally:
        csv.field_size_limit(limit)
    if row is None:
        raise UserError(f"{path}: expected a header and rows, found no row")


def numbered_lines(path: str, expected: str) -> Iterator[tuple[str, str]]:
    """Place and content of the lines that hold something. Raises: UserError if there are none."""
    empty = True
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            empty = False
            yield f"{path}:{number}", line.strip()
    if empty:
        raise UserError(f"{path}: expected lines {expected}, found an empty file")


def read_prefixes(given: Sequence[str] | None, files: Sequence[str]) -> list[str]:
    """``--id-prefix`` -> the prefix of the ids of each file. Args: given: one per file; empty: the
    files' names without ending; None: no prefix. Raises: UserError if they do not fit."""
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


def find_image(images: ImageFolders, *names: str) -> str:
    """The path of the first of the names that is there. Raises: RowError."""
    path = images.find(*names)
    if path is None:
        raise RowError(f"an image {names[0]!r} below {images}, found none")
    return path


def one_of(text: str, known: Collection[str], what: str) -> str:
    """The text, if it is known. Raises: RowError that lists those that are."""
    if text not in known:
        raise RowError(f"{what} ({', '.join(known)}), found {text[:SHOWN]!r}")
    return text
