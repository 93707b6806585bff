"""The state of an optimizer on another machine or of upstream's trainer (OFA-Sys/OFA), and the
learning rate: ``polynomial_decay`` with ``--warmup-ratio``, and a plateau that saves all it
counts."""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer, lr_scheduler
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
    PolynomialDecayLRSchedule,
    PolynomialDecayLRScheduleConfig,
)
from fairseq.optim.lr_scheduler.reduce_lr_on_plateau import ReduceLROnPlateauLRSchedule
from torch import Tensor

from ofa.errors import UserError
from ofa.io.flags import option

logger = logging.getLogger(__name__)
NAME = "polynomial_decay"
PLATEAU_COUNTS = ("best", "last_epoch", "num_bad_epochs", "cooldown_counter")
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
REMEDY = "train with the flags of that run, or start the optimizer anew by --reset-optimizer"


# --- stored states --------------------------------------------------------------------------------


def mismatch(filename: str, error: AssertionError) -> Exception:
    """What fairseq asserts of another criterion or optimizer, as one line that names the file."""
    what, _, names = str(error).partition(" does not match")
    if not names:
        return error
    found, expected = names.rsplit(". ", 1)[-1].split(" vs ")
    return UserError(f"{filename}: expected {what.lower()} {expected}, found {found}; {REMEDY}")


def load_fitting(optimizer: FairseqOptimizer, state_dict: dict, overrides=None) -> None:
    """``load_state_dict`` of an optimizer, checked against its parameters; torch only counts
    them."""
    if isinstance(state_dict, dict) and "param_groups" in state_dict:
        params = [param for group in optimizer.param_groups for param in group["params"]]
        fit_state(state_dict, params, getattr(optimizer, "fp16_params", params))
    type(optimizer).load_state_dict(optimizer, state_dict, overrides)


def fit_state(
    state_dict: dict[str, Any], params: Sequence[Tensor], separate: Sequence[Tensor]
) -> None:
    """Change a stored optimizer state in place so that it fits the parameters of this run:
    ``--fp16`` trains one flat tensor on a GPU and one per parameter on a CPU, apex counts updates
    per group.

    Args: params: of this run's optimizer, in its order (tests/parity/test_state_dict.py). separate:
    those of the model, where the optimizer's is flat.
    Raises: UserError if the state is that of other parameters.
    """
    groups, state = state_dict["param_groups"], state_dict["state"]
    indices = [index for group in groups for index in group["params"]]
    for group in groups:
        for index in state.keys() & set(group["params"]) if "step" in group else ():
            state[index].setdefault("step", group["step"])
    if len(groups) > 1 or len(indices) == len(params):
        check_shapes(indices, state, params)
        return
    if len(indices) == 1 and indices[0] in state:
        whole = torch.empty(sum(param.numel() for param in params), device="meta")
        check_shapes(indices, state, [whole])
        state = split_state(state[indices[0]], params)
    elif len(params) == 1 and len(indices) == len(separate):
        check_shapes(indices, state, separate)
        state = {0: joined_state([state.get(index, {}) for index in indices], separate)}
    else:
        raise UserError(
            f"the checkpoint's optimizer has {len(indices)} parameters, this run trains"
            f" {len(params)}; {REMEDY}"
        )
    indices = list(range(len(params)))
    check_shapes(indices, state, params)
    state_dict.update(state=state, param_groups=[{**groups[0], "params": indices}])


def check_shapes(
    indices: Sequence[int], state: Mapping[int, Mapping[str, Any]], params: Sequence[Tensor]
) -> None:
    """Raises: UserError if a moment is that of another parameter."""
    for index, param in zip(indices, params):
        for moment in map(state.get(index, {}).get, MOMENTS):
            if isinstance(moment, Tensor) and moment.shape != param.shape:
                raise UserError(
                    f"the checkpoint's optimizer has a parameter {index} of shape"
                    f" {list(moment.shape)}, this run one of {list(param.shape)}; {REMEDY}"
                )


def split_state(flat: Mapping[str, Any], params: Sequence[Tensor]) -> dict[int, dict[str, Any]]:
    """State of one flat tensor as that of each parameter, one behind the other."""
    sizes = [param.numel() for param in params]
    parts = {name: flat[name].split(sizes) for name in MOMENTS if name in flat}
    return {
        index: {**flat, **{name: part[index].view(param.shape) for name, part in parts.items()}}
        for index, param in enumerate(params)
    }


def joined_state(states: Sequence[Mapping[str, Any]], params: Sequence[Tensor]) -> dict[str, Any]:
    """State of each parameter as that of one flat tensor; zeros where a parameter never had a
    gradient."""
    first, joined = next(filter(None, states), {}), {}
    for name in set(MOMENTS) & set(first):
        pairs = zip(states, params)
        moments = [state.get(name, torch.zeros(param.shape)) for state, param in pairs]
        joined[name] = torch.cat([moment.flatten() for moment in moments])
    return {**first, **joined}


# --- learning rate --------------------------------------------------------------------------------


@dataclass
class WarmupRatioConfig(PolynomialDecayLRScheduleConfig):
    warmup_ratio: float = option(
        0.0, "warm up during this share of all updates, instead of --warmup-updates"
    )
    total_num_update: float = option(
        1_000_000, "updates over which the learning rate decays, without --warmup-ratio"
    )


class WarmupRatioSchedule(PolynomialDecayLRSchedule):
    """fairseq's polynomial decay, whose warm-up and end follow from the length of the training;
    the trainer knows it once it has counted the batches of an epoch."""

    knows_total = False
    annealed: dict | None = None  # epoch after --force-anneal, and the rate that it began with

    def __init__(self, cfg, optimizer):
        if not 0 <= cfg.warmup_ratio <= 1:
            raise UserError(f"--warmup-ratio is a share in [0, 1], found {cfg.warmup_ratio}")
        if cfg.total_num_update <= 0:
            raise UserError(f"--total-num-update has to be positive, found {cfg.total_num_update}")
        # reinit changes warmup_updates; the caller's config stays
        super().__init__(copy.copy(cfg), optimizer)
        self.total_num_update: int = cfg.total_num_update

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
    per_epoch = _updates_per_epoch(batches, optimization)
    epochs = optimization.max_epoch or math.inf
    listed = int(min(epochs, len(per_epoch) - 1))
    updates = math.inf
    if per_epoch[-1]:
        updates = sum(per_epoch[:listed]) + (epochs - listed) * per_epoch[-1]
    return min(updates, optimization.max_update or math.inf)


def last_epoch(batches: int, optimization) -> int | None:
    """The epoch in which a training ends, by ``--max-update`` perhaps; None: not known. Arguments
    as of ``count_updates``."""
    updates = count_updates(batches, optimization)
    per_epoch = _updates_per_epoch(batches, optimization)
    if updates == math.inf or len(per_epoch) > 1 or not per_epoch[0]:
        return optimization.max_epoch or None
    return math.ceil(updates / per_epoch[0])


def _updates_per_epoch(batches: int, optimization) -> list[int]:
    rounded = math.floor if optimization.skip_remainder_batch else math.ceil
    return [rounded(batches / frequency) for frequency in optimization.update_freq]


def replace_polynomial_decay(stock: type) -> type:
    """Upstream's ``--warmup-ratio`` is a flag of a scheduler that fairseq has without it."""
    del lr_scheduler.LR_SCHEDULER_REGISTRY[NAME], lr_scheduler.LR_SCHEDULER_DATACLASS_REGISTRY[NAME]
    register = lr_scheduler.register_lr_scheduler(NAME, dataclass=WarmupRatioConfig)
    return register(WarmupRatioSchedule)


class ExactPlateauSchedule(ReduceLROnPlateauLRSchedule):
    """``reduce_lr_on_plateau`` that saves all it counts, not ``best`` and ``last_epoch`` alone."""

    def state_dict(self) -> dict:
        return {name: getattr(self.lr_scheduler, name) for name in PLATEAU_COUNTS}

    def load_state_dict(self, state: dict) -> None:
        for name in set(PLATEAU_COUNTS) & set(state):
            setattr(self.lr_scheduler, name, state[name])
