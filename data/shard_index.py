"""Where the samples of WebDataset shards lie: ``tarfile`` reads the headers of all members once,
and one index for all shards (``ofa.data.row_files``) keeps what it found.
"""

import math
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import numpy as np

from ofa.data.row_files import DataStatus, open_offsets, sampled
from ofa.errors import UserError
from ofa.io.progress import counted

MAGIC = int.from_bytes(b"OFA-TAR3", "little")
EXPECTED = "an uncompressed tar of samples"
# KEY.SUFFIX, the key up to the first dot of the name; no hidden files, no metadata of webdataset
MEMBER = re.compile(r"((?:.*/)?(?!__)[^/.]+)\.([^/]+)", re.DOTALL)
MOST_MEMBERS = 64  # of a sample; more are samples whose keys have dots
MOST_HEADER = 1 << 20  # bytes of a header with long names
SCANNED_TOGETHER = 8  # shards: most of the time a file system elsewhere is waited for
MANY = 64  # shards, from which on scanning them shows its progress

Members = dict[str, tarfile.TarInfo]  # by suffix, as they lie in the tar


class _Headers:
    """What ``TarInfo.fromtarfile`` uses of a ``TarFile`` and its file, from a byte on. It has no
    position in the file, which forked workers would share."""

    encoding, errors = "utf-8", "surrogateescape"

    def __init__(self, file: int, at: int):
        self.file, self.at, self.offset = file, at, at
        self.fileobj, self.pax_headers = self, dict[str, str]()

    def tell(self) -> int:
        return self.at

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        data = os.pread(self.file, size, self.at)
        self.at += size
        if len(data) < size:  # a tar ends in empty blocks before the end of the file
            raise ValueError(f"one that is cut off after {os.fstat(self.file).st_size} bytes")
        return data


def read_samples(
    tar: IO, start: int = 0, stop: float = math.inf
) -> Iterator[tuple[int, int, str, Members]]:
    """The samples between two bytes, or to the end of the tar, each a run of members with one key:
    its first byte, that of the next, key and members. Raises: ValueError if the tar is compressed,
    damaged or cut off, and for a suffix twice."""
    headers, first, key, members = _Headers(tar.fileno(), start), 0, "", Members()
    try:
        while headers.offset < stop:
            headers.at = headers.offset
            member = tarfile.TarInfo.fromtarfile(headers)  # type: ignore[arg-type]
            if member.size < 0 or member.issparse() or "size" in member.pax_headers:
                raise ValueError(f"other content than its size says as {member.name!r}")
            name = MEMBER.fullmatch(member.name)
            if name is None or not member.isreg():
                continue
            if name[1] != key:
                if key:
                    yield first, member.offset, key, members
                first, key, members = member.offset, name[1], Members()
            suffix = name[2].lower()
            if suffix in members or len(members) == MOST_MEMBERS:
                raise ValueError(f"{member.name!r} twice, or {MOST_MEMBERS} members before it")
            members[suffix] = member
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        pass
    except (tarfile.TarError, OverflowError, RecursionError) as error:
        raise ValueError(f"a damaged or compressed one ({error})") from None
    if key:
        yield first, headers.offset, key, members


def read_sample(tar: IO, start: int, end: int) -> tuple[str, Members]:
    """Key and members of the sample between two bytes. Raises: ValueError if it is none: the index
    was made up, or the tar changed."""
    if 0 <= start < end <= os.fstat(tar.fileno()).st_size:
        *place, key, members = next(read_samples(tar, start, end), (0, 0, "", {}))
        if place == [start, end]:
            return key, members
    raise ValueError("no sample")


def open_index(shards: Sequence[str], bases: np.ndarray) -> np.ndarray:
    """Where the samples of shards start, as if the shards lay one after the other, and behind those
    of each the end of its last: uint64[N + shards].

    Args: bases: their ``first_bytes``. Raises: UserError if a shard is missing, damaged or cut off.
    """

    def make(tar: IO, status: DataStatus) -> np.ndarray:
        with ThreadPoolExecutor(SCANNED_TOGETHER) as pool:
            found: Iterator[np.ndarray] = pool.map(scan, shards)
            if len(shards) > MANY:
                found = counted(found, len(shards), f"index {shards[0]}, ...", "shards")
            places = np.concatenate([base + offsets for base, offsets in zip(bases, found)])
        if status.st_size != bases[-1]:
            raise UserError(f"{shards[0]}, ...: a shard changed while it was read; start again")
        return places

    def fits(places: np.ndarray, tar: IO) -> bool:
        first = np.append(first_places(places, bases), len(places))
        ends = places[first[1:] - 1]
        if first[0] or (np.diff(first) < 2).any() or (ends > bases[1:]).any():
            return False
        starts = first[:-1] - np.arange(len(shards))  # rows
        try:
            for row in sampled(len(places) - len(shards)):
                shard = int(np.searchsorted(starts, row, side="right")) - 1
                with open(shards[shard], "rb", buffering=0) as tar:
                    base, end = int(bases[shard]), int(ends[shard])
                    read_sample(tar, *(int(at) - base for at in places[row + shard :][:2]))
                    if next(read_samples(tar, end - base), None) is not None:
                        return False
        except ValueError:  # said properly when all of the shard is read
            return False
        return True

    return open_offsets(shards[0], EXPECTED, MAGIC, fits, make, shards[1:])


def first_bytes(shards: Sequence[str]) -> np.ndarray:
    """Of each if they lay one after the other, and all bytes: uint64[shards + 1]."""
    sizes = np.fromiter(map(os.path.getsize, shards), np.uint64, len(shards))
    return np.append(np.uint64(0), np.cumsum(sizes))


def first_places(places: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """Where in an index the first sample of each shard stands."""
    return np.searchsorted(places, bases[:-1])


def scan(path: str) -> np.ndarray:
    """Where the samples of a shard start, and the end of the last: uint64[N + 1]. Raises: UserError
    if it is damaged or cut off."""
    try:
        with open(path, "rb", buffering=0) as tar:
            places = [place for *place, _, _ in read_samples(tar)]
        if not places:
            raise ValueError("no member KEY.SUFFIX in it; is it a WebDataset shard?")
    except ValueError as error:
        raise UserError(
            f"{path}: expected {EXPECTED}, found {error}; copy or make it again"
        ) from None
    return np.array([*(start for start, _ in places), places[-1][1]], dtype=np.uint64)
