"""The order of rows in an epoch: a permutation, or what a shuffle buffer over shards would give."""

import numpy as np
import pytest

from ofa.data.rows import DEFAULT_BUFFER, buffered, row_order


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
