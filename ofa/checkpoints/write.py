"""A model into a file of any layout."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa.checkpoints.adapt import CONSTANTS
from ofa.checkpoints.edit import grouped
from ofa.checkpoints.foreign_config import (
    huggingface_config,
    mmpretrain_config,
    unsupported_features,
)
from ofa.checkpoints.formats import FAIRSEQ, HUGGINGFACE, MMPRETRAIN, NATIVE, StateDictFormat
from ofa.checkpoints.read import CONFIG, TASK, WEIGHTS, Source
from ofa.checkpoints.upstream_options import released_model, released_task
from ofa.errors import UserError
from ofa.io import safetensors_file, torch_file
from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel

SAFETENSORS = ".safetensors"
ENDINGS = {
    FAIRSEQ.name: (".pt",),
    NATIVE.name: (SAFETENSORS, ".pt"),
    MMPRETRAIN.name: (".pth", ".pt"),
}
OF_THIS_MACHINE = ("data", "bpe_dir")
TRAINED_WITH = ("args", "cfg", "task_state")  # parts of a checkpoint that say how it was trained


def check_output(layout: StateDictFormat, out: str, force: bool) -> None:
    """Raises: UserError if the output is there already, or its name is not that of a file of the
    layout."""
    path = Path(out)
    if layout is HUGGINGFACE:
        if path.exists() and not path.is_dir():
            raise UserError(
                f"--out {out}: expected a folder for the {layout.title} layout, found a file;"
                " choose another"
            )
    elif path.suffix not in ENDINGS[layout.name]:
        why = (
            "; programs of that layout read no safetensors, --to ofa writes them"
            if path.suffix == SAFETENSORS
            else ""
        )
        raise UserError(
            f"--out {out}: expected a file *{' or *'.join(ENDINGS[layout.name])} for --to"
            f" {layout.name}{why}"
        )
    elif path.is_dir():
        raise UserError(f"--out {out}: expected a file, found a folder; name a file in it")
    if not force and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            f"--out {out}: expected a new {'folder' if path.is_dir() else 'file'}, found one that"
            " is there; choose another, or replace it by --overwrite"
        )


def check_room(layout: StateDictFormat, source: Source, model: OFAModel) -> None:
    """Raises: UserError that names everything that the layout has no place for."""
    missing = unsupported_features(layout, model.config, source.weights)
    if missing:
        raise UserError(
            f"{source.path}: the {layout.title} layout has no place for {'; '.join(missing)}. --to"
            " ofa holds everything"
            + (", --to fairseq everything that upstream has" if layout is not FAIRSEQ else "")
        )


def written_tensors(model: OFAModel, layout: StateDictFormat) -> dict[str, Tensor]:
    """The tensors of a network under the names of a layout, none of them copied, in the order of
    upstream."""
    tensors = {}
    for key, tensor in model.state_dict().items():
        name = layout.from_upstream(key)
        if name is None or (
            layout is NATIVE and key.endswith(CONSTANTS)
        ):  # made anew whenever a file is read
            continue
        if key.endswith("image_position_idx") and layout.shorter_by:
            tensor = tensor[: -layout.shorter_by].clone()
        tensors[name] = tensor.detach()
    # A layout without --freeze-resnet counts the batches of every norm.
    norms = [name for name in tensors if name.endswith(".running_var")] if layout.renamed else []
    counters = {
        name.removesuffix("running_var") + "num_batches_tracked": torch.zeros((), dtype=torch.long)
        for name in norms
    }
    return tensors | {name: counter for name, counter in counters.items() if name not in tensors}


def write(
    source: Source,
    model: OFAModel,
    task: dict[str, Any],
    layout: StateDictFormat,
    out: Path,
    bin_file: bool = False,
) -> None:
    """Write ``out``; the caller has made sure that there is nothing in its way.

    Args:
        model: the network of the source. task: options of its task.
        bin_file: of the Hugging Face layout pytorch_model.bin instead of model.safetensors.
    """
    tensors, config = written_tensors(model, layout), model.config
    if layout is HUGGINGFACE:
        out.mkdir()
        write_weights(tensors, out / WEIGHTS[int(bin_file)])
        dtype = str(next(iter(model.parameters())).dtype).removeprefix("torch.")
        content = {
            **huggingface_config(config, source.num_entries, dtype),
            TASK: portable_options(task),
        }
        (out / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    elif layout is MMPRETRAIN:
        meta = {
            "model": mmpretrain_config(config, source.num_entries),
            TASK: portable_options(task),
        }
        write_pickle({"state_dict": tensors, "meta": meta}, out)
    else:
        content = {**checkpoint_content(source, config, task, layout), "model": tensors}
        if out.suffix == SAFETENSORS:
            safetensors_file.write_checkpoint(content, out)
        else:
            write_pickle(content, out)


def write_pickle(content: Mapping[str, Any], path: Path) -> None:
    with open(path, "wb") as file:
        torch_file.save(content, file)


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """A bare state dict."""
    if path.suffix == SAFETENSORS:
        safetensors_file.write_tensors(tensors, path)
    else:
        write_pickle(dict(tensors), path)


def checkpoint_content(
    source: Source, config: ModelConfig, task: dict[str, Any], layout: StateDictFormat
) -> dict[str, Any]:
    """What a checkpoint holds besides its weights: how it was trained if the file says so, and
    the records that fairseq looks up."""
    history = (source.content.get("optimizer_history") or [{}])[-1]
    records: dict[str, Any] = {
        "criterion_name": "",
        "optimizer_name": "",
        "lr_scheduler_state": {},
        "num_updates": history.get("num_updates") or 0,
    }
    state = {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}} if layout is FAIRSEQ else {}
    content: dict[str, Any] = {"optimizer_history": [records], "extra_state": state}
    trained = {name: source.content[name] for name in TRAINED_WITH if source.content.get(name)}
    if layout is FAIRSEQ:
        content |= {
            "args": None,
            "cfg": {"task": released_task(task), "model": released_model(config, source.arch)},
        }
    elif trained:
        content |= {"args": None, **with_task(trained, task)}
    else:
        model = {**asdict(config), "arch": source.arch, "_name": source.arch}
        content |= {"args": None, "cfg": {"task": {"_name": "caption", **task}, "model": model}}
    return content


def with_task(trained: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """How a checkpoint was trained, with the options of its task as they are now."""
    if (trained.get("cfg") or {}).get("task"):
        return {
            **trained,
            "cfg": {
                **trained["cfg"],
                "task": {**torch_file.to_builtins(trained["cfg"]["task"]), **task},
            },
        }
    if trained.get("args"):
        options = {**torch_file.to_builtins(trained["args"]), "task": task["_name"], **task}
        return {"cfg": grouped({key: value for key, value in options.items() if key != "_name"})}
    return dict(trained)


def portable_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a task that JSON can hold, without the places where files lie on this machine."""
    return {
        name: value
        for name, value in options.items()
        if name not in OF_THIS_MACHINE and isinstance(value, (str, int, float, bool, type(None)))
    }
