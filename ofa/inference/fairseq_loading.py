"""Checkpoint file -> fairseq task and models, ready to generate."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY
from omegaconf import OmegaConf

from ofa.checkpoints.architecture import EMBEDDINGS, check_stored_sizes, image_size
from ofa.checkpoints.contents import upstream_state_dict, values_of
from ofa.errors import UserError, naming
from ofa.io.safe_load import CONVERT
from ofa.task.task_spec import TaskOptions
from ofa.task.template import is_template, parse_template
from ofa.tasks.template import NAME as TEMPLATE

logger = logging.getLogger(__name__)

# options of every task that are of one task's files
NOT_SHARED = ("data", "selected_cols", "constraint_range")
SHARED = {field.name for field in dataclasses.fields(TaskOptions)} - set(NOT_SHARED) | {
    "max_image_size"
}


def read_checkpoint(path: str, overrides: Mapping[str, Any]) -> dict:
    """The checkpoint with ``cfg`` as a configuration object, whichever of ``args`` and ``cfg`` the
    file holds.

    Raises: UserError if the file is missing, damaged or no checkpoint of this project or of
    upstream.
    """
    state = checkpoint_utils.load_checkpoint_to_cpu(path, dict(overrides))
    config = state.get("cfg") or {}
    if config.get("task") is None or config.get("model") is None or "model" not in state:
        raise UserError(
            f"{path}: expected a checkpoint with 'cfg' of 'task' and 'model' (or 'args') and"
            f" 'model', found {', '.join(sorted(map(str, state))) or 'nothing'}; is it a file that"
            f" training wrote? {CONVERT}"
        )
    with naming(path):
        for group in ("task", "model"):
            check_stored_sizes(group_to_builtins(config[group]), upstream_state_dict(state))
    return state


def task_name(name: str | None, where: str = "--task") -> str | None:
    """The name of a task that may be called by an alias; of a task in one line the line.

    Raises: UserError beginning with ``where`` if it is a line that is none.
    """
    if name is not None and is_template(name):
        return parse_template(name, where).text
    task = TASK_REGISTRY.get(name)
    return task.spec.name if hasattr(task, "spec") else name


def stored_name(path: str, stored: Mapping[str, Any]) -> str:
    """The name of the task whose options a checkpoint stores, "" if it stores none.

    Raises: UserError if it is a line that is none.
    """
    name = task_name(stored.get("_name") or stored.get("task"), f"{path}: stored task")
    if name != TEMPLATE:
        return name or ""
    return parse_template(stored.get(TEMPLATE), f"{path}: stored template").text


def registered(name: str) -> tuple[str, dict[str, Any]]:
    """The name of a task in fairseq's registry, and the options that make it this one: a line is
    an option of ``template``."""
    return (TEMPLATE, {TEMPLATE: name}) if is_template(name) else (name, {})


def options_for(name: str | None, stored: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """What a checkpoint's task options mean for a task: all for the task it was trained on, and for
    one whose options are derived from that one's; else those that all tasks share. The answers of
    one task are not those of another.
    """
    trained, name = stored_name(path, stored), task_name(name)
    if name in (None, trained):
        return dict(stored)
    kinds = [
        task.spec.options
        for task in map(TASK_REGISTRY.get, (name, trained))
        if hasattr(task, "spec")
    ]
    if len(kinds) == 2 and issubclass(*kinds):
        return {key: value for key, value in stored.items() if key not in NOT_SHARED}
    return {key: value for key, value in stored.items() if key in SHARED}


def drawn_by(state: Mapping[str, Any]) -> dict[str, int]:
    """Of a network that was trained on other tasks: the size of the images that its decoder
    can draw."""
    model = group_to_builtins(state["cfg"]["model"])
    return {"code_image_size": model["code_image_size"]} if model.get("code_image_size") else {}


def image_size_unless_known(
    path: str, state: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, int]:
    """Of a converted network whose file stores no image size: that of its architecture, said in a
    warning.

    Args: known: options that are stored or given.
    """
    if known.get("patch_image_size"):
        return {}
    size, arch, _ = image_size(upstream_state_dict(state))
    logger.warning(
        "%s: stores no image size; %d pixels are taken, as %s was pretrained. Convert it again, or"
        " give another size by --overrides \"{'patch_image_size': N}\"",
        path,
        size,
        arch,
    )
    return {"patch_image_size": size}


def group_to_builtins(group: Any) -> dict[str, Any]:
    """A group of the configuration as a dict of its values."""
    if OmegaConf.is_config(group):
        group = OmegaConf.to_container(group, resolve=True, enum_to_str=True)
    return values_of(group)


def task_config(
    path: str, name: str | None, stored: Mapping[str, Any], overrides: Mapping[str, Any]
):
    """Configuration of the task: its defaults, what the checkpoint stores, what the caller
    overrides."""
    name, own = registered(task_name(name) or stored_name(path, stored))
    ours = sorted({task.spec.name for task in TASK_REGISTRY.values() if hasattr(task, "spec")})
    if name not in ours:
        raise UserError(
            f"{path}: unknown task '{name}'; known: {', '.join(ours)}. Give one by --task"
        )
    known = {field.name for field in dataclasses.fields(TASK_DATACLASS_REGISTRY[name])}
    values = {key: value for key, value in {**stored, **overrides, **own}.items() if key in known}
    return OmegaConf.create({**values, "_name": name})


def build_network(path: str, state: dict, task, ema: bool) -> torch.nn.Module:
    """The network of a checkpoint with its weights."""
    weights = upstream_state_dict(state, ema=ema)
    rows = len(weights.get(EMBEDDINGS[0], task.vocabulary))
    if rows != len(task.vocabulary):
        raise UserError(
            f"{path}: has {rows} vocabulary entries, the folder {task.cfg.bpe_dir} makes "
            f"{len(task.vocabulary)}; give the folder of its training by --bpe-dir"
        )
    config = state["cfg"]["model"]
    names = group_to_builtins(config)
    arch = names.get("_name") or names.get("arch")
    # fairseq's own networks give some of their options to eval()
    if ARCH_MODEL_NAME_REGISTRY.get(arch, arch) != "ofa":
        raise UserError(
            f"{path}: expected a model of this project, found the architecture {arch!r}; is it a"
            " checkpoint of another program?"
        )
    if getattr(config, "resnet_model_path", None):
        # an override of evaluation scripts; the checkpoint has its own weights
        config.resnet_model_path = None
    model = task.build_model(config, from_checkpoint=True)
    with naming(path):
        model.load_state_dict(weights)
    return model.eval()
