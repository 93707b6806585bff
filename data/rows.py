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
STRETCH = 1 << 20  # items of a stream that are shuffled at a time, to need little memory


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
    """uint32[rows], int64 from 2**32 rows on: every row once, in the order of an epoch.

    Args: rows: a ``TsvFile``, ``ShardFile`` or anything with a length. seed: one number or several.
        buffer: samples of the shuffle buffer; 0: every order is as likely as any other. None:
        ``DEFAULT_BUFFER`` for shards, 0 for other rows. A TSV is taken as shards of that size.
    """
    random = np.random.default_rng((*np.atleast_1d(seed).tolist(), epoch))
    if not uses_shuffle_buffer(rows, buffer):
        return permutation(len(rows), random)
    buffer = DEFAULT_BUFFER if buffer is None else buffer
    in_blocks = [*range(0, len(rows), buffer), len(rows)]
    starts = getattr(rows, "shard_starts", in_blocks)
    order = random.permutation(len(starts) - 1)
    dtype = number_type(len(rows))
    spans = [np.arange(starts[shard], starts[shard + 1], dtype=dtype) for shard in order]
    return buffered(np.concatenate(spans), buffer, random)


def number_type(count: int) -> type[np.integer]:
    """For numbers below ``count``: half the memory where that suffices."""
    return np.uint32 if count <= 1 << 32 else np.int64


def permutation(count: int, random: np.random.Generator) -> np.ndarray:
    """What ``random.permutation`` gives, in half its memory."""
    order = np.arange(count, dtype=number_type(count))
    random.shuffle(order)
    return order


def uses_shuffle_buffer(rows: Any, buffer: int | None = None) -> bool:
    """Whether ``row_order`` is that of a shuffle buffer."""
    return buffer > 0 if buffer is not None else hasattr(rows, "shard_starts")


@functools.lru_cache(maxsize=16)  # a few files, the pass that ends and the one that begins
def cached_order(
    rows: Any, seed: Sequence[int], time: int, buffer: int | None = None
) -> np.ndarray:
    """``row_order``, kept for whoever asks for it place by place. Args: seed: a tuple."""
    return row_order(rows, seed, time, buffer)


def buffered(stream: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """What a shuffle buffer gives of a stream. It holds the first ``size`` items; then each item
    of the stream takes the place of a random one, which is given out; at the end the rest comes in
    random order. ``[0, 1, 2, 3], size 2`` -> for example ``[1, 0, 3, 2]``."""
    rest = len(stream) - size
    if rest <= 0:
        return random.permutation(stream)
    slots = random.integers(0, size, rest, dtype=np.uint16 if size <= 1 << 16 else np.int64)
    held, given = stream[:size].copy(), np.empty_like(stream)
    for start in range(0, rest, STRETCH):
        taken = slots[start : start + STRETCH]
        items = stream[size + start : size + start + len(taken)]
        # times at which a slot was given out, slot after slot: first what it held, then the item
        # that had taken its place the time before
        by_slot = np.argsort(taken, kind="stable")
        first = np.append(True, taken[by_slot[1:]] != taken[by_slot[:-1]])
        before = items[np.append(0, by_slot[:-1])]
        given[start + by_slot] = np.where(first, held[taken[by_slot]], before)
        last = by_slot[np.append(first[1:], True)]
        held[taken[last]] = items[last]
    given[rest:] = random.permutation(held)
    return given


class RowBatches(Sequence[np.ndarray]):
    """The batches of an epoch, cut from one array of row numbers when they are asked for. A list of
    arrays takes twenty times the memory, and data workers copy it as they touch it.

    Args: order: [rows]. size: rows of a batch. part_ends: places in the order where a batch ends
        even if it is shorter; the last is that of all rows. numbers: of the batches, all by
        default; those beyond the last are empty.

    >>> [batch.tolist() for batch in RowBatches(np.array([4, 0, 3, 1, 2]), 2)]
    [[4, 0], [3, 1], [2]]
    """

    def __init__(
        self,
        order: np.ndarray,
        size: int,
        part_ends: Sequence[int] | None = None,
        numbers: range | None = None,
    ):
        self.order, self.size = order, size
        self.starts = np.array([0, *([len(order)] if part_ends is None else part_ends)])
        self.first_batches = np.cumsum([0, *(-(-np.diff(self.starts) // size))])
        self.numbers = range(int(self.first_batches[-1])) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            return self._chosen(self.numbers[which])
        number = self.numbers[which]
        rows = self.order[self.rows_before(number) : self.rows_before(number + 1)]
        return rows.astype(np.int64)

    def of_rank(self, rank: int, ranks: int) -> "RowBatches":
        """Every ``ranks``-th batch from ``rank`` on; as many for each rank, some of them empty."""
        return self._chosen(range(rank, -(-len(self) // ranks) * ranks, ranks))

    def rows_before(self, number: int) -> int:
        """Rows of all batches before one."""
        part = int(np.searchsorted(self.first_batches[:-1], number, side="right")) - 1
        place = self.starts[part] + (number - self.first_batches[part]) * self.size
        return int(min(place, self.starts[part + 1]))

    def _chosen(self, numbers: range) -> "RowBatches":
        return RowBatches(self.order, self.size, self.starts[1:].tolist(), numbers)


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
