"""The order of rows in an epoch: a permutation, or what a shuffle buffer over shards would give."""

import numpy as np
import pytest

from ofa.data import rows as rows_module
from ofa.data.rows import DEFAULT_BUFFER, RowBatches, buffered, row_order


class Shards:
    """Stands for ``ShardFile``."""

    def __init__(self, *sizes: int):
        self.shard_starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self.shard_starts[-1])


def simulated(stream: np.ndarray, size: int, random: np.random.Generator) -> list[int]:
    """A shuffle buffer as it is: one item after the other."""
    rest = max(len(stream) - size, 0)
    slots = random.integers(0, size, rest, dtype=np.uint16) if rest else []
    held, given = list(stream[:size]), []
    for slot, item in zip(slots, stream[size:]):
        given.append(held[slot])
        held[slot] = item
    return given + list(random.permutation(held))


@pytest.mark.parametrize(
    "rows, size", [(1000, 7), (1000, 999), (1000, 1000), (5, 10), (100, 1), (1, 1)]
)
def test_the_order_is_that_of_a_buffer_that_is_filled_and_emptied(rows, size):
    stream = np.random.default_rng(3).permutation(rows)
    found = buffered(stream, size, np.random.default_rng(1))
    assert found.tolist() == simulated(stream, size, np.random.default_rng(1))


def test_a_long_stream_is_shuffled_in_stretches_to_the_same_order(monkeypatch):
    stream = np.random.default_rng(3).permutation(1000)
    monkeypatch.setattr(rows_module, "STRETCH", 64)
    found = buffered(stream, 30, np.random.default_rng(1))
    assert found.tolist() == simulated(stream, 30, np.random.default_rng(1))


@pytest.mark.parametrize("ends", [[17], [5, 5, 9, 17], [8, 17]])
def test_batches_are_cut_from_the_order_and_end_where_parts_end(ends):
    order = np.random.default_rng(1).permutation(17).astype(np.uint32)
    expected = [
        order[at : min(at + 4, stop)].tolist()
        for start, stop in zip([0, *ends], ends)
        for at in range(start, stop, 4)
    ]
    batches = RowBatches(order, 4, ends)
    assert [batch.tolist() for batch in batches] == expected and len(batches) == len(expected)
    read = np.cumsum([0, *map(len, expected)]).tolist()
    assert [batches.rows_before(number) for number in range(len(read))] == read
    assert batches.rows_before(len(read) + 5) == 17


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_take_batches_in_turn_and_all_of_them_as_many(ranks):
    order = np.arange(17)
    whole = [batch.tolist() for batch in RowBatches(order, 4)]
    parts = [RowBatches(order, 4).of_rank(rank, ranks) for rank in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    found = [[batch.tolist() for batch in part] for part in parts]
    together = [batch for turn in zip(*found) for batch in turn]
    assert together == whole + [[]] * (len(together) - len(whole))
    assert [batch.tolist() for batch in parts[0][1:]] == found[0][1:]
    assert all(part.order is order for part in parts)  # none copies it


@pytest.mark.parametrize(
    "rows, buffer",
    [
        (Shards(30, 1, 40, 29), 10),
        (Shards(30, 1, 40, 29), None),
        (range(100), 7),
        (range(100), None),
        (Shards(3), 9),
    ],
)
def test_every_row_comes_once_in_an_order_decided_by_seed_and_epoch(rows, buffer):
    orders = [
        row_order(rows, seed, epoch, buffer).tolist()
        for seed, epoch in ((1, 1), (1, 2), (2, 1), (1, 1))
    ]
    assert all(sorted(order) == list(range(len(rows))) for order in orders)
    assert orders[0] == orders[3]
    if len(rows) > 3:
        assert orders[0] != orders[1] != orders[2] != orders[0]


def test_rows_of_a_tsv_stand_in_a_full_permutation_unless_asked_otherwise():
    expected = np.random.default_rng((5, 3)).permutation(500)
    assert (
        row_order(range(500), 5, 3).tolist()
        == expected.tolist()
        == row_order(Shards(250, 250), 5, 3, 0).tolist()
    )


def test_reads_stay_within_a_few_shards():
    shards = Shards(*[1000] * 200)
    order = row_order(shards, 1, 1, 2000) // 1000
    windows = [len(set(order[start : start + 2000])) for start in range(0, len(order), 2000)]
    assert np.mean(windows) < 20  # of 200; in a full permutation all of them
    assert len(set(row_order(shards, 1, 1, 0)[:2000] // 1000)) > 190
    assert DEFAULT_BUFFER >= 1000


def test_shards_come_in_another_order_in_every_epoch_and_neighbors_are_torn_apart():
    shards = Shards(*[100] * 10)
    first = [tuple(row_order(shards, 1, epoch, 50)[:50] // 100) for epoch in range(1, 8)]
    assert len(set(first)) > 3
    steps = np.diff(row_order(shards, 1, 1, 50))
    assert np.mean(steps == 1) < 0.05
