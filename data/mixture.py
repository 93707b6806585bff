"""Which row of which task a sample of a joint training is: a function of (seed, epoch, index),
nothing else.

Every task goes through its own rows, in a new order each time, and continues in the next epoch
where it stopped in this one. With a weight of 0.5 an epoch shows half of its rows, and the next
epoch the other half.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ofa.data.shard_order import cached_order, uses_shuffle_buffer


class Mixture:
    """Several files of rows as one.

    Samples are numbered task by task: of three tasks with 2, 3 and 1 samples an epoch, index 0 and
    1 belong to the first, 2 to 4 to the second. The order in which they are asked for is ``order``.

    Args:
        files: the rows of each task.
        weights: how often a task's rows are shown in an epoch, on average; above 0.
        shuffle: rows and tasks in a new order in every epoch; otherwise rows as in their files,
            tasks evenly spread.
        buffer: as ``ofa.data.shard_order.row_order`` takes it.
    """

    def __init__(
        self,
        files: Sequence[Any],
        weights: Sequence[float],
        shuffle: bool = True,
        seed: int = 1,
        buffer: int | None = None,
    ):
        self.files, self.buffer = tuple(files), buffer
        self.rows = tuple(map(len, files))
        self.counts = tuple(
            max(1, round(weight * number)) for weight, number in zip(weights, self.rows)
        )
        # index of each task's first sample, and their total
        self.starts = np.cumsum([0, *self.counts])
        self.shuffle = shuffle
        self.seed = seed

    def __len__(self) -> int:
        """Samples of an epoch."""
        return int(self.starts[-1])

    def locate(self, index: int, epoch: int) -> tuple[int, int]:
        """Number of the task, number of its row."""
        task = int(np.searchsorted(self.starts, index, side="right")) - 1
        shown_before = (epoch - 1) * self.counts[task] + int(index - self.starts[task])
        time, place = divmod(shown_before, self.rows[task])
        return task, (
            int(cached_order(self.files[task], (self.seed, task), time, self.buffer)[place])
            if self.shuffle
            else place
        )

    def order(self, epoch: int) -> np.ndarray:
        """int64[samples]: every index once, in the order of the epoch."""
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self))
            for task, file in enumerate(self.files):  # rows that are read near one another stay so
                if uses_shuffle_buffer(file, self.buffer):
                    start, stop = self.starts[task : task + 2]
                    order[(order >= start) & (order < stop)] = np.arange(start, stop)
            return order
        progress = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
        return np.argsort(progress, kind="stable")
