"""Checkpoints are written whole or not at all: a kill or a full disk never costs the one before."""

import copy
import shutil
from typing import Any

from omegaconf import open_dict

from ofa.checkpoints.adapt import CONSTANTS, store_once
from ofa.checkpoints.edit import num_bytes
from ofa.errors import UserError
from ofa.io import torch_file
from ofa.io.atomic import FULL, replacing

CHECKPOINTS = "checkpoint*.pt"  # every file that fairseq saves in the course of a training


def settings_of_update(cfg, epoch: int, end_of_epoch: bool):
    """The configuration for the end of an update: that of ``--max-epoch`` validates and saves.

    fairseq does so at ``--max-update``, and asks the intervals alone at the end of the last epoch:
    with ``--save-interval 5 --max-epoch 3`` it would save nothing.
    """
    if not end_of_epoch or epoch != cfg.optimization.max_epoch:
        return cfg
    listed = epoch % cfg.checkpoint.save_interval == 0  # one of those that keep their number
    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        cfg.checkpoint.no_epoch_checkpoints |= not listed
        cfg.checkpoint.save_interval = cfg.dataset.validate_interval = 1
    return cfg


def save_whole(content: dict[str, Any], filename: str) -> None:
    """Write a checkpoint of a training to a file of another name that takes its place at the end.

    fairseq tries three times to write into the same file, each time behind what is there already,
    and leaves the last attempt lying.

    Raises: UserError if the disk is full or cannot be written.
    """
    store_once(content)
    try:
        torch_file.save(content, filename)
    except OSError as error:
        raise not_written(filename, error) from error


def copy_whole(source: str, target: str, overwrite: bool = True) -> str:
    """Copy a checkpoint (to ``checkpoint_last.pt``, ...) in one step; fairseq asks whether the
    result is true."""
    try:
        with open(source, "rb") as file, replacing(target, "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 22)
    except OSError as error:
        raise not_written(target, error) from error
    return target


def not_written(path: str, error: OSError) -> UserError:
    """What to tell the user when a checkpoint cannot be written."""
    remedy = "Free some space" if error.errno in FULL else "Correct that"
    return UserError(
        f"{path}: expected to write a checkpoint, found {error.strerror or error}; the checkpoints"
        f" before it are whole. {remedy} and run the same command again: it resumes from the"
        " newest one"
    )


def check_space(cfg, model, save_dir: str) -> None:
    """Raises: UserError if not even one checkpoint fits on the disk. Args: cfg: fairseq's
    configuration. model: in training."""
    needed, free = checkpoint_bytes(cfg, model), shutil.disk_usage(save_dir).free
    if free < needed:
        raise UserError(
            f"{save_dir}: expected {in_units(needed)} of free space for a checkpoint, found"
            f" {in_units(free)}; free some, or use another --save-dir (--no-save-optimizer-state"
            " makes checkpoints smaller, but a run cannot resume from them)"
        )


def checkpoint_bytes(cfg, model) -> int:
    """What a checkpoint takes at least: weights, Adam's moments, fp32 copies, averages."""
    stored, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    trained = {name: weight for name, weight in stored.items() if weight.requires_grad}
    if getattr(getattr(model, "config", None), "peft_methods", []):
        stored, buffers = trained, {}  # the others stay in their base
    # a constant table of encoder, decoder and averages is stored once
    constants = {
        name.rpartition(".")[2]: buffers.pop(name)
        for name in list(buffers)
        if name.endswith(CONSTANTS)
    }
    weights, common, optimizer = num_bytes([stored, buffers]), cfg.common, cfg.optimizer
    num_trained = sum(weight.numel() for weight in trained.values())
    total = weights + num_bytes(constants)
    efficient = common.memory_efficient_fp16 or common.memory_efficient_bf16
    if (common.fp16 or common.bf16) and not efficient:
        total += 4 * num_trained
    saves_optimizer = not cfg.checkpoint.no_save_optimizer_state
    if getattr(optimizer, "_name", None) == "adam" and saves_optimizer:
        total += (4 if getattr(optimizer, "fp16_adam_stats", False) else 8) * num_trained
    if cfg.ema.store_ema:
        num_stored = sum(weight.numel() for weight in stored.values())
        total += weights + 4 * num_stored * cfg.ema.ema_fp32
    return total


def in_units(size: int) -> str:
    """``5.2 GB``, ``310 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
