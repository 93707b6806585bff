"""``--skip-bad-rows N``: broken rows of a training are replaced, counted over all of a process's workers, and named in the log."""

import logging
import multiprocessing

from ofa.errors import UserError

logger = logging.getLogger(__name__)


class BadRows:
    """The rows that were broken, each counted once.

    Args: limit: so many are passed over.
    """

    def __init__(self, limit: int = 0):
        if limit < 0:
            raise UserError(f"--skip-bad-rows expects a number of rows from 0 on, found {limit}")
        self.limit = limit
        self.seen = multiprocessing.Array("q", limit + 1) if limit else None  # in memory that data workers share

    def pass_over(self, file: int, row: int, error: UserError) -> None:
        """Args: file: number of the file. row: number in it. Raises: UserError, the given one if no row may be broken."""
        if self.seen is None:
            raise error
        name = (file << 48 | row) + 1  # 0 stands for a free place
        with self.seen.get_lock():
            known = self.seen[:]
            count = known.index(0) if 0 in known else len(known)
            if name in known:
                return
            if count < len(known):
                self.seen[count] = name
        if count >= self.limit:
            raise UserError(f"{error}; this is broken row {count + 1}, and --skip-bad-rows {self.limit} passes over {self.limit}: mend the "
                            "files (ofa doctor names every row), or allow more")
        logger.warning("skipped broken row %d of at most %d: %s", count + 1, self.limit, error)
