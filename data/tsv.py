"""Rows of a TSV file by number: an index of their first bytes, made once, then one ``pread`` per
row (``ofa.data.row_files``).

A row ends at ``\\n`` only; ``\\r`` before it is dropped (CRLF), ``\\r`` inside a field is text. A
missing last newline, empty lines at the end and a UTF-8 byte-order mark are no rows.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np

from ofa.data.row_files import PROBES, DataStatus, Rows, column_numbers, open_offsets, sampled
from ofa.errors import UserError
from ofa.io.pickles import DAMAGED, load_plain

logger = logging.getLogger(__name__)

MAGIC = int.from_bytes(b"OFA-TSV1", "little")
BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 14  # bytes at either end of a long row that ``TsvFile.texts`` looks at
# bytes scanned at a time: large enough to keep a disk busy, small enough for a CPU cache
CHUNK = 8 << 20
PROGRESS_FROM = 2 << 30  # bytes from which indexing shows a progress bar
UPSTREAM_PROBES = 256  # rows looked at before an index of upstream's is believed


class TsvFile(Rows):
    """The rows of one TSV file.

    Picklable; the file is opened when the first row is read, once per process. ``pread`` has no
    file position, so a forked worker may share the descriptor. A file that grows or shrinks after
    it was opened is refused, in every process: its rows may be others by now.

    Raises: UserError for a missing or empty file, and for a column that the first row lacks.

    >>> rows = TsvFile("caption_val.tsv", "1,4,2")
    >>> image_id, image, captions = rows[0]
    """

    def __init__(self, path: str | Path, selected_cols: str | Sequence[int] | None = None):
        self.path = str(path)
        self.files = [self.path]
        self._file: FileIO | None = None
        self._offsets: np.ndarray | None = None
        self._size: int | None = None  # of the file as it was first opened, bytes
        self._rows: int | None = None  # then
        self.num_columns = self._read(0)[0].count(b"\t") + 1
        self.selected_cols = column_numbers(self.path, selected_cols, self.num_columns)

    def __getitem__(self, index: int) -> list[str]:
        """As ``Rows``; a row is broken if it has another number of columns than row 1, is not
        UTF-8, or if the file changed since it was indexed."""
        index = index + len(self) if index < 0 else index
        fields = self._fields(index, *self._read(index))
        return [fields[column] for column in self.selected_cols]

    def texts(self, index: int, columns: Sequence[int]) -> list[str]:
        """As ``Rows``, without what lies between: images are long, and mostly at one end of a row.
        Other columns are not checked."""
        head, *tail = self._read(index, ends=True)
        if not tail:
            fields = self._fields(index, head)
            return [fields[column] for column in columns]
        # whole fields from either end
        first, last = head.split(b"\t")[:-1], tail[0].split(b"\t")[1:]
        found = dict(enumerate(first)) | dict(enumerate(last, self.num_columns - len(last)))
        if not found.keys() >= set(columns):
            fields = self._fields(index, *self._read(index))
            return [fields[column] for column in columns]
        return [found[column].decode("utf-8", "replace") for column in columns]

    def raw(self, first: int, stop: int) -> list[bytes | UserError]:
        """As ``Rows``; ``\\r`` at the end of a row stays. Raises: UserError if the file changed."""
        start, end = int(self.offsets[first]), int(self.offsets[stop])
        data = os.pread(self._descriptor(), end - start, start)
        found = data.removesuffix(b"\n").split(b"\n")
        if len(found) != stop - first or len(data) != end - start:
            raise self._changed(first)
        return [*found]

    def where(self, index: int) -> str:
        """``path:row`` for messages; rows count from 1."""
        return f"{self.path}:{index + 1}"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_file": None, "_offsets": None}

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

    def _descriptor(self) -> int:
        """The file, opened in this process."""
        if self._file is None:
            try:
                self._file = open(self.path, "rb", buffering=0)
            except OSError as error:
                raise UserError(
                    f"{self.path}: expected a TSV file, {error.strerror}; the file changed: start"
                    " again"
                ) from None
        return self._file.fileno()

    def _fields(self, index: int, row: bytes) -> list[str]:
        """All columns of a row. Args: row: its bytes. Raises: UserError if they are not UTF-8, or
        not as many as in row 1."""
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

    def _read(self, index: int, ends: bool = False) -> list[bytes]:
        """Bytes of a row without its line end; of a long one, where its ``ends`` suffice, these
        two. The byte in front is read too: a row has to start here, and to end where it ends."""
        offsets = self.offsets
        if not 0 <= index < len(offsets) - 1:
            raise IndexError(f"{self.path}: row {index} of {len(offsets) - 1}")
        file = self._descriptor()
        size = os.lseek(file, 0, os.SEEK_END)  # a third of the time of fstat
        self._size = size if self._size is None else self._size
        start, end = int(offsets[index]), int(offsets[index + 1])
        # an index that was made up may ask for any memory
        if size != self._size or not start < end <= size:
            raise self._changed(index)
        before = min(start, 1)
        spans = [(start - before, end)]
        if ends and end - start > 2 * BLOCK:
            spans = [(start - before, start + BLOCK), (end - BLOCK, end)]
        parts = [os.pread(file, stop - first, first) for first, stop in spans]
        whole = all(len(part) == stop - first for part, (first, stop) in zip(parts, spans))
        starts = parts[0].startswith(b"\n") if index else start in (0, len(BOM))
        stops = parts[-1].endswith(b"\n") or index == len(self) - 1
        parts[0] = parts[0][before:]
        breaks = any(b"\n" in part for part in parts[:-1]) or parts[-1].find(b"\n", 0, -1) != -1
        if not (whole and starts and stops) or breaks:
            raise self._changed(index)
        parts[-1] = parts[-1].removesuffix(b"\n").removesuffix(b"\r")
        return parts

    def _changed(self, index: int) -> UserError:
        return UserError(
            f"{self.where(index)}: expects a row at byte {self.offsets[index]}, found something"
            " else; the file changed after it was indexed: start again (if it happens again,"
            f" remove {self.path}.idx and .index)"
        )


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


# --- the index


def open_index(path: str | Path) -> np.ndarray:
    """Row starts and end of a TSV file, from its index, which is made if it is missing or outdated:
    uint64[N + 1], read-only. Raises: UserError if the file is missing, unreadable or empty."""

    def fits(offsets: np.ndarray, tsv: IO) -> bool:
        return _fits(offsets, tsv) and (
            # empty lines alone follow the last row
            not os.pread(tsv.fileno(), CHUNK, int(offsets[-1])).strip(b"\r\n")
        )

    def make(tsv: IO, status: DataStatus) -> np.ndarray:
        offsets = _upstream_index(path, tsv, status.st_size)
        offsets = _scan(path, tsv, status) if offsets is None else offsets
        for row in range(len(offsets) - 2, -1, -1):  # empty lines at the end are no rows
            start, end = map(int, offsets[row : row + 2])
            if end - start > 2 or os.pread(tsv.fileno(), end - start, start).strip(b"\r\n"):
                return offsets[: row + 2]
        raise UserError(
            f"{path}: expected rows of tab-separated columns, found an empty file; make it again"
        )

    return open_offsets(path, "a TSV file", MAGIC, fits, make)


def _fits(offsets: np.ndarray, tsv: IO, probes: int = PROBES, whole_rows: bool = False) -> bool:
    """Whether rows spread over the file start and end where the index says. Args: whole_rows:
    look for line ends within these rows, too."""
    last, size = len(offsets) - 2, os.fstat(tsv.fileno()).st_size
    for row in sampled(last + 1, probes):
        start, end = map(int, offsets[row : row + 2])
        begins = start > 0 if row else start in (0, len(BOM))
        if not begins or not start < end <= size:
            return False
        marks = ([start] if row else []) + ([end] if row < last else [])
        if any(os.pread(tsv.fileno(), 1, at - 1) != b"\n" for at in marks):
            return False
        if whole_rows and b"\n" in os.pread(tsv.fileno(), end - start - 1, start):
            return False
    return True


def _scan(path: str | Path, tsv: IO, status: DataStatus) -> np.ndarray:
    """Find the rows of a TSV by reading it once."""
    head, size = os.pread(tsv.fileno(), 4, 0), status.st_size
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(
            f"{path}: expects UTF-8, found UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
        )
    found = [np.array([len(BOM) if head.startswith(BOM) else 0], dtype=np.uint64)]
    buffer, done, what = bytearray(CHUNK), 0, f"index {Path(path).name}"
    bar: Any = None
    if size >= PROGRESS_FROM:
        from tqdm import tqdm

        bar = tqdm(total=size, unit="B", unit_scale=True, desc=what, disable=None)
    with bar if bar is not None else nullcontext():
        # until somebody writes faster than this reads
        while done <= size and (count := os.preadv(tsv.fileno(), [buffer], done)):
            breaks = np.flatnonzero(np.frombuffer(buffer, np.uint8, count=count) == ord("\n"))
            found.append(breaks.astype(np.uint64) + np.uint64(done + 1))
            done += count
            if bar is not None:
                bar.update(count)
    after = os.fstat(tsv.fileno())
    if (after.st_size, after.st_mtime_ns, done) != (size, status.st_mtime_ns, size):
        raise UserError(
            f"{path}: the file changed while it was indexed; wait until it is written, then start"
            " again"
        )
    offsets = np.concatenate(found)
    return offsets if offsets[-1] == done else np.append(offsets, np.uint64(done))


def _upstream_index(path: str | Path, tsv: IO, size: int) -> np.ndarray | None:
    """Row starts from ``<tsv>.index``, a pickle of ``(row_count, [offsets])``, if they are right:
    upstream counted in text mode, which is wrong for CRLF and ``\\r``. Rows spread over the file
    are compared with the file itself; each further row is checked when it is read."""
    index = Path(f"{path}.index")
    try:
        count, starts = load_plain(index.read_bytes())
        offsets = np.append(np.asarray(starts, dtype=np.int64), size).astype(np.uint64)
    except FileNotFoundError:
        return None
    except DAMAGED as error:  # the TSV is scanned instead
        damaged = "%s: not a readable index of upstream's format (%s), making a new one"
        logger.warning(damaged, index, error)
        return None
    if count == len(offsets) - 1 > 0 and np.all(offsets[1:] > offsets[:-1]):
        if os.pread(tsv.fileno(), len(BOM), 0) == BOM and offsets[0] == 0:
            offsets[0] = len(BOM)
        if _fits(offsets, tsv, UPSTREAM_PROBES, whole_rows=True):
            return offsets
    logger.warning("%s does not fit %s, making a new index", index, path)
    return None
