"""What tells one file from another: all of its bytes, or a sample of those of large files."""

import hashlib
import os
from collections.abc import Sequence
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
    """Digest of evenly spaced blocks of some files, taken as one long file.

    A copy has the digest of its original. A change that touches none of the blocks is not seen.
    Args: size: bytes from the beginning that count, at most as many as there are; all when None.
    Raises: OSError if a file is missing.
    """
    size = total_bytes(paths) if size is None else size
    places: Sequence[int] = range(0, size, BLOCK)  # the first bytes of the blocks
    if len(places) > PLACES:
        places = [(size - BLOCK) * number // (PLACES - 1) for number in range(PLACES)]
    digest = hashlib.sha256(str(size).encode())
    start = 0  # of the file among all
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            end = start + os.fstat(file.fileno()).st_size
            for place in places:
                first, last = max(place, start), min(place + BLOCK, end, size)
                if first < last:
                    digest.update(os.pread(file.fileno(), last - first, first - start))
        start = end
    return digest.hexdigest()[:32]
