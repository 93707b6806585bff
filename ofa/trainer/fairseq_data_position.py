"""A run resumes at the same row of its data with another number of processes or another batch size.

fairseq saves how many batches this process has read. Here the rows that all processes have read are
saved as well; a resumed run takes up the first batch that has a row not read before.
"""

import logging
from itertools import accumulate
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

logger = logging.getLogger(__name__)

ROWS = "rows_in_epoch"


class RowIterator(EpochBatchIterator):
    """fairseq's iterator over batches cut from rows in a fixed order, which counts these rows."""

    def rows_read(self) -> list[int]:
        """Rows that all processes together have read after 0, 1, 2, ... batches each."""
        batches, shards = self.frozen_batches, self.num_shards
        starts = range(0, len(batches), shards)
        return [0, *accumulate(sum(map(len, batches[start : start + shards])) for start in starts)]

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if state["iterations_in_epoch"]:
            state[ROWS] = self.rows_read()[state["iterations_in_epoch"]]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if ROWS in state:
            read = self.rows_read()
            batches = max(number for number, rows in enumerate(read) if rows <= state[ROWS])
            batches = min(batches, len(read) - 2)  # of shorter data than before the last is left
            if batches != state["iterations_in_epoch"]:
                done, again = state[ROWS], state[ROWS] - read[batches]
                where = f"batch {batches + 1} of each process, {again} rows again"
                epoch = state["epoch"]
                logger.info("%d rows of epoch %d are read: resuming with %s", done, epoch, where)
            state = {**state, "iterations_in_epoch": batches}
        super().load_state_dict(state)
