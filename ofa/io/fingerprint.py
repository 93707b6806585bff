"""What tells one file from another: all of its bytes, or a sample of those of large files."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

BLOCK = 1 << 14  # bytes that are read at each place of the sample
PLACES = 256  # a file of up to 4 MiB is read whole, of a larger one this number of places


def sha256_of(path: str | Path) -> str:
    """What ``sha256sum`` prints for a file. Raises: OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def total_bytes(paths: Sequence[str | Path]) -> int:
    """Size of some files together. Raises: OSError if one is missing."""
    return sum(os.stat(path).st_size for path in paths)


def sample_digest(paths: Sequence[str | Path], size: int | None = None) -> str:
    """Digest of evenly spaced blocks of some files, taken as one long file; equal content gives
    equal digests.

    A copy has the digest of its original. A change that touches none of the blocks is not seen.

    Args: size: bytes from the beginning that count, at most as many as there are; all when None.
    Raises: OSError if a file is missing.
    """
    size = total_bytes(paths) if size is None else size
    digest = hashlib.sha256(str(size).encode())
    for block in _blocks(paths, _places(size), size):
        digest.update(block)
    return digest.hexdigest()[:32]


def _places(size: int) -> list[int]:
    """First bytes of the blocks, the first and the last block of the content among them."""
    if size <= BLOCK * PLACES:
        return list(range(0, size, BLOCK))
    return [(size - BLOCK) * number // (PLACES - 1) for number in range(PLACES)]


def _blocks(paths: Sequence[str | Path], places: list[int], size: int) -> Iterator[bytes]:
    start = 0  # of the file among all
    for path in paths:
        end = start + os.stat(path).st_size
        inside = [place for place in places if place < end and place + BLOCK > start]
        if inside:
            with open(path, "rb", buffering=0) as file:
                for place in inside:
                    first, last = max(place, start), min(place + BLOCK, end, size)
                    yield os.pread(file.fileno(), max(last - first, 0), first - start)
        start = end
