"""Updates and a validation batch of a real training, by fairseq's trainer, on the pretend GPU."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from fairseq_setup import configuration
from pretend_gpu import PretendGPU, host, pretend_cuda

SIZES = (  # a smaller network than ofa_nano
    "--encoder-layers=1 --decoder-layers=1 --encoder-embed-dim=16 --decoder-embed-dim=16"
    " --encoder-ffn-embed-dim=16 --decoder-ffn-embed-dim=16 --encoder-attention-heads=2"
    " --decoder-attention-heads=2 --token-bucket-size=16"
).split()


@dataclass
class Counts:
    """What the GPU saw of an update or a validation batch."""

    waits: Counter[str]
    own_waits: Counter[str]
    mixed: Counter[str]
    operators: Counter[str]
    log: dict


def counts_of(gpu: PretendGPU, log: dict | None) -> Counts:
    counters = gpu.waits, gpu.own_waits, gpu.mixed, gpu.operators
    return Counts(*map(Counter, counters), log or {})


def train(monkeypatch, folder: Path, flags: list[str], updates: int = 2, validates: bool = False):
    """Args: updates: how many; what the first ones make once does not count, the last does.
    validates: a batch of the validation file, too. Returns: the counts of the last update, and of
    the validation batch or None."""
    from fairseq import tasks
    from fairseq.data.iterators import GroupedIterator

    from ofa.trainer.fairseq_trainer import OFATrainer

    cfg = configuration([*flags, *SIZES, f"--save-dir={folder}"])
    logging.disable(logging.INFO)
    try:
        with PretendGPU() as gpu:
            pretend_cuda(monkeypatch, gpu)
            task = tasks.setup_task(cfg.task)
            task.load_dataset("train")
            torch.manual_seed(0)
            trainer = OFATrainer(
                cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)
            )
            batches = trainer.get_train_iterator(epoch=1).next_epoch_itr(shuffle=False)
            trainer.begin_epoch(1)
            every = iter(GroupedIterator(batches, cfg.optimization.update_freq[0]))
            for _ in range(updates):
                samples = next(every)
                gpu.reset()
                log = trainer.train_step(samples)
            updated = counts_of(gpu, log)
            assert all(host(p).isfinite().all() for p in trainer.model.parameters())
            if not validates:
                return updated, None
            task.load_dataset("valid")
            batch = next(trainer.get_valid_iterator("valid").next_epoch_itr(shuffle=False))
            trainer.begin_valid_epoch(1)
            gpu.reset()
            log = trainer.valid_step(batch)
            return updated, counts_of(gpu, log)
    finally:
        logging.disable(logging.NOTSET)
