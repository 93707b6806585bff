"""Where the index of a data file lies: found by one scan, kept in a memory-mapped file for all
processes.

An index is a file like others: it may be of another data file, damaged or made up. It is believed
if size and mtime of the data file are as it says and a sample of its content fits; else it is made
again. What it says is checked again at every read.

Layout (little endian, 64-bit words); what follows the header is the business of each kind of
index::

    8 letters naming the kind   size of the data file   its mtime in ns   number of rows   ...
"""

import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from ofa.errors import UserError
from ofa.io.atomic import replacing

logger = logging.getLogger(__name__)

HEADER = 4  # words before the content
PROBES = 32  # places of the data file that are compared with an index before it is believed

# all words of an index of the right kind -> whether nothing is missing
IsWhole = Callable[[np.ndarray], bool]
# all words of a whole index, the open data file -> whether a sample agrees
Fits = Callable[[np.ndarray, IO], bool]


def open_words(
    path: str | Path, expected: str, magic: int, is_whole: IsWhole, fits: Fits, make: Callable
) -> np.ndarray:
    """The words of a file's index; makes the index if it is missing or outdated.

    Safe when many processes call it at once: one scans while the others wait, and the index appears
    whole.

    Args: expected: what the file is, for messages. make: (open file, its status) -> content, number
    of rows.
    Returns: uint64[words], read-only. Raises: UserError if the file is missing or unreadable.
    """
    try:
        mode = os.stat(path).st_mode
        if not (
            stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        ):  # opening a pipe would wait, reading a device not end
            raise UserError(
                f"{path}: expected {expected}, found a pipe or a device; copy what it gives to a"
                " file"
            )
        with open(path, "rb", buffering=0) as file:

            def is_right(words: np.ndarray) -> bool:
                return is_whole(words) and fits(words, file)

            places = index_places(path)
            found = first_valid(places, os.fstat(file.fileno()), magic, is_right)
            if found is not None:
                return found
            lock(file)
            status = os.fstat(file.fileno())
            found = first_valid(places, status, magic, is_right)
            if found is not None:
                return found
            for place in filter(os.path.exists, places):
                logger.info("%s: older than %s, made again", place, path)
            content, rows = make(file, status)
            return store(content, rows, status, places, magic, is_right)
    except OSError as error:
        raise UserError(
            f"{path}: expected {expected}, {error.strerror or error}; check the path"
        ) from error


def lock(file) -> None:
    """Wait for other builders. The data file itself is locked: no lock file stays, a killed
    owner lets go."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except (
        OSError
    ):  # some network file systems refuse it; then several processes scan, each for itself
        logger.debug("%s cannot be locked", file.name)


def index_places(path: str | Path) -> list[Path]:
    """``$OFA_INDEX_DIR`` if set, else beside the file, else ``~/.cache/ofa/index``."""
    real = os.path.realpath(path)
    digest = hashlib.sha256(real.encode(errors="surrogateescape")).hexdigest()[:16]
    name = f"{Path(real).stem[:80]}-{digest}.idx"
    if os.environ.get("OFA_INDEX_DIR"):
        return [Path(os.environ["OFA_INDEX_DIR"]) / name]
    return [Path(f"{path}.idx"), Path.home() / ".cache" / "ofa" / "index" / name]


def first_valid(
    places: list[Path], status: os.stat_result, magic: int, is_whole: IsWhole
) -> np.ndarray | None:
    """The memory-mapped words of the first index that is whole and fits size and mtime of the
    data file."""
    for place in places:
        try:
            words = np.memmap(place, dtype="<u8", mode="r")
        except (OSError, ValueError):  # no index, or an empty file
            continue
        if len(words) <= HEADER or int(words[0]) != magic:
            continue
        if words[1:3].tolist() == [status.st_size, status.st_mtime_ns] and is_whole(words):
            return words
    return None


def sampled(count: int) -> list[int]:
    """At most ``PROBES`` of the numbers below ``count``, evenly spread, with the first and the
    last."""
    return np.unique(np.linspace(0, count - 1, min(count, PROBES)).astype(int)).tolist()


def store(
    content: np.ndarray,
    rows: int,
    status: os.stat_result,
    places: list[Path],
    magic: int,
    is_whole: IsWhole,
) -> np.ndarray:
    """Write the index to the first writable place, in one step. Returns: all of its words."""
    words = np.concatenate(
        [
            np.array([magic, status.st_size, status.st_mtime_ns, rows], dtype="<u8"),
            content.astype("<u8"),
        ]
    )
    for place in places:
        try:
            with replacing(place, "wb") as file:
                file.write(words.tobytes())
        except OSError as error:
            logger.debug("index %s: %s", place, error)
            continue
        stored = first_valid([place], status, magic, is_whole)
        if stored is not None:
            return stored
    logger.warning(
        "no writable folder for the index (%s): set OFA_INDEX_DIR", ", ".join(map(str, places))
    )
    return words
