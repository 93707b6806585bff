"""The options of a training as one flat dict by option name, and what differs between two."""

import argparse
import ast
from collections.abc import Mapping
from typing import Any

# Groups of fairseq's configuration that say how to train, and the option whose choice is their
# ``_name``.
GROUPS = {
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
    "model": "arch",
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


def values_of(group: Any) -> dict[str, Any]:
    """A group of options, which is a mapping, a Namespace or missing, as a dict."""
    return dict(vars(group) if isinstance(group, argparse.Namespace) else group or {})


def options_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a checkpoint's training: of ``args`` (old files), or the groups of ``cfg``."""
    config = checkpoint.get("cfg") or {}
    groups = [(config.get(group), choice) for group, choice in GROUPS.items()]
    found: dict[str, Any] = {}
    for group, choice in [(checkpoint.get("args"), None), *groups]:
        values = values_of(group)
        name = values.pop("_name", None)
        if choice and values.get(choice) is None and name is not None:
            values[choice] = name
        found |= values
    return found


def comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in one form; without groups inside of a group and without ``${common.tpu}``, the
    reference to another option."""
    return {
        name: one_form(value)
        for name, value in options.items()
        if not isinstance(value, (Mapping, argparse.Namespace))
        and not (isinstance(value, str) and value.startswith("${"))
    }


def one_form(value: Any) -> Any:
    """One form of values that mean the same: of "(0.9, 0.99)", (0.9, 0.99) and [0.9, 0.99]; of
    [1e-5] and 1e-5; of "" and None."""
    if isinstance(value, str) and value[:1] in ("(", "[") and len(value) <= MAX_LIST:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    if isinstance(value, (list, tuple)):
        value = [one_form(item) for item in value]
        return value[0] if len(value) == 1 else value
    return None if value == "" else value


def differences(
    left: Mapping[str, Any], right: Mapping[str, Any], everything: bool = False
) -> dict[str, tuple[Any, Any]]:
    """Option -> its two values, where they differ.

    An option that one side does not know counts if the other side switches something on by it.
    Args: everything: also options that say where a run lies or what it prints.
    """
    found = {}
    for name in sorted(left.keys() | right.keys()):
        if not everything and (name in SURROUNDINGS or name.startswith("distributed_")):
            continue
        known = name in left and name in right
        if left.get(name) != right.get(name) if known else left.get(name) or right.get(name):
            found[name] = left.get(name, NOT_GIVEN), right.get(name, NOT_GIVEN)
    return found
