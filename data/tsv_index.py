"""Where the rows of a TSV file start: content of ``<tsv>.idx`` (``ofa.data.index_files``) are the
N row starts and the end of the last row, in bytes."""

import logging
import os
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from ofa.data.index_files import HEADER, PROBES, open_words, sampled
from ofa.errors import UserError
from ofa.io.pickles import DAMAGED, load_plain

logger = logging.getLogger(__name__)

MAGIC = int.from_bytes(b"OFA-TSV1", "little")
# bytes scanned at a time: large enough to keep a disk busy, small enough for a CPU cache
CHUNK = 8 << 20
BOM = b"\xef\xbb\xbf"
PROGRESS_FROM = 2 << 30  # bytes from which indexing shows a progress bar
UPSTREAM_PROBES = 256  # rows looked at before an index of upstream's is believed


def open_index(path: str | Path) -> np.ndarray:
    """Row starts and end of a TSV file, from its index; makes the index if it is missing or
    outdated.

    Returns: uint64[N + 1], read-only. Raises: UserError if the file is missing, unreadable or
    empty.
    """

    def fits(words: np.ndarray, tsv: IO) -> bool:
        offsets = words[HEADER:]
        return (
            len(offsets) == int(words[3]) + 1 > 1
            and _fits(offsets, tsv, int(words[1]))
            # empty lines alone follow the last row
            and not os.pread(tsv.fileno(), CHUNK, int(offsets[-1])).strip(b"\r\n")
        )

    def make(tsv: IO, status: os.stat_result) -> tuple[np.ndarray, int]:
        offsets = _upstream_index(path, tsv, status.st_size)
        if offsets is None:
            offsets = _scan(path, tsv, status)
        offsets = _without_empty_end(path, tsv, offsets)
        return offsets, len(offsets) - 1

    return open_words(path, "a TSV file", MAGIC, fits, make)[HEADER:]


def _fits(
    offsets: np.ndarray, tsv: IO, size: int, probes: int = PROBES, whole_rows: bool = False
) -> bool:
    """Whether rows spread over the file start and end where the index says. Args: whole_rows:
    look for line ends within these rows, too."""
    last = len(offsets) - 2
    for row in sampled(last + 1, probes):
        start, end = int(offsets[row]), int(offsets[row + 1])
        if not start < end <= size or (start == 0 if row else start not in (0, len(BOM))):
            return False
        ends = [at for at in (start if row else 0, end if row != last else 0) if at]
        if any(os.pread(tsv.fileno(), 1, at - 1) != b"\n" for at in ends):
            return False
        if whole_rows and b"\n" in os.pread(tsv.fileno(), end - start - 1, start):
            return False
    return True


def _scan(path: str | Path, tsv: IO, status: os.stat_result) -> np.ndarray:
    """Find the rows of a TSV by reading it once."""
    head = os.pread(tsv.fileno(), 4, 0)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(
            f"{path}: expects UTF-8, found UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
        )
    found = [np.array([len(BOM) if head.startswith(BOM) else 0], dtype=np.uint64)]
    buffer, done = bytearray(CHUNK), 0
    with tqdm(
        total=status.st_size,
        unit="B",
        unit_scale=True,
        desc=f"index {Path(path).name}",
        disable=None if status.st_size >= PROGRESS_FROM else True,
    ) as bar:
        while size := os.preadv(tsv.fileno(), [buffer], done):
            breaks = np.flatnonzero(np.frombuffer(buffer, np.uint8, count=size) == ord("\n"))
            found.append(breaks.astype(np.uint64) + np.uint64(done + 1))
            done += size
            bar.update(size)
            if done > status.st_size:  # somebody writes faster than this reads
                break
    after = os.fstat(tsv.fileno())
    before = status.st_size, status.st_mtime_ns
    if (after.st_size, after.st_mtime_ns) != before or done != status.st_size:
        raise UserError(
            f"{path}: the file changed while it was indexed; wait until it is written, then start"
            " again"
        )
    offsets = np.concatenate(found)
    return offsets if offsets[-1] == done else np.append(offsets, np.uint64(done))


def _without_empty_end(path: str | Path, tsv: IO, offsets: np.ndarray) -> np.ndarray:
    """Drop empty lines after the last row."""
    for row in range(len(offsets) - 2, -1, -1):
        start, end = int(offsets[row]), int(offsets[row + 1])
        if end - start > 2 or os.pread(tsv.fileno(), end - start, start).strip(b"\r\n"):
            return offsets[: row + 2]
    raise UserError(
        f"{path}: expected rows of tab-separated columns, found an empty file; make it again"
    )


def _upstream_index(path: str | Path, tsv: IO, size: int) -> np.ndarray | None:
    """Row starts from ``<tsv>.index``, a pickle of ``(row_count, [offsets])``, if it is there and
    right.

    Upstream counted them in text mode, which is wrong for CRLF and ``\\r``, so rows spread over
    the file are compared with the file itself; each further row is checked when it is read.
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
    if count == len(offsets) - 1 > 0 and np.all(offsets[1:] > offsets[:-1]):
        if os.pread(tsv.fileno(), len(BOM), 0) == BOM and offsets[0] == 0:
            offsets[0] = len(BOM)
        if _fits(offsets, tsv, size, UPSTREAM_PROBES, whole_rows=True):
            return offsets
    logger.warning("%s does not fit %s, making a new index", index, path)
    return None
