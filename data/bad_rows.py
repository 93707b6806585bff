"""``--skip-bad-rows N``: broken rows of a training are replaced, counted and named in the log.

All data workers of a process count together; all processes add up their counts after each epoch.
"""

import hashlib
import logging
import multiprocessing
from collections.abc import Iterable

from ofa.errors import UserError

logger = logging.getLogger(__name__)


class BadRows:
    """The rows that were broken, each counted once. Args: limit: rows to skip before failing."""

    def __init__(self, limit: int = 0):
        if limit < 0:
            raise UserError(f"--skip-bad-rows expects a non-negative number of rows, found {limit}")
        self.limit = limit
        self.remedy = (
            f"and --skip-bad-rows {limit} skips {limit}: fix the files (ofa doctor names every"
            " row), or allow more"
        )
        # in memory that data workers share
        self.seen = multiprocessing.Array("q", limit + 1) if limit else None

    def skip(self, where: str, error: UserError) -> None:
        """Count a broken row. Args: where: ``file:row``. error: what is wrong with it.

        Raises: UserError if it is one too many; ``error`` itself if no row may be broken.
        """
        if self.seen is None:
            raise error
        # the same in every process; 0 stands for a free place
        digest = hashlib.blake2b(where.encode(), digest_size=7).digest()
        name = 1 + int.from_bytes(digest, "little")
        with self.seen.get_lock():
            known = self.names()
            if name in known:
                return
            if len(known) < len(self.seen):
                self.seen[len(known)] = name
        count = len(known) + 1
        if count > self.limit:
            raise UserError(f"{error}; this is broken row {count}, {self.remedy}")
        logger.warning("skipped broken row %d of at most %d: %s", count, self.limit, error)

    def names(self) -> list[int]:
        """Numbers of the rows so far, for checkpoints: a resumed run does not count them again."""
        return [] if self.seen is None else [name for name in self.seen[:] if name]

    def add(self, names: Iterable[int]) -> None:
        """Rows that other processes met. Raises: UserError if all of them together are too many."""
        if self.seen is None:
            return
        with self.seen.get_lock():
            known = self.names()
            every = [*known, *sorted(set(names) - set(known))]
            self.restore(every)
        if len(every) > self.limit:
            met = f"all processes together met {len(every)} broken rows, named above"
            raise UserError(f"{met}, {self.remedy}")

    def restore(self, names: list[int]) -> None:
        """Count rows of a checkpoint. Args: names: as ``names`` gave them, perhaps too many."""
        if self.seen is not None:
            self.seen[: len(names[: self.limit])] = names[: self.limit]
