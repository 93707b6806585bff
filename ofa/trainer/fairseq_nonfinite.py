"""A loss or gradient that is not finite ends the run with the update, the rank and the samples,
also in a file.

With a loss scaler (``--fp16``, ``--amp``) such an update is skipped, as ever; it is reported
without ending the run. So is such a loss of a validation, which spoils a figure and not the
weights.
"""

import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.tasks import FairseqTask
from fairseq.trainer import Trainer
from torch import Tensor

from ofa.errors import UserError
from ofa.io.atomic import replacing

logger = logging.getLogger(__name__)

SHOWN = 8  # sample ids in a message; the file has all


def install() -> None:
    """Called once, when the plugin registers."""
    Trainer.train_step = report_non_finite(Trainer.train_step)
    FairseqTask.valid_step = remember_non_finite(FairseqTask.valid_step)
    Trainer.valid_step = warn_of_non_finite(Trainer.valid_step)


class NonFiniteLoss(FloatingPointError):
    """Raised by ``check_loss``; ``report_non_finite`` makes a ``UserError`` of it."""

    skipped: list[
        "NonFiniteLoss"
    ] = []  # of this update under a loss scaler, or of this batch of a validation

    def __init__(self, value: float, sample: Any):
        super().__init__(f"found the loss {value}")
        self.samples = [sample]


def check_loss(loss: Tensor, sample: Any, optimizer: Any) -> None:
    """Called with the loss of every batch. Raises: NonFiniteLoss, unless a loss scaler will skip
    the update."""
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
            return describe(
                error, update, self.data_parallel_rank, samples, self.cfg.checkpoint.save_dir
            )

        NonFiniteLoss.skipped.clear()
        try:
            result = train_step(self, samples, raise_oom)
        except FloatingPointError as error:
            raise UserError(
                f"{report(error)} Lower --lr, set --clip-norm, or look at these rows of the"
                " training file; the checkpoints before it are whole"
            ) from error
        for error in NonFiniteLoss.skipped:
            logger.warning("%s The loss scaler takes care of it", report(error))
        return result

    return wrapped


def remember_non_finite(valid_step: Callable) -> Callable:
    """``FairseqTask.valid_step``, which sees the loss of this rank's batch."""

    @functools.wraps(valid_step)
    def wrapped(self, sample, model, criterion):
        found = valid_step(self, sample, model, criterion)
        if not bool(torch.isfinite(torch.as_tensor(found[0])).all()):
            NonFiniteLoss.skipped.append(
                NonFiniteLoss(float(torch.as_tensor(found[0]).sum()), sample)
            )
        return found

    return wrapped


def warn_of_non_finite(valid_step: Callable) -> Callable:
    """``Trainer.valid_step``, which knows the update and the rank."""

    @functools.wraps(valid_step)
    def wrapped(self, sample, raise_oom=False):
        NonFiniteLoss.skipped.clear()
        result = valid_step(self, sample, raise_oom)
        for error in NonFiniteLoss.skipped:
            text = describe(
                error,
                self.get_num_updates(),
                self.data_parallel_rank,
                [],
                self.cfg.checkpoint.save_dir,
                "validation_",
            )
            logger.warning(
                "validation after %s The loss of this validation is no number; look at these rows",
                text,
            )
        return result

    return wrapped


def describe(
    error: FloatingPointError,
    update: int,
    rank: int,
    samples: Iterable,
    folder: str,
    kind: str = "",
) -> str:
    """What happened, in one sentence; all of it goes into a file of the run's folder."""
    ids = [
        str(name) for sample in getattr(error, "samples", samples) for name in sample_ids(sample)
    ]
    path = Path(folder) / f"nonfinite_{kind}update{update}_rank{rank}.json"
    facts = {"update": update, "rank": rank, "problem": str(error), "samples": ids}
    try:
        with replacing(path) as file:
            json.dump(facts, file, indent=1, ensure_ascii=False)
        place = str(path)
    except OSError as failure:
        place = f"nowhere: {failure}"
    some = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
    return (
        f"update {update}, rank {rank}: expected finite numbers, {error}, in samples {some}"
        f" (written to {place})."
    )


def sample_ids(sample: Any) -> list:
    """Ids of a batch, or of each batch of a pretraining step."""
    if isinstance(sample, (list, tuple)):
        return [name for part in sample for name in sample_ids(part)]
    ids = sample.get("id") if isinstance(sample, Mapping) else None
    return (
        [] if ids is None else [name.item() if isinstance(name, Tensor) else name for name in ids]
    )
