"""Files of rows, a TSV or WebDataset shards, and the order in which an epoch asks for them, from
(seed, epoch): a permutation, or what a shuffle buffer over shards would give.

A shuffle buffer reads the shards one after the other, keeps N samples, and gives out one of them at
random whenever it has read another, so that reads stay within a few shards. Here its order is
computed beforehand, on row numbers alone: any process can read any place of it.
"""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from ofa.data.row_files import Rows
from ofa.data.shards import ShardFile, names_shards
from ofa.data.tsv import TsvFile
from ofa.errors import UserError
from ofa.task.columns import TsvSchema

S = TypeVar("S", bound=TsvSchema)
DEFAULT_BUFFER = 10_000  # samples, for shards
ROUNDS = 4  # of ``shuffled``


def open_rows(path: str | Path, selected_cols: str | Sequence[int] | None = None) -> Rows:
    """The rows of a TSV, or of shards if the path is a folder, a ``.tar`` or a pattern of them;
    both are used alike. Raises: UserError as ``TsvFile`` and ``ShardFile``."""
    return (ShardFile if names_shards(str(path)) else TsvFile)(path, selected_cols)


class NamedRows(Generic[S]):
    """Rows of a file by column name. Args: file: rows with the selected columns, in the order of
    the schema's columns. Raises: UserError if they do not fit."""

    def __init__(self, file: Rows, schema: S):
        self.file, self.schema = file, schema
        self.columns = schema.names_of(len(file.selected_cols), str(file.path))

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> dict[str, str]:
        return dict(zip(self.columns, self.file[int(index)]))

    def texts(self, index: int) -> dict[str, str]:
        """A row without reading its images."""
        images = [column.name for column in self.schema.images]
        numbers = dict(zip(self.columns, self.file.selected_cols))
        texts = {name: number for name, number in numbers.items() if name not in images}
        found = self.file.texts(int(index), list(texts.values()))
        return {**dict.fromkeys(images, "(not read)"), **dict(zip(texts, found))}

    def where(self, index: int) -> str:
        """``file:row`` for messages."""
        return self.file.where(int(index))


def check_column(rows: Rows, number: int, flags: str) -> None:
    """Raises: UserError that names the flags if the rows have no column of that number."""
    if not 0 <= number < rows.num_columns:
        raise UserError(
            f"{rows.path}:1: column {number} is asked for, found {rows.num_columns} columns (0 to"
            f" {rows.num_columns - 1}); correct {flags}"
        )


# --- order


def row_order(
    rows: Any, seed: int | Sequence[int], epoch: int, buffer: int | None = None
) -> np.ndarray:
    """int64[rows]: every row once, in the order of an epoch.

    Args: rows: a ``TsvFile``, ``ShardFile`` or anything with a length. seed: one number or several.
        buffer: samples of the shuffle buffer; 0: every order is as likely as any other. None:
        ``DEFAULT_BUFFER`` for shards, 0 for other rows. A TSV is taken as shards of that size.
    """
    random = np.random.default_rng((*np.atleast_1d(seed).tolist(), epoch))
    if not uses_shuffle_buffer(rows, buffer):
        return random.permutation(len(rows))
    buffer = DEFAULT_BUFFER if buffer is None else buffer
    in_blocks = [*range(0, len(rows), buffer), len(rows)]
    starts = getattr(rows, "shard_starts", in_blocks)
    order = random.permutation(len(starts) - 1)
    stream = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in order])
    return buffered(stream, buffer, random)


def uses_shuffle_buffer(rows: Any, buffer: int | None = None) -> bool:
    """Whether ``row_order`` is that of a shuffle buffer."""
    return buffer > 0 if buffer is not None else hasattr(rows, "shard_starts")


@functools.lru_cache(maxsize=16)  # a few files, the pass that ends and the one that begins
def cached_order(
    rows: Any, seed: Sequence[int], time: int, buffer: int | None = None
) -> np.ndarray:
    """``row_order``, kept for whoever asks for it place by place. Args: seed: a tuple."""
    order = row_order(rows, seed, time, buffer)
    return order.astype(np.uint32) if len(order) < 1 << 32 else order


def buffered(stream: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """What a shuffle buffer gives of a stream. It holds the first ``size`` items; then each item
    of the stream takes the place of a random one, which is given out; at the end the rest comes in
    random order. ``[0, 1, 2, 3], size 2`` -> for example ``[1, 0, 3, 2]``."""
    rest = len(stream) - size
    if rest <= 0:
        return random.permutation(stream)
    slots = random.integers(0, size, rest, dtype=np.uint16 if size <= 1 << 16 else np.int64)
    # times at which a slot was given out, slot after slot
    by_slot = np.argsort(slots, kind="stable")
    first = np.append(True, slots[by_slot[1:]] != slots[by_slot[:-1]])
    given = np.empty(rest, dtype=np.int64)  # place in the stream of what is given out at each time
    given[by_slot] = np.where(first, slots[by_slot], np.append(0, by_slot[:-1]) + size)
    kept = np.arange(size)  # of what is left at the end
    last = by_slot[np.append(first[1:], True)]
    kept[slots[last]] = last + size
    return stream[np.concatenate([given, random.permutation(kept)])]


def shuffled(place: int, size: int, key: str) -> int:
    """Number in [0, size) that stands at ``place`` of a shuffled order without a list of it.
    Another ``key``, another order. A Feistel network over the next even power of two; numbers
    beyond ``size`` are passed through it again."""
    bits = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        high, low = place >> bits, place & ((1 << bits) - 1)
        for round_ in range(ROUNDS):
            digest = hashlib.blake2b(f"{key}-{round_}-{low}".encode(), digest_size=8).digest()
            high, low = low, high ^ int.from_bytes(digest, "little") & ((1 << bits) - 1)
        place = high << bits | low
        if place < size:
            return place
