"""``--lr-scheduler polynomial_decay`` with ``--warmup-ratio``: the length of the warm-up as a share
of the training.

The ratio needs the total number of updates, which only the trainer knows, once it has counted the
batches of an epoch.
"""

import copy
import logging
import math
from dataclasses import dataclass

from fairseq.optim.lr_scheduler import (
    LR_SCHEDULER_DATACLASS_REGISTRY,
    LR_SCHEDULER_REGISTRY,
    FairseqLRScheduler,
    register_lr_scheduler,
)
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
    PolynomialDecayLRSchedule,
    PolynomialDecayLRScheduleConfig,
)
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule

from ofa.errors import UserError
from ofa.io.flags import option

logger = logging.getLogger(__name__)
NAME = "polynomial_decay"
PLATEAU_COUNTS = ("best", "last_epoch", "num_bad_epochs", "cooldown_counter")


@dataclass
class WarmupRatioConfig(PolynomialDecayLRScheduleConfig):
    warmup_ratio: float = option(
        0.0, "warm up during this share of all updates, instead of --warmup-updates"
    )
    total_num_update: float = option(
        1_000_000, "updates over which the learning rate decays, without --warmup-ratio"
    )


class WarmupRatioSchedule(PolynomialDecayLRSchedule):
    """fairseq's polynomial decay, whose warm-up and end follow from the length of the training."""

    def __init__(self, cfg, optimizer):
        if not 0 <= cfg.warmup_ratio <= 1:
            raise UserError(f"--warmup-ratio is a share in [0, 1], found {cfg.warmup_ratio}")
        if cfg.total_num_update <= 0:
            raise UserError(f"--total-num-update has to be positive, found {cfg.total_num_update}")
        # reinit changes warmup_updates; the caller's config stays
        super().__init__(copy.copy(cfg), optimizer)
        self.total_num_update: int = cfg.total_num_update
        self.knows_total = False
        # epoch after --force-anneal, and the rate that it began with
        self.annealed: dict | None = None

    def step_begin_epoch(self, epoch: int) -> float:
        """From ``--force-anneal`` on an epoch decays from the rate at its beginning, which a
        resumed one cannot see."""
        if self.annealed and self.annealed["epoch"] == epoch:
            self.lr = self.annealed["lr"]
            return self.optimizer.get_lr()
        lr = super().step_begin_epoch(epoch)
        if self.cfg.force_anneal is not None and epoch >= self.cfg.force_anneal:
            self.annealed = {"epoch": epoch, "lr": self.lr}
        return lr

    def state_dict(self) -> dict:
        return {**super().state_dict(), "annealed": self.annealed, "lr": self.lr}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.annealed = state.get("annealed")
        if self.cfg.force_anneal is not None:  # otherwise --lr alone decides
            self.lr = state.get("lr", self.lr)

    def reinit(self, total_num_update: int, num_updates: int) -> None:
        """Take the number of updates of the whole training, and of those that are done."""
        self.knows_total = True
        if self.cfg.warmup_ratio == 0:
            if self.total_num_update > 10 * total_num_update:
                logger.warning(
                    "the learning rate decays over %d updates but training ends after %d: it stays"
                    " almost constant. Give --total-num-update %d or --warmup-ratio.",
                    self.total_num_update,
                    total_num_update,
                    total_num_update,
                )
            return
        self.total_num_update = total_num_update
        self.cfg.warmup_updates = warmup = int(total_num_update * self.cfg.warmup_ratio)
        logger.info("learning rate: %d updates, %d of them warm-up", total_num_update, warmup)
        self.warmup_factor = min(1.0, max(num_updates, 1) / max(warmup, 1))
        if num_updates > 0:
            self.step_update(num_updates)
        else:
            self.optimizer.set_lr(self.warmup_factor * self.lr)


def count_updates(batches: int, optimization) -> float:
    """Updates of a whole training; infinity when neither epochs nor updates are limited.

    Args: batches: of one epoch and one process. optimization: fairseq's options; the last entry of
    ``update_freq`` is that of all further epochs.
    """
    rounded = math.floor if optimization.skip_remainder_batch else math.ceil
    per_epoch = [rounded(batches / frequency) for frequency in optimization.update_freq]
    epochs = optimization.max_epoch or math.inf
    listed = int(min(epochs, len(per_epoch) - 1))
    updates = math.inf
    if per_epoch[-1]:
        updates = sum(per_epoch[:listed]) + (epochs - listed) * per_epoch[-1]
    return min(updates, optimization.max_update or math.inf)


def replace_polynomial_decay(stock: type) -> type:
    """Upstream's ``--warmup-ratio`` is a flag of a scheduler that fairseq has without it."""
    del LR_SCHEDULER_REGISTRY[NAME], LR_SCHEDULER_DATACLASS_REGISTRY[NAME]
    return register_lr_scheduler(NAME, dataclass=WarmupRatioConfig)(WarmupRatioSchedule)


def tell_total(scheduler: FairseqLRScheduler, batches: int, optimization, num_updates: int) -> None:
    """Tell a schedule that follows from the length of the training this length, once. Args:
    batches, optimization: as of ``count_updates``. num_updates: made so far."""
    if isinstance(scheduler, WarmupRatioSchedule) and not scheduler.knows_total:
        total = count_updates(batches, optimization)
        scheduler.reinit(
            scheduler.total_num_update if total == math.inf else int(total), num_updates
        )


class ExactPlateauSchedule(ReduceLROnPlateauLRSchedule):
    """``reduce_lr_on_plateau`` that saves all it counts, not ``best`` and ``last_epoch`` alone."""

    def state_dict(self) -> dict:
        return {name: getattr(self.lr_scheduler, name) for name in PLATEAU_COUNTS}

    def load_state_dict(self, state: dict) -> None:
        for name in PLATEAU_COUNTS:
            if name in state:
                setattr(self.lr_scheduler, name, state[name])
