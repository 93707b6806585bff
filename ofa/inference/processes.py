"""One function in several processes of this machine, the first of which is this one; and what
each of them found."""

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed

from ofa.errors import UserError
from ofa.failures import message_of


def in_processes(count: int, function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function(*args, rank, count)`` in every process; if one fails, all end. Returns:
    what the first one returns."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    threads = torch.get_num_threads()
    context = torch.multiprocessing.spawn(
        _other, (count, address, function, args), nprocs=count - 1, join=False
    )
    try:
        _join_group(address, 0, count)
        result = in_one_line(function, *args, 0, count)
    except BaseException as error:
        failed = [p for p in context.processes if p.exitcode not in (None, 0)]
        for process in context.processes:
            process.terminate()
        if failed and not isinstance(error, UserError):
            in_one_line(context.join)  # raises what the other process raised
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        torch.set_num_threads(threads)
    while not context.join():
        pass
    return result


def _other(index: int, count: int, address: str, function: Callable[..., Any], args: tuple) -> None:
    logging.basicConfig(level=logging.WARNING)
    _join_group(address, index + 1, count)
    function(*args, index + 1, count)
    distributed.destroy_process_group()


def _join_group(address: str, rank: int, count: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=count)


def in_one_line(function: Callable[..., Any], *args: Any) -> Any:
    """Call; a UserError that comes wrapped in a worker's traceback is raised as itself."""
    try:
        return function(*args)
    except UserError as error:
        wrapped: BaseException = error
    except (RuntimeError, torch.multiprocessing.ProcessRaisedException) as error:
        wrapped = error
    message = message_of(wrapped)
    if message is None:
        raise wrapped
    raise UserError(message) from None


def gathered(found: list, rank: int, world: int) -> list[list]:
    """What each process found, on the first one."""
    if world == 1:
        return [found]
    parts: Any = [None] * world if rank == 0 else None
    distributed.gather_object(found, parts)
    return parts
