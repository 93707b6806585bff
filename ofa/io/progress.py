"""Progress of long work, with the time left: a bar on a terminal, or lines in a log file."""

import logging
import time
from collections.abc import Iterable, Iterator

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts work done; a context manager.

    Args: total: units, ``initial`` of which are done. what: named in front. unit: e.g. ``img``.
    scaled: large numbers are shown as 1.2M.
    """

    def __init__(self, total: int, what: str, unit: str, initial: int = 0, scaled: bool = False):
        from tqdm import tqdm  # a tenth of a second, which is waited for where there is long work

        self.total, self.what, self.unit = total, what, unit
        self.initial = self.done = initial
        self.shown = tqdm.format_sizeof if scaled else "{:.0f}".format
        # None: off without a terminal
        self.bar = tqdm(
            total=total, initial=initial, desc=what, unit=unit, unit_scale=scaled, disable=None
        )
        self.started = self.reported = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, count: int = 1) -> None:
        """``count`` more units are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.bar.disable and now - self.reported >= SECONDS_BETWEEN_LINES:
            self.reported = now
            logger.info(self.line(now - self.started))

    def line(self, seconds: float) -> str:
        """``vqa_train.tsv: 1200 of 4000 img, 300 img/s, 9 s left`` after that time."""
        rate = (self.done - self.initial) / max(seconds, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        done, total, speed = map(self.shown, (self.done, self.total, rate))
        return (
            f"{self.what}: {done} of {total} {self.unit}, {speed} {self.unit}/s, {left:.0f} s left"
        )


def counted(items: Iterable, total: int, what: str, unit: str) -> Iterator:
    """The items, with progress."""
    with Progress(total, what, unit) as progress:
        for item in items:
            yield item
            progress.update()
