"""Short trainings on several processes, without the start of a program for each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks


def on_rank(cfg: Any, ranks: int, rank: int) -> Any:
    """A configuration in one of the processes."""
    cfg.distributed_training.distributed_world_size = ranks
    cfg.distributed_training.distributed_rank = rank
    return cfg


def trainer_of(cfg: Any) -> Any:
    """The trainer of a configuration, its training file loaded; its first weights are always the
    same."""
    import torch
    from fairseq import tasks

    from ofa.trainer.fairseq_trainer import OFATrainer

    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    return OFATrainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion))


def run_ranks(work: Callable, given: Any, ranks: int, folder: Path) -> Any:
    """What the first of ``work(given, ranks, rank, folder)`` returns, which run together and are
    connected. Args: work: of a test module; returns what JSON has."""
    meeting, out = folder / f"meeting{ranks}", folder / f"found{ranks}.json"
    processes = [
        forks.start(_run, (work, given, ranks, rank, folder, meeting, out)) for rank in range(ranks)
    ]
    try:
        assert [process.wait(400) for process in processes] == [0] * ranks
    finally:
        for process in processes:
            process.kill()
    return json.loads(out.read_text())


def _run(work, given, ranks: int, rank: int, folder: Path, meeting: Path, out: Path) -> None:
    import torch

    if ranks > 1:
        how = {"init_method": f"file://{meeting}", "world_size": ranks, "rank": rank}
        torch.distributed.init_process_group("gloo", **how)
    found = work(given, ranks, rank, folder)
    if rank == 0:
        out.write_text(json.dumps(found))
