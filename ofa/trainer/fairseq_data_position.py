"""A run goes on at the same row of its data with another number of processes or another batch size.

fairseq saves how many batches this process has read. Here the rows that all processes have read are
saved as well; a resumed run takes up the first batch that has a row not read before.
"""

import functools
import logging
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

logger = logging.getLogger(__name__)

ROWS = "rows_in_epoch"


def install() -> None:
    """Called once, when the plugin registers."""
    EpochBatchIterator.state_dict = save_rows(EpochBatchIterator.state_dict)
    EpochBatchIterator.load_state_dict = load_rows(EpochBatchIterator.load_state_dict)


def rows_read(iterator: EpochBatchIterator) -> list[int]:
    """Rows that all processes together have read after 0, 1, 2, ... batches each."""
    batches, shards = iterator.frozen_batches, iterator.num_shards
    steps = [
        sum(map(len, batches[start : start + shards])) for start in range(0, len(batches), shards)
    ]
    return [0, *accumulate(steps)]


def save_rows(state_dict: Callable) -> Callable:
    @functools.wraps(state_dict)
    def wrapped(self) -> dict[str, Any]:
        state = state_dict(self)
        if (
            self.disable_shuffling and state["iterations_in_epoch"]
        ):  # the order of rows does not depend on batches then
            state[ROWS] = rows_read(self)[state["iterations_in_epoch"]]
        return state

    return wrapped


def load_rows(load_state_dict: Callable) -> Callable:
    @functools.wraps(load_state_dict)
    def wrapped(self, state: dict[str, Any]) -> None:
        if self.disable_shuffling and ROWS in state:
            read = rows_read(self)
            batches = max(number for number, rows in enumerate(read) if rows <= state[ROWS])
            batches = min(
                batches, len(read) - 2
            )  # of shorter data than before the last batch is left
            if batches != state["iterations_in_epoch"]:
                logger.info(
                    "%d rows of epoch %d are read: going on with batch %d of each process, %d rows"
                    " again",
                    state[ROWS],
                    state["epoch"],
                    batches + 1,
                    state[ROWS] - read[batches],
                )
            state = {**state, "iterations_in_epoch": batches}
        load_state_dict(self, state)

    return wrapped
