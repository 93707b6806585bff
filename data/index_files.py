"""Where the rows of a data file lie: found by one scan, kept in a memory-mapped index for all
processes.

An index is a file like others: it may be of another data file, damaged or made up. It is believed
if size and mtime of the data file are as it says and a sample of the content fits; else it is made
again. What it says is checked once more at every read.

Layout (little endian, 64-bit words); what follows the header is the business of each kind::

    8 letters naming the kind   size of the data file   its mtime in ns   number of rows   ...
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ofa.errors import UserError
from ofa.io.atomic import replacing

logger = logging.getLogger(__name__)

HEADER = 4  # words before the content
PROBES = 32  # places of the data file that are compared with an index before it is believed


def open_words(
    path: str | Path,
    expected: str,
    magic: int,
    fits: Callable[[np.ndarray, IO], bool],
    make: Callable[[IO, os.stat_result], tuple[np.ndarray, int]],
) -> np.ndarray:
    """The words of a file's index, which is made if it is missing or outdated. Many processes may
    call it at once: one scans while the others wait, and the index appears whole.

    Args: expected: what the file is, for messages. fits: (all words of an index, the open file) ->
        whether the index is whole, and a sample of the file is as it says. make: (the open file,
        its status) -> content, number of rows.
    Returns: uint64[words], read-only. Raises: UserError if the file is missing or unreadable.
    """
    places = index_places(path)
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait
            raise UserError(
                f"{path}: expected {expected}, found a pipe or a device; copy what it gives to a"
                " file"
            )
        with open(path, "rb", buffering=0) as file:
            for waits in (False, True):  # once more when other builders are done
                if waits:  # for the data file itself: no lock file stays, a killed owner lets go
                    with contextlib.suppress(OSError):  # some network file systems refuse
                        fcntl.flock(file, fcntl.LOCK_EX)
                status = os.fstat(file.fileno())
                for place in places:
                    words = stored(place, magic, status)
                    if words is not None and fits(words, file):
                        return words
            for place in filter(os.path.exists, places):
                logger.info("%s: older than %s, made again", place, path)
            content, rows = make(file, status)
            return store(content, rows, status, places, magic)
    except OSError as error:
        raise UserError(
            f"{path}: expected {expected}, {error.strerror or error}; check the path"
        ) from error


def index_places(path: str | Path) -> list[Path]:
    """``$OFA_INDEX_DIR`` if set, else beside the file, else ``~/.cache/ofa/index``."""
    real = os.path.realpath(path)
    digest = hashlib.sha256(real.encode(errors="surrogateescape")).hexdigest()[:16]
    name = f"{Path(real).stem[:80]}-{digest}.idx"
    if folder := os.environ.get("OFA_INDEX_DIR"):
        return [Path(folder) / name]
    return [Path(f"{path}.idx"), Path.home() / ".cache" / "ofa" / "index" / name]


@contextlib.contextmanager
def leaving_no_index(paths: Iterable[str | Path]) -> Iterator[None]:
    """Context after which no index lies beside files that had none: those of other programs."""
    new = [place for path in paths if not (place := Path(f"{path}.idx")).exists()]
    try:
        yield
    finally:
        for place in new:
            place.unlink(missing_ok=True)


def stored(place: Path, magic: int, status: os.stat_result) -> np.ndarray | None:
    """The memory-mapped words of an index that names kind, size and mtime of the data file."""
    try:
        words = np.memmap(place, dtype="<u8", mode="r")
    except (OSError, ValueError):  # no index, or an empty file
        return None
    right = words[:3].tolist() == [magic, status.st_size, status.st_mtime_ns]
    return words if right and len(words) > HEADER else None


def sampled(count: int, most: int = PROBES) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spread, with the first and the
    last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def store(
    content: np.ndarray, rows: int, status: os.stat_result, places: list[Path], magic: int
) -> np.ndarray:
    """Write an index to the first writable place, in one step. Returns: all of its words."""
    header = np.array([magic, status.st_size, status.st_mtime_ns, rows], dtype="<u8")
    words = np.concatenate([header, content.astype("<u8")])
    for place in places:
        try:
            with replacing(place, "wb") as file:
                file.write(words.tobytes())
            return np.memmap(place, dtype="<u8", mode="r")
        except OSError as error:
            logger.debug("index %s: %s", place, error)
    looked_at = ", ".join(map(str, places))
    logger.warning("no writable folder for the index (%s): set OFA_INDEX_DIR", looked_at)
    return words
