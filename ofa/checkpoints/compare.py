"""The options a training was started with, as one flat dict by option name: of a checkpoint, or
of a command line."""

import argparse
import ast
from collections.abc import Mapping
from typing import Any

# Groups of fairseq's configuration that say how to train, and the option whose choice is their
# ``_name``.
GROUPS = {
    "model": "arch",
    "common": None,
    "distributed_training": None,
    "dataset": None,
    "optimization": None,
    "checkpoint": None,
    "ema": None,
    "criterion": "criterion",
    "optimizer": "optimizer",
    "lr_scheduler": "lr_scheduler",
    "task": "task",
}
# Where a run lies, what it prints and what it runs on; nothing of that is learned.
SURROUNDINGS = frozenset(
    "data save_dir base restore_file finetune_from_model bpe_dir user_dir tensorboard_logdir"
    " wandb_project azureml_logging aim_repo aim_run_hash log_interval log_format log_file"
    " no_progress_bar device_id local_rank cpu tpu num_workers num_workers_valid data_buffer_size"
    " resnet_model_path keep_last_epochs keep_interval_updates keep_best_checkpoints"
    " no_epoch_checkpoints no_last_checkpoints no_save save_interval save_interval_updates"
    " validate_interval validate_interval_updates fp16_scale_window nprocs_per_node"
    " no_seed_provided ignore_unused_valid_subsets".split()
)
NOT_GIVEN = "-"
MAX_LIST = 1000  # characters of a text that may be a list


def training_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Args: checkpoint: as ``load_checkpoint`` gives it: with ``args`` (old files: one
    Namespace) or ``cfg``."""
    found: dict[str, Any] = {}
    config = checkpoint.get("cfg") or {}
    groups = [(None, checkpoint.get("args"))] + [
        (choice, config.get(group)) for group, choice in GROUPS.items()
    ]
    for choice, group in groups:
        if group is None:
            continue
        values = dict(group) if isinstance(group, Mapping) else dict(vars(group))
        name = values.pop("_name", None)
        if choice and name is not None:
            values.setdefault(choice, name)
        found.update(
            {key: comparable(value) for key, value in values.items() if not is_plumbing(key, value)}
        )
    return found


def is_plumbing(name: str, value: Any) -> bool:
    """Groups inside of a group, and defaults that follow from another option
    (``${common.tpu}``)."""
    return (
        isinstance(value, (Mapping, argparse.Namespace))
        or isinstance(value, str)
        and value.startswith("${")
    )


def comparable(value: Any) -> Any:
    """One form of what is written in several: "(0.9, 0.99)", (0.9, 0.99), [0.9, 0.99]; [1e-5],
    1e-5; None, ""."""
    if isinstance(value, str) and value[:1] in ("(", "[") and len(value) <= MAX_LIST:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    if isinstance(value, (list, tuple)):
        value = [comparable(item) for item in value]
        return value[0] if len(value) == 1 else value
    return None if value == "" else value


def differences(
    left: Mapping[str, Any], right: Mapping[str, Any], everything: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Option -> its two values, where they differ.

    An option that one side does not know counts as differing if the other side switches something
    on by it.

    Args: everything: also options that say where a run lies or what it prints.
    """
    found = {}
    for name in sorted(left.keys() | right.keys()):
        if not everything and (name in SURROUNDINGS or name.startswith("distributed_")):
            continue
        if name in left and name in right:
            if left[name] != right[name]:
                found[name] = left[name], right[name]
        elif left.get(name) or right.get(name):
            found[name] = left.get(name, NOT_GIVEN), right.get(name, NOT_GIVEN)
    return found
