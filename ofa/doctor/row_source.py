"""Rows as bytes, in chunks, from a TSV or from WebDataset shards."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ofa.data.shards import ShardFile, manifest_of, name_of, names_shards
from ofa.data.tsv_index import open_index
from ofa.errors import UserError
from ofa.io.progress import Progress

Source = np.ndarray | ShardFile  # row starts of a TSV, or the shards
Chunk = tuple[int, int, int, int]  # first byte, bytes, first row from 0, rows; shards have no bytes
HASHED = 8 << 20  # bytes at a time


def open_source(path: str) -> Source:
    """Raises: UserError if the file or a shard is missing, empty or broken."""
    return ShardFile(path) if names_shards(path) else open_index(path)


def num_rows(source: Source) -> int:
    return len(source) if isinstance(source, ShardFile) else len(source) - 1


def num_bytes(path: str, source: Source) -> int:
    return (
        sum(map(os.path.getsize, source.shards))
        if isinstance(source, ShardFile)
        else os.path.getsize(path)
    )


def chunks_of_shards(source: ShardFile, size: int) -> Iterator[Chunk]:
    """Chunks of about ``size`` bytes."""
    step = max(1, size * len(source) // max(num_bytes("", source), 1))
    for start in range(0, len(source), step):
        yield 0, 0, start, min(step, len(source) - start)


def rows_of_shards(source: ShardFile, first: int, count: int) -> list[bytes | UserError]:
    """Rows as a TSV would have them; what is wrong in place of a row that cannot be read. Args:
    first: from 0."""
    return [_row(source, row) for row in range(first, first + count)]


def _row(source: ShardFile, row: int) -> bytes | UserError:
    try:
        return "\t".join(source.texts(row, range(source.num_columns))).encode(
            "utf-8", "surrogatepass"
        )
    except UserError as error:
        return UserError(str(error).removeprefix(f"{source.where(row)}: "))


def id_of_row(path: str, source: Source, row: int, column: int) -> str:
    """A column of a row, for messages."""
    if isinstance(source, ShardFile):
        return source.texts(row, [column])[0]
    with open(path, "rb") as file:
        file.seek(int(source[row]))
        return file.readline().split(b"\t")[column].decode("utf-8", "replace")


def other_checksums(source: ShardFile) -> Iterator[tuple[int, str]]:
    """(first row from 1, what is wrong) of shards whose content is not what the manifest of
    ``ofa pack`` says."""
    noted: dict[str, dict] = {}
    for shard in source.shards:
        noted |= manifest_of(shard) if os.path.basename(shard) not in noted else {}
    with Progress(num_bytes("", source) if noted else 0, "checksums", "bytes") as progress:
        for shard, first in zip(source.shards, source.shard_starts) if noted else ():
            digest = hashlib.sha256()
            with open(shard, "rb") as file:
                while data := file.read(HASHED):
                    digest.update(data)
                    progress.update(len(data))
            entry = noted.get(os.path.basename(shard))
            if entry is not None and digest.hexdigest() != entry["sha256"]:
                yield (
                    int(first) + 1,
                    (
                        f"{os.path.basename(shard)} with {digest.hexdigest()[:12]}... instead of"
                        f" {entry['sha256'][:12]}..."
                    ),
                )


def name_for_guessing(path: str) -> str:
    """The name that tells what rows are: of the file, or of the shards of a folder."""
    if os.path.isdir(path):
        shards = sorted(Path(path).glob("*.tar"))
        return name_of(str(shards[0])) if shards else ""
    return Path(path).name
