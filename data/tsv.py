"""Rows of a TSV file by number: one byte-offset index per file, made once, then one ``pread`` per
row.

A row ends at ``\\n`` only; ``\\r`` before it is dropped (CRLF), ``\\r`` inside a field is text. A
missing last newline, empty lines at the end and a UTF-8 byte-order mark are no rows.
"""

import os
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

import numpy as np

from ofa.data.tsv_index import BOM, open_index
from ofa.errors import UserError

BLOCK = 1 << 14  # bytes at either end of a long row that ``TsvFile.texts`` looks at


class TsvFile:
    """The rows of one TSV file as lists of strings, in any order, from any number of processes.

    Picklable; the file is opened when the first row is read, once per process. ``pread`` has no
    file position, so a forked worker may share the descriptor. A file that grows or shrinks after
    it was opened is refused, in every process: its rows may be others by now.

    Args: selected_cols: columns that ``[]`` returns, in this order: ``"0,4,2"`` or numbers; all
        when None.
    Raises: UserError for a missing or empty file, and for a column that the first row lacks.

    >>> rows = TsvFile("caption_val.tsv", "1,4,2")
    >>> image_id, image, captions = rows[0]
    """

    def __init__(self, path: str | Path, selected_cols: str | Sequence[int] | None = None):
        self.path = str(path)
        self._file: FileIO | None = None
        self._offsets: np.ndarray | None = None
        self._size: int | None = None  # of the file as it was first opened, bytes
        self._rows: int | None = None  # then
        self.num_columns = self._row_bytes(0).count(b"\t") + 1
        self.selected_cols = column_numbers(self.path, selected_cols, self.num_columns)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[list[str]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> list[str]:
        """Selected columns of row ``index`` (0-based; messages count from 1, as editors do).

        Raises: IndexError beyond the end; UserError if the row has another number of columns than
        row 1, is not UTF-8, or if the file changed since it was indexed.
        """
        if index < 0:
            index += len(self)
        fields = self._fields(index)
        return [fields[column] for column in self.selected_cols]

    def _fields(self, index: int) -> list[str]:
        """All columns of a row."""
        row = self._row_bytes(index)
        try:
            fields = row.decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            column = row[: error.start].count(b"\t")
            raise UserError(
                f"{self.where(index)}: expects UTF-8 text, found the byte 0x{row[error.start]:02x} "
                f"in column {column}; save the file as UTF-8. Run: ofa doctor {self.path}"
            ) from error
        if len(fields) != self.num_columns:
            culprit = "line break" if len(fields) < self.num_columns else "tab"
            raise UserError(
                f"{self.where(index)}: expects {self.num_columns} tab-separated columns as row 1"
                f" has, found {len(fields)}; is there a {culprit} inside a field? Run: ofa doctor"
                f" {self.path}"
            )
        return fields

    def texts(self, index: int, columns: Sequence[int]) -> list[str]:
        """Some columns of a row, read without what lies between: images are long, and mostly at
        one end of a row.

        Args: columns: numbers in the file (not among ``selected_cols``).
        Raises: as ``[]``, but other columns than these are not checked.
        """
        file, start, end = self._place(index)
        if end - start > 2 * BLOCK:
            before = min(start, 1)
            head = os.pread(file, BLOCK + before, start - before)
            tail = os.pread(file, BLOCK, end - BLOCK)
            breaks_inside = b"\n" in head[before:] or b"\n" in tail[:-1]
            if breaks_inside or not self._is_row(index, head, tail):
                raise self._changed(index)
            # whole fields from either end
            first, last = head[before:].split(b"\t")[:-1], tail.rstrip(b"\r\n").split(b"\t")[1:]
            found = dict(enumerate(first)) | dict(enumerate(last, self.num_columns - len(last)))
            if found.keys() >= set(columns):
                return [found[column].decode("utf-8", "replace") for column in columns]
        fields = self._fields(index)
        return [fields[column] for column in columns]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None, "_offsets": None}

    def where(self, index: int) -> str:
        """``path:row`` for messages; rows count from 1."""
        return f"{self.path}:{index + 1}"

    @property
    def offsets(self) -> np.ndarray:
        """Row starts and the end of the last row: uint64[N + 1], memory-mapped."""
        if self._offsets is None:
            offsets = open_index(self.path)
            if self._rows not in (None, len(offsets) - 1):
                raise UserError(
                    f"{self.path}: expects {self._rows} rows as when it was opened, found"
                    f" {len(offsets) - 1}; the file changed: start again"
                )
            self._offsets, self._rows = offsets, len(offsets) - 1
        return self._offsets

    def _place(self, index: int) -> tuple[int, int, int]:
        """The open file's descriptor, first byte of a row and the one after its last."""
        offsets = self.offsets
        if not 0 <= index < len(offsets) - 1:
            raise IndexError(f"{self.path}: row {index} of {len(offsets) - 1}")
        if self._file is None:
            try:
                self._file = open(self.path, "rb", buffering=0)
            except OSError as error:
                raise UserError(
                    f"{self.path}: expected a TSV file, {error.strerror}; the file changed: start"
                    " again"
                ) from None
        file = self._file.fileno()
        size = os.lseek(file, 0, os.SEEK_END)  # a third of the time of fstat
        self._size = size if self._size is None else self._size
        start, end = int(offsets[index]), int(offsets[index + 1])
        # an index that was made up may ask for any memory
        if size != self._size or not start < end <= size:
            raise self._changed(index)
        return file, start, end

    def _changed(self, index: int) -> UserError:
        return UserError(
            f"{self.where(index)}: expects a row at byte {self.offsets[index]}, found something"
            " else; the file changed after it was indexed: start again (if it happens again,"
            f" remove {self.path}.idx and .index)"
        )

    def _is_row(self, index: int, head: bytes, tail: bytes) -> bool:
        """Whether a row starts and ends here. Args: head: with the byte in front of it."""
        starts = head.startswith(b"\n") if index else self.offsets[0] in (0, len(BOM))
        return starts and (tail.endswith(b"\n") or index == len(self) - 1)

    def _row_bytes(self, index: int) -> bytes:
        """Bytes of a row without its line end. The byte in front is read too: a row has to start
        here."""
        file, start, end = self._place(index)
        before = min(start, 1)
        row = os.pread(file, end - start + before, start - before)
        whole = len(row) == end - start + before and row.find(b"\n", before, -1) == -1
        if not whole or not self._is_row(index, row, row):
            raise self._changed(index)
        return row[before:].removesuffix(b"\n").removesuffix(b"\r")


def column_numbers(
    path: str, columns: str | Sequence[int] | None, count: int, names: Sequence[str] = ()
) -> list[int]:
    """Numbers of selected columns of a file that has ``count`` of them; all when None.

    Args: columns: ``"0,4,2"`` or numbers; ``"key,txt"`` where columns have ``names``.
    Raises: UserError for a column that is not there.
    """
    if columns is None:
        return list(range(count))
    given = columns if isinstance(columns, str) else ",".join(map(str, columns))
    words = [word.strip() for word in given.split(",")]
    try:
        numbers = [names.index(word) if word in names else int(word) for word in words]
    except ValueError as error:
        expected = (
            f"names ({', '.join(names)})" if names else "numbers such as 0,4,2 (counted from 0)"
        )
        raise UserError(f"{path}: --selected-cols={given}: expects {expected}") from error
    for number in numbers:
        if not 0 <= number < count:
            raise UserError(
                f"{path}:1: --selected-cols={given} asks for column {number}, "
                f"found {count} columns ({', '.join(names) or f'0 to {count - 1}'}); "
                "correct the option or the file"
            )
    return numbers


def data_files(data: str | None, split: str, only_training: bool = False) -> list[str]:
    """Files of a split among the comma-separated paths of upstream's scripts: those that training
    takes in turn, one per epoch, or the one of another split.

    The last path is for validation, the others for training: of ``"a.tsv,b.tsv,val.tsv"`` it takes
    a, b, a, ... A single path serves all splits. Args: only_training: all paths are for training.
    """
    paths = [path.strip() for path in (data or "").split(",") if path.strip()]
    if split != "train":
        return paths[-1:]
    return paths if only_training or len(paths) == 1 else paths[:-1]
