"""Where the members of a WebDataset shard lie: found by one walk through the tar's headers, kept in a memory-mapped file.

A sample is a run of members with the same key, the name up to the first dot; the rest is the suffix::

    a/000017.jpg  a/000017.json  a/000018.jpg ...      keys a/000017, a/000018, ...; suffixes jpg, json

Layout of ``<tar>.idx`` (little endian, 64-bit words; see ``ofa.data.index_files`` for the first four)::

    "OFA-TAR1"  size  mtime  samples N  suffixes S  bytes of their names L   names as JSON, filled up to words
    int64[N, S, 2]: first byte and size of each member; first byte 0 where a sample has none
"""

import json
import tarfile
from pathlib import Path

import numpy as np

from ofa.data.index_files import HEADER, open_words
from ofa.errors import UserError

MAGIC = int.from_bytes(b"OFA-TAR1", "little")
NAMES = HEADER + 2  # word at which the names begin
MOST_SUFFIXES = 64  # more are no suffixes but part of the keys
BLOCK = 512
CUT = ("unexpected end of data", "empty header", "truncated header")  # what tarfile says where the next member should be
EXPECTED = "a tar file of samples"


def open_shard_index(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Suffixes of a shard, and where the members of each sample lie; makes the index if it is missing or outdated.

    Returns: suffixes; int64[N, S, 2], memory-mapped. Raises: UserError if the shard is missing, cut off or no tar.
    """
    words = open_words(path, EXPECTED, MAGIC, _is_whole, lambda tar, status: _walk(path, tar, status.st_size))
    samples, suffixes, length = map(int, words[3:NAMES])
    table = NAMES + (length + 7) // 8
    names = json.loads(words[NAMES:table].tobytes()[:length])
    return names, words[table:].view("<i8").reshape(samples, suffixes, 2)


def _is_whole(words: np.ndarray) -> bool:
    if len(words) < NAMES:
        return False
    samples, suffixes, length = map(int, words[3:NAMES])
    return len(words) == NAMES + (length + 7) // 8 + 2 * samples * suffixes


def split_name(name: str) -> tuple[str, str] | None:
    """Key and suffix of a member: ``"a/b.seg.png"`` -> ``("a/b", "seg.png")``. None: no part of a sample."""
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
        end = member.offset_data + -(-member.size // BLOCK) * BLOCK
        if end > size:
            raise UserError(f"{path}: expected {EXPECTED}, found one that is cut off after {size} bytes in the middle of {member.name}; "
                            "copy or make it again")
        parts = split_name(member.name) if member.isreg() else None
        if parts is None:
            continue
        if parts[0] != key:
            key = parts[0]
            samples.append({})
        column = suffixes.setdefault(parts[1], len(suffixes))
        if column in samples[-1] or len(suffixes) > MOST_SUFFIXES:
            found = f"{member.name} twice" if column in samples[-1] else f"more than {MOST_SUFFIXES} suffixes, the last {parts[1]!r}"
            raise UserError(f"{path}: expected members KEY.SUFFIX, those of a sample together and each once, found {found}")
        samples[-1][column] = member.offset_data, member.size
    tar.seek(end)
    rest = tar.read(2 * BLOCK)
    if len(rest) < BLOCK or rest.strip(b"\0"):  # a whole tar ends in empty blocks
        found = f"one that is cut off after {size} bytes" if len(rest) < BLOCK else f"a damaged one, no member at byte {end}"
        raise UserError(f"{path}: expected {EXPECTED}, found {found}; copy or make it again")
    if not samples:
        raise UserError(f"{path}: expected {EXPECTED}, found no member KEY.SUFFIX in it; is it a WebDataset shard?")
    table = np.zeros((len(samples), len(suffixes), 2), dtype="<i8")
    for row, sample in enumerate(samples):
        for column, place in sample.items():
            table[row, column] = place
    names = json.dumps(list(suffixes)).encode()
    padded = np.frombuffer(names + bytes(-len(names) % 8), dtype="<u8")
    return np.concatenate([np.array([len(suffixes), len(names)], dtype="<u8"), padded, table.ravel().view("<u8")]), len(samples)


def _members(path: str | Path, file, size: int):
    """The members of an uncompressed tar one after the other, without keeping them."""
    start = file.read(BLOCK)
    file.seek(0)
    if start[:2] == b"\x1f\x8b" or start[:4] in (b"\x28\xb5\x2f\xfd", b"\xfd7zX") or start[:3] == b"BZh":
        raise UserError(f"{path}: expected {EXPECTED}, found a compressed one, in which no sample can be looked up; unpack it: gunzip")
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                yield member
                tar.members = []
    except tarfile.TarError as error:
        found = f"one that is cut off after {size} bytes" if str(error) in CUT else str(error)
        raise UserError(f"{path}: expected {EXPECTED}, found {found}; copy or make it again") from None
