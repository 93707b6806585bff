"""Ctrl-C and SIGTERM end a training after the update that is being made, with a checkpoint.

All ranks stop after the same update: the request travels with the figures that they add up anyway
(``OFATrainer``).
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """The run was asked to stop and has been saved."""


class Request:
    """What this process knows about being asked to stop."""

    signal_number: int | None = None  # received by this process
    agreed = False  # known to all ranks
    training = False  # before its first update a run has nothing to save
    time = 0.0

    @classmethod
    def receive(cls, number: int, frame) -> None:
        """The signal handler: a second Ctrl-C, later, ends the process at once."""
        name = signal.Signals(number).name
        if not cls.training:
            os.write(2, f"\n{name}: stopping before the first update; nothing to save\n".encode())
            raise SystemExit(0)
        if cls.signal_number is None:
            os.write(2, f"\n{name}: saving after this update, then stopping\n".encode())
            cls.signal_number, cls.time = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() > cls.time + 1:
            raise KeyboardInterrupt

    @classmethod
    def made(cls, alone: bool) -> bool:
        """Whether to stop after this update. Args: alone: the run has one process."""
        return cls.signal_number is not None if alone else cls.agreed

    @classmethod
    @contextmanager
    def awaited(cls) -> Iterator[None]:
        """Inside, the signals are requests. Python allows handlers in the main thread alone."""
        cls.signal_number, cls.agreed, cls.training = None, False, False
        here = threading.current_thread() is threading.main_thread()
        handlers = {number: signal.signal(number, cls.receive) for number in SIGNALS if here}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
