"""Checkpoints are written whole or not at all: a kill or a full disk never costs the one before."""

import copy
import functools
import logging
import shutil
from collections.abc import Callable
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from omegaconf import open_dict

from ofa.errors import UserError
from ofa.fairseq_compat import ModuleWith
from ofa.io import torch_file
from ofa.io.atomic import FULL, remove_abandoned, replacing

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoint*.pt"  # every file that fairseq saves in the course of a training


def install() -> None:
    """Replace how fairseq writes and copies checkpoints."""
    checkpoint_utils.torch_persistent_save = save_whole
    checkpoint_utils.PathManager = ModuleWith(PathManager, copy=copy_whole)


def save_after_last_epoch(validate_and_save: Callable) -> Callable:
    """The end of an update, where the end of ``--max-epoch`` validates and saves as that of ``--max-update`` does.

    Stock fairseq asks the intervals alone then: with ``--save-interval 5 --max-epoch 3`` it would save nothing.
    """

    @functools.wraps(validate_and_save)
    def wrapped(cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch):
        if end_of_epoch and epoch_itr.epoch == cfg.optimization.max_epoch:
            listed = epoch_itr.epoch % cfg.checkpoint.save_interval == 0  # one of those that keep their number
            cfg = copy.deepcopy(cfg)
            with open_dict(cfg):
                cfg.checkpoint.update(save_interval=1, no_epoch_checkpoints=cfg.checkpoint.no_epoch_checkpoints or not listed)
                cfg.dataset.validate_interval = 1
        return validate_and_save(cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch)

    return wrapped


def save_whole(content: Any, filename: str, async_write: bool = False) -> None:
    """``torch.save`` to a file of another name that takes its place at the end.

    Stock fairseq tries three times to write into the same file, each time behind what is there already, and
    leaves the last attempt lying.

    Raises: UserError if the disk is full or cannot be written.
    """
    try:
        with replacing(filename, "wb") as file:
            torch_file.save(content, file)
    except OSError as error:
        raise not_written(filename, error) from error


def copy_whole(source: str, target: str, overwrite: bool = True) -> str:
    """Copy a checkpoint (to ``checkpoint_last.pt``, ...) in one step; fairseq asks whether the result is true."""
    try:
        with open(source, "rb") as file, replacing(target, "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 22)
    except OSError as error:
        raise not_written(target, error) from error
    return target


def not_written(path: str, error: OSError) -> UserError:
    """What to tell the user when a checkpoint cannot be written."""
    full = error.errno in FULL
    remedy = "Free some space" if full else "Correct that"
    return UserError(
        f"{path}: expected to write a checkpoint, found {error.strerror or error}; the checkpoints before it are "
        f"whole. {remedy} and run the same command again: it resumes from the newest one"
    )


def remove_leftovers(folder: str) -> None:
    """Delete what a killed process had not finished writing; what a live one is writing stays."""
    for part in remove_abandoned(folder, CHECKPOINTS):
        logger.info("removed %s, which was not finished", part)
