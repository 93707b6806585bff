"""Files of rows: what a TSV file and WebDataset shards have in common, and the index of where their
rows lie, found by one scan and memory-mapped by all processes.

An index is a file like others: it may be of another data file, damaged or made up. It is believed
if size and mtime of the data file are as it says and a sample of the content fits; else it is made
again. What it says is checked once more at every read. Its layout (little endian, 64-bit words)::

    8 letters naming the kind   size of the data file   its mtime in ns   number N of rows
    N row starts and the end of the last row, in bytes

Several files may have one index, as if they lay one after the other: in place of size and mtime it
has their total size and a digest of name, size and mtime of each.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ofa.errors import UserError
from ofa.io.atomic import replacing

logger = logging.getLogger(__name__)

HEADER = 4  # words before the offsets
PROBES = 32  # places of the data file that are compared with an index before it is believed


class Rows(ABC):
    """The rows of a data file as lists of strings, in any order, from any number of processes.

    Args: selected_cols: columns that ``[]`` returns, in this order: ``"0,4,2"`` or numbers; all
        when None.
    Attributes: files: what is read. num_columns: of row 1. checksums: file -> its first row and the
        SHA-256 that it should have, where somebody noted it. even: every row that can be read has
        ``num_columns``.
    """

    path: str
    files: Sequence[str]
    num_columns: int
    selected_cols: list[int]
    checksums: Mapping[str, tuple[int, str]] = {}
    even: bool = False

    @property
    @abstractmethod
    def offsets(self) -> np.ndarray:
        """Row starts and the end of the last row, in bytes of all files: uint64[N + 1]."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[list[str]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> list[str]:
        """Selected columns of row ``index`` (0-based; messages count from 1, as editors do).
        Raises: IndexError beyond the end; UserError if the row is broken."""
        return self.texts(index + len(self) if index < 0 else index, self.selected_cols)

    @abstractmethod
    def texts(self, index: int, columns: Sequence[int]) -> list[str]:
        """Some columns of a row, read without the images in others.
        Args: columns: numbers in the file (not among ``selected_cols``). Raises: as ``[]``."""

    @abstractmethod
    def raw(self, first: int, stop: int) -> list[bytes | UserError]:
        """Rows as a TSV has them, without line feeds and unchecked; in place of one that cannot
        be read, why."""

    @abstractmethod
    def where(self, index: int) -> str:
        """``file:row`` for messages; rows of the file, from 1."""


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


# --- the index


def open_offsets(
    path: str | Path,
    expected: str,
    magic: int,
    fits: Callable[[np.ndarray, IO], bool],
    make: Callable[[IO, "DataStatus"], np.ndarray],
    others: Sequence[str | Path] = (),
) -> np.ndarray:
    """Row starts and the end of the last row, from a file's index, which is made if it is missing
    or outdated. Many processes may call it at once: one scans while the others wait, and the index
    appears whole.

    Args: expected: what the file is, for messages. fits: (offsets of an index, the open file) ->
        whether a sample of the file is as they say. make: (the open file, its status) -> offsets.
        others: further files of the same index.
    Returns: uint64[N + 1], read-only. Raises: UserError if the file is missing or unreadable.
    """
    places = index_places(f"{path}+{len(others)}" if others else path)
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
                status = status_of(file, others)
                for place in places:
                    offsets = stored(place, magic, status)
                    if offsets is not None and fits(offsets, file):
                        return offsets
            for place in filter(os.path.exists, places):
                logger.info("%s: older than %s, made again", place, path)
            return store(make(file, status), status, places, magic)
    except OSError as error:
        raise UserError(
            f"{error.filename or path}: expected {expected}, {error.strerror or error}; check the"
            " path"
        ) from error


class DataStatus(NamedTuple):
    """What an index says of the file it belongs to, or of several. By the names of ``os.stat``."""

    st_size: int
    st_mtime_ns: int  # a digest for several files


def status_of(file: IO, others: Sequence[str | Path] = ()) -> DataStatus:
    """Args: file: the first. others: of the same index."""
    first = os.fstat(file.fileno())
    if not others:
        return DataStatus(first.st_size, first.st_mtime_ns)
    every = [first, *map(os.stat, others)]
    names = [os.path.basename(path) for path in (file.name, *others)]
    facts = repr([(name, it.st_size, it.st_mtime_ns) for name, it in zip(names, every)])
    digest = hashlib.sha256(facts.encode(errors="surrogatepass")).digest()[:7]
    return DataStatus(sum(it.st_size for it in every), int.from_bytes(digest, "little"))


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


def stored(place: Path, magic: int, status: DataStatus | os.stat_result) -> np.ndarray | None:
    """The memory-mapped offsets of an index that names kind, size and mtime of the data file."""
    try:
        words = np.memmap(place, dtype="<u8", mode="r")
    except (OSError, ValueError):  # no index, or an empty file
        return None
    right = words[:3].tolist() == [magic, status.st_size, status.st_mtime_ns]
    whole = right and len(words) > HEADER + 1 and len(words) == HEADER + 1 + int(words[3])
    return words[HEADER:] if whole else None


def sampled(count: int, most: int = PROBES) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spread, with the first and the
    last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def store(
    offsets: np.ndarray, status: DataStatus | os.stat_result, places: list[Path], magic: int
) -> np.ndarray:
    """Write an index to the first writable place, in one step. Returns: its offsets."""
    header = [magic, status.st_size, status.st_mtime_ns, len(offsets) - 1]
    words = np.concatenate([np.array(header, dtype="<u8"), offsets.astype("<u8")])
    for place in places:
        try:
            with replacing(place, "wb") as file:
                file.write(words.tobytes())
            return np.memmap(place, dtype="<u8", mode="r")[HEADER:]
        except OSError as error:
            logger.debug("index %s: %s", place, error)
    looked_at = ", ".join(map(str, places))
    logger.warning("no writable folder for the index (%s): set OFA_INDEX_DIR", looked_at)
    return words[HEADER:]
