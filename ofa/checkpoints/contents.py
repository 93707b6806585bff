"""What a checkpoint that was read holds: its weights, and the options of its training as one flat
dict by option name."""

import argparse
import ast
from collections.abc import Mapping
from typing import Any

import torch

from ofa.errors import UserError

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


def upstream_state_dict(
    checkpoint: Mapping[str, Any], ema: bool = False
) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint (or of a bare state dict).

    Args: ema: the moving average instead of the last step's.
    Raises: UserError if there are none of that kind.
    """
    state = checkpoint.get("model", checkpoint)
    if ema:
        averages = averages_of(checkpoint)
        if not averages:
            raise UserError(
                "the checkpoint has no EMA weights (extra_state.ema); evaluate without --ema-eval, "
                "or train with --store-ema"
            )
        state = {**state, **averages}
    weights = {
        key.removeprefix("module."): value
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    parts = ["encoder."]
    if "light_tuning" in checkpoint:  # some weights only: of the decoder alone, perhaps
        parts += ["decoder.", "classification_heads."]
    if not any(key.startswith(tuple(parts)) for key in weights):
        raise UserError(
            "the checkpoint holds no OFA model: expected tensors named encoder.* under 'model',"
            f" found {', '.join(list(map(str, state))[:5]) or 'nothing'}"
        )
    return weights


def averages_of(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The moving averages of a checkpoint, in float32 where it has them so."""
    extra = checkpoint.get("extra_state") or {}
    return {**(extra.get("ema") or {}), **(extra.get("ema_fp32_params") or {})}


def values_of(group: Any) -> dict[str, Any]:
    """A group of options, which is a mapping or a Namespace, as a dict."""
    return dict(group if isinstance(group, Mapping) else vars(group))


def arguments(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The options a checkpoint was trained with, whichever way it stores them.

    Old files hold a Namespace ``args``; newer ones ``cfg`` with groups.
    """
    config = checkpoint.get("cfg") or {}
    groups = [(config.get(group), choice) for group, choice in GROUPS.items()]
    found: dict[str, Any] = {}
    for group, choice in [(checkpoint.get("args"), None), *groups]:
        if group is not None:
            values = values_of(group)
            name = values.pop("_name", None)
            if choice and values.get(choice) is None and name is not None:
                values[choice] = name
            found |= values
    return found


def training_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` in a form in which those of two checkpoints can be compared."""
    return {
        name: comparable(value)
        for name, value in arguments(checkpoint).items()
        if not is_plumbing(value)
    }


def is_plumbing(value: Any) -> bool:
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
        known = name in left and name in right
        if left.get(name) != right.get(name) if known else left.get(name) or right.get(name):
            found[name] = left.get(name, NOT_GIVEN), right.get(name, NOT_GIVEN)
    return found
