"""The processes of a training: the same result as one process, an end when one of them fails, and
an end on request (Ctrl-C, SIGTERM) after the update that is being made, with a checkpoint."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils
from omegaconf import DictConfig

from ofa.io.folder_lock import LAUNCHER
from ofa.trainer.processes import SIGNALS, status_of

FILLER = "filler"  # key of a batch that only keeps a rank in step with the others
LOST_RANK = (
    "Connection closed by peer",
    "Connection reset by peer",
    "remote process exited",
    "Broken pipe",
)


def mark(sample: Any) -> Any:
    """A batch, or all batches of a step, marked as fillers.

    Ranks that have run out of batches train on a filler, which the task's ``train_step`` counts as
    nothing. fairseq takes all batches of an update for fillers when the last one is
    (``--update-freq 2``, one batch left): their gradients count then and their tokens do not.
    """
    return {**sample, FILLER: True} if isinstance(sample, dict) else tuple(map(mark, sample))


def take_mark(sample: Any) -> tuple[Any, bool]:
    """(the batch as the model knows it, whether it is a filler)."""
    if isinstance(sample, tuple):
        parts, marks = zip(*map(take_mark, sample))
        return parts, any(marks)
    if not isinstance(sample, dict) or FILLER not in sample:
        return sample, False
    return {key: value for key, value in sample.items() if key != FILLER}, True


def of_all_ranks(value: Any) -> list[Any]:
    """The values that all processes give, in their order; each of them has to ask."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


@contextmanager
def without_fairscale(cfg: DictConfig) -> Iterator[None]:
    """Inside, fairseq makes an optimizer that is not divided; it would need fairscale for that."""
    settings = cfg.distributed_training
    wanted, settings.zero_sharding = settings.zero_sharding, "none"
    try:
        yield
    finally:
        settings.zero_sharding = wanted


def own_part(tensor: Any) -> Any:
    """What this process has of a tensor, which a `DTensor` divides; shares its memory."""
    return tensor.to_local().detach() if hasattr(tensor, "to_local") else tensor


def wait_at_most(minutes: float | None) -> None:
    """How long this process waits for another one before it takes it for lost. Args: minutes: None:
    torch's own time, 10 minutes for NCCL and 30 for gloo."""
    if minutes is None or not torch.distributed.is_initialized():
        return
    limit = timedelta(minutes=minutes)
    for group in (None, distributed_utils.get_data_parallel_group()):
        torch.distributed.distributed_c10d._set_pg_timeout(limit, group)


def end_with_launcher() -> None:
    """End when torchrun or the run script was killed, before the next start meets this process."""
    launchers = [os.getppid()] if "TORCHELASTIC_RUN_ID" in os.environ else []
    if os.environ.get(LAUNCHER, "").isdigit():
        launchers.append(int(os.environ[LAUNCHER]))
    if launchers and Path("/proc").exists():
        threading.Thread(target=_watch, args=(launchers,), daemon=True).start()


def _watch(launchers: list[int]) -> None:
    while all(Path(f"/proc/{process}").exists() for process in launchers):
        time.sleep(1)
    message = "the launcher is gone; the same command again continues from the last checkpoint"
    os.write(2, f"error: {message}\n".encode())
    os._exit(1)


def end_after_other_rank(error: BaseException, world_size: int) -> None:
    """One line where this rank only lost another one, whose own message matters."""
    lost = isinstance(error, RuntimeError) and any(words in str(error) for words in LOST_RANK)
    if world_size == 1 or not lost:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(2)  # the failed rank's traceback comes first
    message = "error: another process of this run has ended; its own message tells why"
    print(message, file=sys.stderr, flush=True)
    time.sleep(15)  # torchrun names the process that ended first, and ends this one when it has
    os._exit(1)


class Stopped(Exception):
    """The run was asked to stop and has been saved."""


class Request:
    """What this process knows about being asked to stop. All ranks stop after the same update: the
    request travels with the figures that they add up anyway (``OFATrainer``)."""

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
            raise SystemExit(status_of(number))
        if cls.signal_number is None:
            os.write(2, f"\n{name}: saving after this update, then stopping\n".encode())
            cls.signal_number, cls.time = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() > cls.time + 1:
            raise KeyboardInterrupt

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


def end_data_workers() -> None:
    """End workers that Python would wait for, for ever, where a run ends in mid-epoch. It asks them
    once, and they ignore that. The run is saved, or failed; they may go now."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's takes a missing worker for an accident
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
