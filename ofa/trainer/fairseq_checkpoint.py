"""How checkpoints are read into fairseq: as data, complete, and in the form that it expects, so
that a run of upstream's trainer (OFA-Sys/OFA) continues here and one of ours there; and how they
are written: whole or not at all, so that a kill or a full disk never costs the one before."""

import shutil
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ofa.checkpoints.adapt import store_once
from ofa.checkpoints.architecture import CONSTANT_TABLES, CONSTANTS
from ofa.checkpoints.edit import num_bytes
from ofa.checkpoints.read import read
from ofa.errors import UserError
from ofa.io import tensor_files
from ofa.io.atomic import FULL, replacing
from ofa.io.pickles import DAMAGED
from ofa.io.stored_options import drop_from_checkpoint
from ofa.io.terminal import in_units

CHECKPOINTS = "checkpoint*.pt"  # every file that fairseq saves in the course of a training
# Path -> checkpoint that was read already: fairseq gets it in place of the file, once.
prefetched: dict[str, dict[str, Any]] = {}

# Class names in older checkpoints: of this project, and of upstream before it corrected a typo.
EARLIER_NAMES = {
    "LabelSmoothedCriterion": "AdjustLabelSmoothedCrossEntropyCriterion",
    "EncouragingCriterion": "AdjustLabelSmoothedEncouragingLossCriterion",
    "AjustLabelSmoothedCrossEntropyCriterion": "AdjustLabelSmoothedCrossEntropyCriterion",
    "AjustLabelSmoothedEncouragingLossCriterion": "AdjustLabelSmoothedEncouragingLossCriterion",
}


def load_checkpoint_to_cpu(path, arg_overrides=None, load_on_all_ranks=False) -> dict[str, Any]:
    """The checkpoint as plain data; no code of the file runs.

    Args: arg_overrides: values of options that replace the stored ones; ``base`` is no option but
    the place of the base of a checkpoint that holds tuned weights only.
    Raises: UserError if the file is damaged or no checkpoint of a training.
    """
    if str(path) in prefetched:
        return prefetched.pop(str(path))
    overrides = dict(arg_overrides or {})
    state = read(PathManager.get_local_path(path), overrides.pop("base", None)).content
    drop_from_checkpoint(state, path)
    try:
        return as_fairseq_reads(state, overrides)
    except (*DAMAGED, SyntaxError, OmegaConfBaseException) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: expected the options of a training in 'cfg' or 'args', found others "
            f"({reason[0][:200]}); is it a checkpoint that training wrote?"
        ) from error


def as_fairseq_reads(state: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint as fairseq's own function returns it. Args: overrides: of stored options."""
    complete_history(state)
    if state.get("args") is not None:
        vars(state["args"]).update(overrides)
    if state.get("cfg") is not None:
        if state["cfg"].get("model") is not None:  # overrides may name options of newer files
            state["cfg"]["model"] = Namespace(**state["cfg"]["model"])
        state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
        checkpoint_utils.overwrite_args_by_name(state["cfg"], overrides)
    return checkpoint_utils._upgrade_state_dict(state)


def complete_history(state: dict[str, Any]) -> None:
    """Add the empty records of training that fairseq looks up in every checkpoint, and change those
    of other trainers to the form that is read here."""
    extra = state.setdefault("extra_state", {})
    if state.get("optimizer_history") or "best_loss" not in state:
        history = state["optimizer_history"] = state.get("optimizer_history") or [{}]
        if "best_loss" not in history[-1]:
            history[-1].setdefault("lr_scheduler_state", {})
        for name in ("criterion_name", "optimizer_name"):
            history[-1].setdefault(name, "")
        for record in history:
            if record.get("criterion_name") in EARLIER_NAMES:
                record["criterion_name"] = EARLIER_NAMES[record["criterion_name"]]
    # the tables are the model's own: image_position_idx is one entry shorter in some files
    for name in [name for name in extra.get("ema_fp32_params") or () if name.endswith(CONSTANTS)]:
        del extra["ema_fp32_params"][name]
    # those of a trainer replace those of this run, which asks for the time passed
    meters = extra.get("metrics")
    groups = meters.get("default", ()) if isinstance(meters, Mapping) else ()
    if not any(name == "wall" for _, name, *_ in groups):
        extra.pop("metrics", None)


def save_whole(content: dict[str, Any], filename: str) -> None:
    """Write a checkpoint of a training to a file of another name that takes its place at the end;
    fairseq tries three times to write into the same file, each time behind what is there already.
    Raises: UserError if the disk is full or cannot be written."""
    store_once(content)
    try:
        tensor_files.save(content, filename)
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
    written = [tensor for name, tensor in buffers.items() if not name.endswith(CONSTANT_TABLES)]
    total = weights = num_bytes([stored, written])
    common, optimizer = cfg.common, cfg.optimizer
    num_trained = sum(weight.numel() for weight in trained.values())
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
