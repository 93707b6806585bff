"""Work on several processes of this machine: its cores, their number as an option, and how they
start."""

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ofa.io.flags import option
from ofa.process_state import silence_known_warnings

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 256  # items below which starting further processes costs more than it brings
WINDOW = 256  # items handed to the processes at a time, so that results do not pile up
# limits of a container: microseconds in a period of others; bytes
QUOTA, MEMORY_LIMIT = Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/memory.max")


def count_cores() -> int:
    """Processor cores that this process may use, in a container with a limit at most that many.
    macOS cannot bind it to some."""
    bound = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    try:
        quota, period = map(int, QUOTA.read_text().split())
    except (OSError, ValueError):  # "max" is no limit
        return cores
    return min(cores, max(math.ceil(quota / period), 1))


def memory_size() -> int:
    """Bytes of the memory that this process may use: the machine's, or a container's limit."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(whole, int(MEMORY_LIMIT.read_text()))
    except (OSError, ValueError):  # "max" is no limit
        return whole


def count_threads() -> int:
    """Cores that torch will use: as nproc, which obeys OMP_NUM_THREADS. A list in it is the
    threads of nested regions; the first number counts."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else count_cores()


@dataclass(frozen=True, kw_only=True)
class JobsOptions:
    """Processes on this machine."""

    TITLE = "machine"

    jobs: int = option(
        min(8, count_cores()), "processes on this machine", least=1, also=("--processes",)
    )


def map_by_jobs(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    few: int = FEW,
    chunk: int = 16,
) -> Iterator[Result]:
    """``work`` of each item in order, by several processes when it pays: from ``few`` items on, of
    which a process gets ``chunk`` at a time."""
    if jobs <= 1 or len(items) < few:
        yield from map(work, items)
        return
    processes = min(jobs, len(items))
    with multiprocessing.get_context("spawn").Pool(processes, silence_known_warnings) as pool:
        for start in range(0, len(items), WINDOW):
            yield from pool.imap(work, items[start : start + WINDOW], chunk)
