"""A loss or gradient that is not finite ends the run with the update, the rank and the samples, also in a file.

With a loss scaler (``--fp16``, ``--amp``) such an update is skipped, as ever; it is reported without ending the run.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.trainer import Trainer
from torch import Tensor

from ofa.errors import UserError

logger = logging.getLogger(__name__)

SHOWN = 8  # sample ids in a message; the file has all


def install() -> None:
    """Called once, when the plugin registers."""
    Trainer.train_step = report_non_finite(Trainer.train_step)


class NonFiniteLoss(FloatingPointError):
    """Raised by ``check_loss``; ``report_non_finite`` makes a ``UserError`` of it."""

    skipped: list["NonFiniteLoss"] = []  # of this update, under a loss scaler

    def __init__(self, value: float, sample: Any):
        super().__init__(f"found the loss {value}")
        self.samples = [sample]


def check_loss(loss: Tensor, sample: Any, optimizer: Any) -> None:
    """Called with the loss of every batch. Raises: NonFiniteLoss, unless a loss scaler will skip the update."""
    if bool(torch.isfinite(loss).all()):
        return
    error = NonFiniteLoss(loss.detach().sum().item(), sample)
    if getattr(optimizer, "scaler", None) is None:
        raise error
    NonFiniteLoss.skipped.append(error)


def report_non_finite(train_step: Callable) -> Callable:
    """``Trainer.train_step`` whose floating-point errors tell where they come from."""

    @functools.wraps(train_step)
    def wrapped(self, samples, raise_oom=False):
        update = self.get_num_updates() + 1  # the first is 1

        def report(error: FloatingPointError) -> str:
            return describe(error, update, self.data_parallel_rank, samples, self.cfg.checkpoint.save_dir)

        NonFiniteLoss.skipped.clear()
        try:
            result = train_step(self, samples, raise_oom)
        except FloatingPointError as error:
            raise UserError(
                f"{report(error)} Lower --lr, set --clip-norm, or look at these rows of the training file; the "
                "checkpoints before it are whole"
            ) from error
        for error in NonFiniteLoss.skipped:
            logger.warning("%s The loss scaler takes care of it", report(error))
        return result

    return wrapped


def describe(error: FloatingPointError, update: int, rank: int, samples: Iterable, folder: str) -> str:
    """What happened, in one sentence; all of it goes into a file of the run's folder."""
    ids = [str(name) for sample in getattr(error, "samples", samples) for name in sample_ids(sample)]
    path = Path(folder) / f"nonfinite_update{update}_rank{rank}.json"
    facts = {"update": update, "rank": rank, "problem": str(error), "samples": ids}
    try:
        path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        place = str(path)
    except OSError as failure:
        place = f"nowhere: {failure}"
    some = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
    return f"update {update}, rank {rank}: expected finite numbers, {error}, in samples {some} (written to {place})."


def sample_ids(sample: Any) -> list:
    """Ids of a batch, or of each batch of a pretraining step."""
    if isinstance(sample, (list, tuple)):
        return [name for part in sample for name in sample_ids(part)]
    ids = sample.get("id") if isinstance(sample, Mapping) else None
    return [] if ids is None else [name.item() if isinstance(name, Tensor) else name for name in ids]
