"""Where the members of a WebDataset shard lie: content of ``<tar>.idx``, found by one walk through
the tar's headers.

A sample is a run of members with the same key, the name up to the first dot; the rest is the
suffix::

    a/000017.jpg  a/000017.json  a/000018.jpg ...   keys a/000017, a/000018, ...; suffixes jpg, json

Content of the index, after the header of ``ofa.data.index_files`` with the number N of samples::

    number S of suffixes   S names of 256 bytes   int64[N, S, 2]: first byte, bytes; 0 0: no member
"""

import itertools
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ofa.data.index_files import HEADER, open_words, sampled
from ofa.errors import UserError

MAGIC = int.from_bytes(b"OFA-TAR2", "little")
NAME = 256  # bytes of a suffix in the index
MOST_SUFFIXES = 64  # more are no suffixes but part of the keys
BLOCK = 512
LOOKED_AT_BEHIND = 8  # members behind the last sample of an index that may be none
MOST_HEADER = 1 << 20  # bytes of a header with long names
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zX", b"BZh")
EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
LONG_NAME = re.compile(rb"[0-9]+ path=([^\n]+)\n")  # in a header of POSIX's extended format
OTHER_CONTENT = re.compile(rb"[0-9]+ (GNU\.sparse|size=)")  # members that are not what they seem
EXPECTED = "a tar file of samples"

Member = tuple[str, int, int]  # name, first byte, bytes


def open_shard_index(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Suffixes of a shard, and where the members of each sample lie: int64[N, S, 2], memory-mapped;
    the index is made if it is missing or outdated. Raises: UserError if the shard is missing, cut
    off or no tar."""

    def make(tar: IO, status: os.stat_result) -> tuple[np.ndarray, int]:
        try:
            return _walk(tar, status.st_size)
        except ValueError as error:
            raise UserError(
                f"{path}: expected {EXPECTED}, found {error}; copy or make it again"
            ) from None

    return _parts(open_words(path, EXPECTED, MAGIC, _fits, make))


def _parts(words: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Suffixes and places. Raises: ValueError, OverflowError if the index is none."""
    rows, count = int(words[3]), int(words[HEADER])
    table = HEADER + 1 + count * NAME // 8
    if not rows or not count or len(words) <= table:
        raise ValueError("an index without samples")
    names = words[HEADER + 1 : table].view(f"S{NAME}").tolist()
    return [name.decode() for name in names], words[table:].view("<i8").reshape(rows, count, 2)


def _fits(words: np.ndarray, tar: IO) -> bool:
    """Whether samples spread over the shard have their members where the index says, and none
    follows the last."""
    try:
        suffixes, table = _parts(words)
        for row in sampled(len(table)):
            places = [(suffix, *place) for suffix, place in zip(suffixes, table[row].tolist())]
            members = [member for member in places if any(member[1:])]
            if not members or not all(_holds(tar, *member) for member in members):
                return False
        following = _members(tar, int(words[1]), int(table[-1].sum(axis=1).max()))
        looked_at = itertools.islice(following, LOOKED_AT_BEHIND)
        return not any(split_name(name) for name, _, _ in looked_at)
    except (ValueError, OverflowError):  # said properly when all of the shard is read
        return False


def _holds(tar: IO, suffix: str, start: int, size: int) -> bool:
    """Whether a member of that size and suffix begins at byte ``start``."""
    if start < BLOCK or size < 0:
        return False
    info = read_header(os.pread(tar.fileno(), BLOCK, start - BLOCK))
    named = info.name.lower().endswith(f".{suffix}") or len(info.name) >= tarfile.LENGTH_NAME
    return info.size == size and named


def read_header(block: bytes) -> tarfile.TarInfo:
    """Name, size and kind of a member, from the 512 bytes in front of it; of long names the
    beginning. Raises: ValueError if the block is no header."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(f"a damaged header ({error})") from None


def split_name(name: str) -> tuple[str, str] | None:
    """Key and suffix of a member: ``"a/b.seg.png"`` -> ``("a/b", "seg.png")``. None: no part of
    a sample."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not (stem and dot and suffix) or stem.startswith("__"):
        return None
    return f"{folder}{slash}{stem}", suffix.lower()


def _members(tar: IO, size: int, at: int = 0) -> Iterator[Member]:
    """The regular members of an uncompressed tar from the one at a byte on, until its empty end.
    Only headers are read, and what they state is not believed. Raises: ValueError."""
    if os.pread(tar.fileno(), 4, 0).startswith(COMPRESSED):
        raise ValueError("a compressed one, in which no sample can be looked up: gunzip it")
    long_name = ""
    at = -(-at // BLOCK) * BLOCK
    while len(block := os.pread(tar.fileno(), BLOCK, at)) == BLOCK and block.strip(b"\0"):
        info = read_header(block)
        start = at + BLOCK
        at = start + -(-info.size // BLOCK) * BLOCK
        if info.size < 0:
            raise ValueError(f"{info.size} bytes as {info.name!r}")
        if at > size:
            raise ValueError(
                f"one that is cut off after {size} bytes in the middle of {info.name!r}"
            )
        if info.type in EXTENDED:
            if info.size > MOST_HEADER:
                raise ValueError(f"a header of {info.size} bytes")
            content = os.pread(tar.fileno(), info.size, start)
            if info.type != tarfile.GNUTYPE_LONGNAME and OTHER_CONTENT.search(content):
                raise ValueError(f"a member with two sizes behind byte {start}")
            found = LONG_NAME.search(content)
            named = found[1] if found else content.rstrip(b"\0")
            if found or info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = named.decode("utf-8", "surrogateescape")
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise ValueError(f"a sparse file as {info.name!r}")
        if info.isreg():
            yield long_name or info.name, start, info.size
        long_name = "" if info.type != tarfile.GNUTYPE_LONGLINK else long_name
    if len(block) < BLOCK:  # a whole tar ends in empty blocks
        raise ValueError(f"one that is cut off after {size} bytes")


def _walk(tar: IO, size: int) -> tuple[np.ndarray, int]:
    """Content of the index, number of samples. Raises: ValueError."""
    suffixes: dict[str, int] = {}
    samples: list[dict[int, tuple[int, int]]] = []
    key = None
    for name, start, length in _members(tar, size):
        parts = split_name(name)
        if parts is None:
            continue
        if parts[0] != key:
            key = parts[0]
            samples.append({})
        column = suffixes.setdefault(parts[1], len(suffixes))
        if column in samples[-1]:
            raise ValueError(f"{name!r} twice; a sample has each member KEY.SUFFIX once")
        if len(suffixes) > MOST_SUFFIXES or len(parts[1].encode(errors="replace")) > NAME:
            raise ValueError(f"more than {MOST_SUFFIXES} suffixes, the last {parts[1][:60]!r}")
        samples[-1][column] = start, length
    if not samples:
        raise ValueError("no member KEY.SUFFIX in it; is it a WebDataset shard?")
    table = np.zeros((len(samples), len(suffixes), 2), dtype="<i8")
    for row, sample in enumerate(samples):
        table[row, list(sample)] = list(sample.values())
    names = np.array([suffix.encode(errors="replace") for suffix in suffixes], dtype=f"S{NAME}")
    content = [np.array([len(suffixes)], "<u8"), names.view("<u8"), table.ravel().view("<u8")]
    return np.concatenate(content), len(samples)
