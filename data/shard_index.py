"""Where the members of a WebDataset shard lie: found by one walk through the tar's headers, kept in
a memory-mapped file.

A sample is a run of members with the same key, the name up to the first dot; the rest is the
suffix::

    a/000017.jpg  a/000017.json  a/000018.jpg ...   keys a/000017, a/000018, ...; suffixes jpg, json

Layout of ``<tar>.idx`` (little endian, 64-bit words; see ``ofa.data.index_files`` for the first
four)::

    "OFA-TAR1"  size  mtime  samples N  suffixes S  bytes of their names L
    names as JSON, filled up to words
    int64[N, S, 2]: first byte and size of each member; first byte 0 where a sample has none
"""

import itertools
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ofa.data.index_files import HEADER, open_words, sampled
from ofa.errors import UserError
from ofa.io.json_files import load_json

MAGIC = int.from_bytes(b"OFA-TAR1", "little")
NAMES = HEADER + 2  # word at which the names begin
MOST_SUFFIXES = 64  # more are no suffixes but part of the keys
BLOCK = 512
LOOKED_AT_BEHIND = 8  # members behind the last sample of an index that may be none
MOST_HEADER = 1 << 20  # bytes of a header with long names, at most
# what tarfile says where the next member should be
CUT = ("unexpected end of data", "empty header", "truncated header")
EXPECTED = "a tar file of samples"


def open_shard_index(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Suffixes of a shard, and where the members of each sample lie; makes the index if it is
    missing or outdated.

    Returns: suffixes; int64[N, S, 2], memory-mapped. Raises: UserError if the shard is missing, cut
    off or no tar.
    """
    words = open_words(
        path,
        EXPECTED,
        MAGIC,
        _is_whole,
        _fits,
        lambda tar, status: _walk(path, tar, status.st_size),
    )
    return _names(words), _table(words)


def _is_whole(words: np.ndarray) -> bool:
    if len(words) < NAMES:
        return False
    samples, suffixes, length = map(int, words[3:NAMES])
    if (
        not samples
        or not 0 < suffixes <= MOST_SUFFIXES
        or len(words) != NAMES + (length + 7) // 8 + 2 * samples * suffixes
    ):
        return False
    try:
        names = _names(words)
    except ValueError:
        return False
    return (
        isinstance(names, list)
        and len(names) == suffixes
        and all(isinstance(name, str) for name in names)
    )


def _names(words: np.ndarray) -> list[str]:
    length = int(words[HEADER + 1])
    return load_json(words[NAMES : NAMES + (length + 7) // 8].tobytes()[:length])


def _table(words: np.ndarray) -> np.ndarray:
    samples, suffixes, length = map(int, words[3:NAMES])
    return words[NAMES + (length + 7) // 8 :].view("<i8").reshape(samples, suffixes, 2)


def _fits(words: np.ndarray, tar) -> bool:
    """Whether samples spread over the shard have their members where the index says."""
    table, size = _table(words), int(words[1])
    for row in sampled(len(table)):
        places = [place for place in table[row].tolist() if place != [0, 0]]
        if not places or not all(is_member(tar, place, size) for place in places):
            return False
    last = max(start + -(-length // BLOCK) * BLOCK for start, length in table[-1].tolist())
    try:
        following = itertools.islice(_members("", tar, size, last), LOOKED_AT_BEHIND)
        return not any(member.isreg() and split_name(member.name) for member in following)
    except UserError:  # said properly when all of it is read
        return False


def is_member(tar, place: Sequence[int], size: int) -> bool:
    """Whether a regular member of that size lies there. Args: tar: the open file. place:
    first byte and bytes. size: of it."""
    start, length = place
    if not (BLOCK <= start and 0 <= length and start + length <= size):
        return False
    return states_size(os.pread(tar.fileno(), BLOCK, start - BLOCK), length)


def states_size(header: bytes, length: int) -> bool:
    """Whether a header says that this number of bytes follows it."""
    stated = header[124:136]
    if stated[:1] == b"\x80":  # of 8 GB and more: a binary number
        return int.from_bytes(stated[1:], "big") == length
    return len(header) == BLOCK and stated.strip(b"\0 ").lstrip(b"0") == (
        b"%o" % length if length else b""
    )


def split_name(name: str) -> tuple[str, str] | None:
    """Key and suffix of a member: ``"a/b.seg.png"`` -> ``("a/b", "seg.png")``. None: no part of
    a sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not (stem and dot and suffix) or stem.startswith("__"):
        return None
    return f"{folder}{slash}{stem}", suffix.lower()


def _walk(path: str | Path, tar, size: int) -> tuple[np.ndarray, int]:
    """Content of the index, number of samples. Args: tar: the open file. size: of it, bytes."""
    suffixes: dict[str, int] = {}
    samples: list[dict[int, tuple[int, int]]] = []
    key, end = None, 0
    for member in _members(path, tar, size):
        if member.size < 0 or member.issparse():
            found = f"{member.size} bytes" if member.size < 0 else "a sparse file"
            raise UserError(
                f"{path}: expected {EXPECTED}, found {found} as {member.name!r}; make the shard"
                " again"
            )
        end = member.offset_data + -(-member.size // BLOCK) * BLOCK
        if end > size:
            raise UserError(
                f"{path}: expected {EXPECTED}, found one that is cut off after {size} bytes in the"
                f" middle of {member.name!r}; copy or make it again"
            )
        parts = split_name(member.name) if member.isreg() else None
        if parts is None:
            continue
        if not is_member(tar, (member.offset_data, member.size), size):
            raise UserError(
                f"{path}: expected {EXPECTED}, found {member.name!r} with two sizes; make the shard"
                " again"
            )
        if parts[0] != key:
            key = parts[0]
            samples.append({})
        column = suffixes.setdefault(parts[1], len(suffixes))
        if column in samples[-1] or len(suffixes) > MOST_SUFFIXES:
            found = (
                f"{member.name!r} twice"
                if column in samples[-1]
                else f"more than {MOST_SUFFIXES} suffixes, the last {parts[1]!r}"
            )
            raise UserError(
                f"{path}: expected members KEY.SUFFIX, those of a sample together and each once,"
                f" found {found}"
            )
        samples[-1][column] = member.offset_data, member.size
    tar.seek(end)
    rest = tar.read(2 * BLOCK)
    if len(rest) < BLOCK or rest.strip(b"\0"):  # a whole tar ends in empty blocks
        found = (
            f"one that is cut off after {size} bytes"
            if len(rest) < BLOCK
            else f"a damaged one, no member at byte {end}"
        )
        raise UserError(f"{path}: expected {EXPECTED}, found {found}; copy or make it again")
    if not samples:
        raise UserError(
            f"{path}: expected {EXPECTED}, found no member KEY.SUFFIX in it; is it a WebDataset"
            " shard?"
        )
    table = np.zeros((len(samples), len(suffixes), 2), dtype="<i8")
    for row, sample in enumerate(samples):
        for column, place in sample.items():
            table[row, column] = place
    names = json.dumps(list(suffixes)).encode()
    padded = np.frombuffer(names + bytes(-len(names) % 8), dtype="<u8")
    return np.concatenate(
        [np.array([len(suffixes), len(names)], dtype="<u8"), padded, table.ravel().view("<u8")]
    ), len(samples)


def _members(path: str | Path, file, size: int, first: int = 0):
    """The members of an uncompressed tar one after the other, without keeping them. Args: first:
    byte to begin at."""
    start = os.pread(file.fileno(), BLOCK, 0)
    file.seek(first)
    if (
        start[:2] == b"\x1f\x8b"
        or start[:4] in (b"\x28\xb5\x2f\xfd", b"\xfd7zX")
        or start[:3] == b"BZh"
    ):
        raise UserError(
            f"{path}: expected {EXPECTED}, found a compressed one, in which no sample can be looked"
            " up; unpack it: gunzip"
        )
    try:
        with tarfile.open(fileobj=Headers(file), mode="r:") as tar:  # type: ignore[call-overload]  # typeshed asks for write
            while (member := tar.next()) is not None:
                yield member
                tar.members = []
    except Exception as error:
        # tarfile raises nearly anything for headers that were made up, RecursionError among them
        found = (
            f"one that is cut off after {size} bytes"
            if str(error) in CUT
            else f"{type(error).__name__}: {error}".splitlines()[0]
        )
        raise UserError(
            f"{path}: expected {EXPECTED}, found {found}; copy or make it again"
        ) from None


class Headers:
    """A tar file of which headers are read, no contents: their stated sizes are not believed.
    Args: file: open for reading."""

    def __init__(self, file):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self.file.read(size)
