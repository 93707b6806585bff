"""Which row of which task a sample of a joint training is: a function of (seed, epoch, index), nothing else.

Every task goes through its own rows, in a new order each time, and goes on in the next epoch where it stopped in
this one. With a weight of 0.5 an epoch shows half of its rows, and the next epoch the other half.
"""

import functools
from collections.abc import Sequence

import numpy as np


class Mixture:
    """Several files of rows as one.

    Samples are numbered task by task: of three tasks with 2, 3 and 1 samples an epoch, index 0 and 1 belong to the
    first, 2 to 4 to the second. The order in which they are asked for is ``order``.

    Args:
        rows: number of rows of each task.
        weights: how often a task's rows are shown in an epoch, on average; above 0.
        shuffle: rows and tasks in a new order in every epoch; otherwise rows as in their files, tasks evenly spread.
    """

    def __init__(self, rows: Sequence[int], weights: Sequence[float], shuffle: bool = True, seed: int = 1):
        self.rows = tuple(rows)
        self.counts = tuple(max(1, round(weight * number)) for weight, number in zip(weights, rows))
        self.starts = np.cumsum([0, *self.counts])  # index of each task's first sample, and their total
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
        return task, int(permutation(self.seed, task, time, self.rows[task])[place]) if self.shuffle else place

    def order(self, epoch: int) -> np.ndarray:
        """int64[samples]: every index once, in the order of the epoch."""
        if self.shuffle:
            return np.random.default_rng((self.seed, epoch)).permutation(len(self))
        progress = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
        return np.argsort(progress, kind="stable")


@functools.lru_cache(maxsize=16)  # a few tasks, the pass through the rows that ends and the one that begins
def permutation(seed: int, task: int, time: int, rows: int) -> np.ndarray:
    """The order of a task's rows when they are shown for the given time."""
    return np.random.default_rng((seed, task, time)).permutation(rows)
