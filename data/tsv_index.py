"""Where the rows of a TSV file start: found by one scan, kept in a memory-mapped file for all
processes.

Layout of ``<tsv>.idx`` (little endian, 64-bit words):

    "OFA-TSV1"   size of the TSV  its mtime in ns  rows N  N row starts  end of the last row
"""

import logging
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ofa.data.index_files import HEADER, open_words, sampled
from ofa.errors import UserError
from ofa.io.pickles import DAMAGED, load_plain

logger = logging.getLogger(__name__)

MAGIC = int.from_bytes(b"OFA-TSV1", "little")
# bytes scanned at a time: large enough to keep a disk busy, small enough for a CPU cache
CHUNK = 8 << 20
BOM = b"\xef\xbb\xbf"
PROGRESS_FROM = 2 << 30  # bytes from which indexing shows a progress bar
PROBES = 256  # rows looked at before a foreign index is believed


def open_index(path: str | Path) -> np.ndarray:
    """Row starts and end of a TSV file, from its index; makes the index if it is missing or
    outdated.

    Safe when many processes call it at once: one scans while the others wait, and the file appears
    whole.
    Where: ``$OFA_INDEX_DIR`` if set, else beside the TSV, else ``~/.cache/ofa/index``; in memory
    (with a warning) where no folder is writable.

    Returns: uint64[N + 1], read-only. Raises: UserError if the file is missing, unreadable or
    empty.
    """

    def make(tsv, status: os.stat_result) -> tuple[np.ndarray, int]:
        offsets = _upstream_index(path, tsv, status.st_size)
        if offsets is None:
            offsets = _scan(path, tsv, status)
        return offsets, len(offsets) - 1

    return open_words(path, "a TSV file", MAGIC, _is_whole, _fits, make)[HEADER:]


def _is_whole(words: np.ndarray) -> bool:
    return len(words) == HEADER + int(words[3]) + 1 > HEADER + 1


def _fits(words: np.ndarray, tsv) -> bool:
    """Whether rows spread over the file start and end where the index says."""
    offsets, size = words[HEADER:], int(words[1])
    last = len(offsets) - 2
    for row in sampled(last + 1):
        start, end = int(offsets[row]), int(offsets[row + 1])
        if not start < end <= size or (row != last and os.pread(tsv.fileno(), 1, end - 1) != b"\n"):
            return False
        if (
            os.pread(tsv.fileno(), 1, start - 1) != b"\n"
            if row and start
            else row or start not in (0, len(BOM))
        ):
            return False
    # empty lines alone follow the last row
    return not os.pread(tsv.fileno(), CHUNK, int(offsets[-1])).strip(b"\r\n")


def _scan(path: str | Path, tsv, status: os.stat_result) -> np.ndarray:
    """Find the rows of a TSV by reading it once."""
    head = os.pread(tsv.fileno(), 4, 0)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(
            f"{path}: expects UTF-8, found UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
        )
    found = [np.array([len(BOM) if head.startswith(BOM) else 0], dtype=np.uint64)]
    buffer, done = bytearray(CHUNK), 0
    bar = tqdm(
        total=status.st_size,
        unit="B",
        unit_scale=True,
        desc=f"index {Path(path).name}",
        disable=None if status.st_size >= PROGRESS_FROM else True,
    )
    with bar:
        while size := os.preadv(tsv.fileno(), [buffer], done):
            breaks = np.flatnonzero(np.frombuffer(buffer, np.uint8, count=size) == ord("\n"))
            found.append(breaks.astype(np.uint64) + np.uint64(done + 1))
            done += size
            bar.update(size)
            if done > status.st_size:  # somebody writes faster than this reads
                break
    after = os.fstat(tsv.fileno())
    if (after.st_size, after.st_mtime_ns) != (
        status.st_size,
        status.st_mtime_ns,
    ) or done != status.st_size:
        raise UserError(
            f"{path}: the file changed while it was indexed; wait until it is written, then start"
            " again"
        )
    offsets = np.concatenate(found)
    if offsets[-1] < done:  # no newline after the last row
        offsets = np.append(offsets, np.uint64(done))
    return _without_empty_end(path, tsv, offsets)


def _without_empty_end(path: str | Path, tsv, offsets: np.ndarray) -> np.ndarray:
    """Drop empty lines after the last row."""
    rows = len(offsets) - 1
    while rows:
        start, end = int(offsets[rows - 1]), int(offsets[rows])
        if end - start > 2 or os.pread(tsv.fileno(), end - start, start).strip(b"\r\n"):
            return offsets[: rows + 1]
        rows -= 1
    raise UserError(
        f"{path}: expected rows of tab-separated columns, found an empty file; make it again"
    )


def _upstream_index(path: str | Path, tsv, size: int) -> np.ndarray | None:
    """Row starts from ``<tsv>.index``, a pickle of ``(row_count, [offsets])``, if it is there and
    right.

    Upstream indices were counted in text mode and are wrong for CRLF and ``\\r``, so rows spread
    over the file are compared with the file itself; each further row is checked when it is read.
    """
    index = Path(f"{path}.index")
    try:
        count, starts = load_plain(index)
        offsets = np.append(np.asarray(starts, dtype=np.int64), size).astype(np.uint64)
    except FileNotFoundError:
        return None
    except DAMAGED as error:  # the TSV is scanned instead
        logger.warning(
            "%s: not a readable index of upstream's format (%s), making a new one", index, error
        )
        return None
    rows, start_of_text = (
        len(offsets) - 1,
        (len(BOM) if os.pread(tsv.fileno(), len(BOM), 0) == BOM else 0),
    )
    right = (
        count == rows > 0
        and offsets[0] in (0, start_of_text)
        and bool(np.all(offsets[1:] > offsets[:-1]))
    )
    offsets[0] = start_of_text
    for row in np.unique(np.linspace(0, rows - 1, min(rows, PROBES)).astype(int)) if right else ():
        start, end = int(offsets[row]), int(offsets[row + 1])
        line = os.pread(tsv.fileno(), end - start, start)
        right = right and line.find(b"\n") in (
            (end - start - 1,) if row < rows - 1 else (end - start - 1, -1)
        )
    if not right:
        logger.warning("%s does not fit %s, making a new index", index, path)
        return None
    return _without_empty_end(path, tsv, offsets)
