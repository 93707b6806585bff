"""What lies inside of other files, and how it is called: members of ZIP archives, images and
annotations alike; cells of parquet and Arrow files, of which whole rows are read too.

train2014.zip:train2014/a.jpg        train-00000-of-00002.parquet:image/17    column and row from 0
"""

import errno
import functools
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ofa.errors import UserError

INSIDE = re.compile(r"(?P<file>.+?(?P<kind>\.zip|\.parquet|\.arrow)):(?P<name>.+)", re.DOTALL)
ZIP, TABLES = ".zip", (".parquet", ".arrow")
MAX_COLUMN = 4 << 30  # bytes of a column in a row group, as the file says, when it is read
# what zipfile raises for damaged archives, unknown compressions and passwords
DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError)


def inside(path: str | Path) -> re.Match | None:
    """File, kind and name, if the path names something inside of a file that is there."""
    place = INSIDE.fullmatch(str(path))
    return place if place and os.path.isfile(place["file"]) else None


def read_inside(place: re.Match, most: int) -> bytes:
    """Args: place: of ``inside``. most: bytes. Raises: OSError if it is not there or damaged."""
    if place["kind"] == ZIP:
        return _read_member(place["file"], place["name"], most)
    column, _, row = place["name"].rpartition("/")
    value = _cell(place["file"], column, row)
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise OSError(errno.EINVAL, "no bytes of an image in the row", place["file"])
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", place[0])
    return data


# --- archives


def members(path: str | Path) -> dict[str, str]:
    """Name of each file of a ZIP archive -> its path here. Raises: UserError if it is none."""
    try:
        return {name: f"{path}:{name}" for name in _archive(str(path)).namelist()}
    except (OSError, *DAMAGED) as error:
        raise UserError(f"{path}: expected a ZIP archive, found {error}; copy it again") from None


def _archive(path: str) -> zipfile.ZipFile:
    return _opened_archive(path, os.getpid())  # a forked process shares the place in the file


@functools.lru_cache(8)
def _opened_archive(path: str, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _read_member(path: str, name: str, most: int) -> bytes:
    try:
        info = _archive(path).getinfo(name)
        if info.file_size > most:
            raise OSError(errno.EFBIG, f"more than {most:,} bytes", f"{path}:{name}")
        with _archive(path).open(info) as file:
            return file.read(most)
    except KeyError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
    except DAMAGED as error:
        raise OSError(errno.EIO, f"damaged archive: {error}", f"{path}:{name}") from None


# --- tables


def table_columns(path: str) -> list[str]:
    """Raises: UserError if the file is no such table, or the library that reads it is missing."""
    return list(_schema(path).names)


def class_names(path: str, column: str) -> list[str] | None:
    """Names of a column's numbers as ``datasets`` notes them; none if it has words, None if its
    numbers have no names. Raises: UserError as ``table_columns``."""
    schema = _schema(path)
    if "string" in str(schema.field(column).type):
        return []
    try:
        noted = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return list(map(str, noted[column]["names"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def table_rows(path: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Some columns of each row. Raises: UserError as ``table_columns``, and for damage."""
    table = _table(path)
    some = {"columns": list(columns)}
    parts = iter(
        table.iter_batches(**some)
        if path.endswith(".parquet")
        else table.select(columns).to_batches()
    )
    rows: list[dict[str, Any]] | None = []
    while rows is not None:
        yield from rows
        try:
            part = next(parts, None)
            rows = None if part is None else part.to_pylist()
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from None


def _schema(path: str) -> Any:
    table = _table(path)
    return table.schema_arrow if path.endswith(".parquet") else table.schema


def _table(path: str) -> Any:
    try:
        return _opened_table(path, os.getpid())
    except ImportError:
        raise UserError(
            f"{path}: reading it needs the library 'pyarrow'; install it (pip install pyarrow)"
        ) from None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> UserError:
    """Args: error: of the library, whose own ones are ValueErrors."""
    return UserError(f"{path}: expected a table, found {error}; download it again")


@functools.lru_cache(8)
def _opened_table(path: str, process: int) -> Any:
    import pyarrow

    if path.endswith(".parquet"):
        from pyarrow.parquet import ParquetFile

        return ParquetFile(path)
    return pyarrow.ipc.open_stream(pyarrow.memory_map(path)).read_all()


def _cell(path: str, column: str, row: str) -> Any:
    try:
        number, table = int(row), _table(path)
        if not path.endswith(".parquet"):
            return table.column(column)[number].as_py()
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if number < rows:
                return _column(path, group, column, os.getpid())[number].as_py()
            number -= rows
        raise IndexError
    except (LookupError, ValueError, NotImplementedError, UserError) as error:
        raise OSError(errno.EINVAL, f"no row {row} of {column}: {error}", path) from None


@functools.lru_cache(2)
def _column(path: str, group: int, column: str, process: int) -> Any:
    """A column of a row group: rows are asked for in their order."""
    facts = _table(path).metadata.row_group(group)
    if facts.total_byte_size > MAX_COLUMN:
        raise ValueError(f"a row group of {facts.total_byte_size:,} bytes")
    return _table(path).read_row_group(group, columns=[column]).column(column)
