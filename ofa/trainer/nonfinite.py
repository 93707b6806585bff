"""A loss or gradient that is not finite ends the run with the update, the rank and the samples,
also in a file.

With a loss scaler (``--fp16``, ``--amp``) such an update is skipped, as ever; it is only reported.
So is such a loss of a validation, which spoils a figure and not the weights.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa.errors import UserError
from ofa.io.atomic import replacing

logger = logging.getLogger(__name__)

SHOWN = 8  # sample ids in a message; the file has all


class NonFiniteLoss(ArithmeticError):
    """Raised by ``look_at_losses``; ``report_non_finite`` makes a ``UserError`` of it. It is no
    ``FloatingPointError``, after which fairseq makes the update again to find the layer.

    Attributes:
        skipped: those of this update under a loss scaler, or of this batch of a validation.
        unseen: losses float[] of this update, their batches and whether they may be skipped. To
            look at one makes the host wait for the GPU: all are looked at together. None: outside
            of ``report_non_finite``, where each is looked at.
    """

    skipped: list["NonFiniteLoss"] = []
    unseen: list[tuple[Tensor, Any, bool]] | None = None

    def __init__(self, loss: Tensor, sample: Any):
        super().__init__(f"found the loss {loss.item()}")
        self.samples = [sample]


def check_loss(loss: Any, sample: Any, skips: bool) -> None:
    """Called with the loss of every batch, before its gradient. Args: skips: there is a loss
    scaler, or it is a validation. Raises: NonFiniteLoss otherwise, if nobody looks later."""
    seen = torch.as_tensor(loss).detach().sum().float(), sample, skips
    if NonFiniteLoss.unseen is None:
        raise_or_skip([seen])
    else:
        NonFiniteLoss.unseen.append(seen)


def look_at_losses() -> None:
    """Once per update, before the weights change. Raises: NonFiniteLoss."""
    losses = NonFiniteLoss.unseen or []
    NonFiniteLoss.unseen = []
    if losses and not bool(torch.stack([loss for loss, *_ in losses]).isfinite().all()):
        raise_or_skip(losses)


def raise_or_skip(losses: Iterable[tuple[Tensor, Any, bool]]) -> None:
    for loss, sample, skips in losses:
        if not bool(loss.isfinite()):
            error = NonFiniteLoss(loss, sample)
            if not skips:
                raise error
            NonFiniteLoss.skipped.append(error)


@contextmanager
def report_non_finite(trainer, samples: Iterable | None = None) -> Iterator[None]:
    """Inside, an update is made or a batch validated: a floating-point error tells where it comes
    from. Args: samples: the batches of the update; None: a validation. Raises: UserError, unless
    a loss scaler skips the update; a validation only warns."""
    trains = samples is not None
    update = trainer.get_num_updates() + trains  # the first is 1
    NonFiniteLoss.skipped.clear()
    unseen_before, NonFiniteLoss.unseen = NonFiniteLoss.unseen, []
    try:
        yield
        look_at_losses()
    except (FloatingPointError, NonFiniteLoss) as error:
        if samples is None:
            raise
        raise UserError(
            f"{describe(error, trainer, update, samples)} Lower --lr, set --clip-norm, or look at"
            " these rows of the training file; the checkpoints before it are whole"
        ) from error
    finally:
        NonFiniteLoss.unseen = unseen_before
    for skipped in NonFiniteLoss.skipped:
        report = describe(skipped, trainer, update, kind="" if trains else "validation_")
        if trains:
            logger.warning("%s The loss scaler takes care of it", report)
        else:
            consequence = "The loss of this validation is NaN or inf; look at these rows"
            logger.warning("validation after %s %s", report, consequence)


def describe(
    error: ArithmeticError, trainer, update: int, samples: Iterable = (), kind: str = ""
) -> str:
    """What happened, in one sentence; all of it goes into a file of the run's folder."""
    rank, folder = trainer.data_parallel_rank, trainer.cfg.checkpoint.save_dir
    ids = list(map(str, sample_ids(getattr(error, "samples", list(samples)))))
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
    if isinstance(sample, (list, tuple)):
        return [name for part in sample for name in sample_ids(part)]
    ids = sample.get("id") if isinstance(sample, Mapping) else None
    if ids is None:
        return []
    return [name.item() if isinstance(name, Tensor) else name for name in ids]
