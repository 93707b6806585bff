"""A model into a file of any layout, and proof that the two files hold the same one: their tensors,
and their logits on a fixed batch of images and text, and of image codes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from ofa.checkpoints.adapt import network_of
from ofa.checkpoints.architecture import CONSTANTS
from ofa.checkpoints.edit import grouped
from ofa.checkpoints.formats import (
    FAIRSEQ,
    HUGGINGFACE,
    MMPRETRAIN,
    NATIVE,
    StateDictFormat,
    unsupported_features,
)
from ofa.checkpoints.options import values_of
from ofa.checkpoints.read import CONFIG, TASK, WEIGHTS, Checkpoint, read_source
from ofa.checkpoints.upstream_options import upstream_model, upstream_task
from ofa.errors import UserError
from ofa.io import tensor_files
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
ALLOWED = 1e-4  # difference of two logits
SEED = 7
# samples, tokens of a source, of a target, of a target of codes
BATCH, WORDS, ANSWER, CODES = (2, 12, 9, 17)
PATCHES = 4, 3  # of an image of the batch, at most


# --- what is written ------------------------------------------------------------------------------


def check_output(layout: StateDictFormat, out: str, force: bool) -> None:
    """Raises: UserError if the output is there already, or is not named as the layout needs it."""
    path, endings = Path(out), ENDINGS.get(layout.name)
    if endings is None:
        fits, expected = not path.is_file(), "a folder"
    else:
        fits = path.suffix in endings and not path.is_dir()
        expected = f"a file *{' or *'.join(endings)}"
    if not fits:
        found = "a folder" if path.is_dir() else "a file" if path.exists() else path.name
        why = ""
        if path.suffix == SAFETENSORS:
            why = "; programs of that layout read no safetensors, --to ofa writes them"
        raise UserError(
            f"--out {out}: expected {expected} for --to {layout.name}, found {found}{why};"
            " choose another"
        )
    is_taken = path.is_file() or path.is_dir() and any(path.iterdir())
    if is_taken and not force:
        kind = "folder" if path.is_dir() else "file"
        raise UserError(
            f"--out {out}: expected a new {kind}, found one that is there; choose another, or"
            " replace it by --overwrite"
        )


def check_room(layout: StateDictFormat, source: Checkpoint, model: OFAModel) -> None:
    """Raises: UserError that names everything that the layout has no place for."""
    missing = unsupported_features(layout, model.config, model.state_dict())
    if missing:
        raise UserError(
            f"{source.path}: the {layout.title} layout has no place for {'; '.join(missing)}. --to"
            " ofa holds everything"
            + (", --to fairseq everything that upstream has" if layout is not FAIRSEQ else "")
        )


def written_tensors(model: OFAModel, layout: StateDictFormat) -> dict[str, Tensor]:
    """The tensors of a network under the names of a layout, not copied, in upstream's order."""
    tensors = {}
    for key, tensor in model.state_dict().items():
        name = layout.from_upstream(key)
        if name is None or layout is NATIVE and key.endswith(CONSTANTS):
            continue  # made anew whenever a file is read
        if key.endswith("image_position_idx") and layout.shorter_by:
            tensor = tensor[: -layout.shorter_by].clone()
        tensors[name] = tensor.detach()
    # A layout without --freeze-resnet counts the batches of every norm.
    for name in [name for name in tensors if layout.renamed and name.endswith(".running_var")]:
        counter = name.replace("running_var", "num_batches_tracked")
        tensors.setdefault(counter, torch.zeros((), dtype=torch.long))
    return tensors


def write(
    source: Checkpoint,
    model: OFAModel,
    task: dict[str, Any],
    layout: StateDictFormat,
    out: Path,
    bin_file: bool = False,
) -> None:
    """Write ``out``; the caller has made sure that there is nothing in its way.

    Args: model: of the source. task: options of its task. bin_file: of the Hugging Face layout
    pytorch_model.bin instead of model.safetensors.
    """
    tensors, config = written_tensors(model, layout), model.config
    portable = {
        name: value
        for name, value in task.items()
        if name not in OF_THIS_MACHINE and isinstance(value, (str, int, float, bool, NoneType))
    }
    if layout is HUGGINGFACE:
        out.mkdir()
        if bin_file:
            tensor_files.save(tensors, out / WEIGHTS[1])
        else:
            tensor_files.write_tensors(tensors, out / WEIGHTS[0])
        dtype = str(next(iter(model.parameters())).dtype).removeprefix("torch.")
        content = {
            **layout.to_config(config, source.num_entries),
            "torch_dtype": dtype,
            TASK: portable,
        }
        (out / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    elif layout is MMPRETRAIN:
        meta = {"model": layout.to_config(config, source.num_entries), TASK: portable}
        tensor_files.save({"state_dict": tensors, "meta": meta}, out)
    else:
        content = {**training_records(source, layout), "args": None, "model": tensors}
        if layout is FAIRSEQ:
            options = upstream_model(config, source.arch)
            content["cfg"] = {"task": upstream_task(task), "model": options}
        else:
            content |= training_options(source, task)
        save = tensor_files.write_checkpoint if out.suffix == SAFETENSORS else tensor_files.save
        save(content, out)


def training_records(source: Checkpoint, layout: StateDictFormat) -> dict[str, Any]:
    """The records of a training that fairseq looks up."""
    records: dict[str, Any] = {
        "criterion_name": "",
        "optimizer_name": "",
        "lr_scheduler_state": {},
        "num_updates": source.num_updates or 0,
    }
    state = {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}} if layout is FAIRSEQ else {}
    return {"optimizer_history": [records], "extra_state": state}


def training_options(source: Checkpoint, task: Mapping[str, Any]) -> dict[str, Any]:
    """How a checkpoint was trained, if the file says so, with these options of its task."""
    trained = {name: source.content[name] for name in TRAINED_WITH if source.content.get(name)}
    if not trained:
        model = {**vars(source.config), "arch": source.arch, "_name": source.arch}
        return {"cfg": {"task": {"_name": "caption", **task}, "model": model}}
    if (trained.get("cfg") or {}).get("task"):
        stored = values_of(trained["cfg"]["task"])
        return {**trained, "cfg": {**trained["cfg"], "task": {**stored, **task}}}
    if trained.get("args"):
        options = {**values_of(trained["args"]), "task": task["_name"], **task}
        options.pop("_name")
        return {"cfg": grouped(options)}
    return trained


# --- the proof ------------------------------------------------------------------------------------


def fixed_batches(config: ModelConfig, num_entries: int) -> dict[str, dict[str, Any]]:
    """The same for every model of these sizes: name -> ``net_input``.

    ``image and text`` has a padded source, and a sample without its image; ``codes`` image codes.
    """
    random = torch.Generator().manual_seed(SEED)

    def tokens(length: int, longest: int) -> Tensor:
        return torch.randint(
            min(4, num_entries - 1), num_entries, (BATCH, min(length, longest)), generator=random
        )

    rows, columns = (min(side, config.image_bucket_size) for side in PATCHES)
    source = tokens(WORDS, config.max_source_positions)
    source[1, -source.size(1) // 3 :] = 1
    images = torch.rand(BATCH, 3, 16 * rows, 16 * columns, generator=random) * 2 - 1
    target = tokens(ANSWER, config.max_target_positions)
    target[:, 0] = 0
    codes = tokens(CODES, min(config.max_target_positions, (config.code_image_size // 8) ** 2 + 1))
    codes[:, 0] = 0
    text = {
        "src_tokens": source,
        "patch_images": images,
        "patch_masks": torch.tensor([True, False]),
        "prev_output_tokens": target,
    }
    drawing = {
        "src_tokens": source,
        "prev_output_tokens": codes,
        "code_masks": torch.ones(BATCH, dtype=torch.bool),
    }
    return {"image and text": text, "codes": drawing}


@torch.inference_mode()
def logits(model: OFAModel, num_entries: int) -> dict[str, Tensor]:
    """float32[B, T, V] for every batch of ``fixed_batches``. The weights become float32."""
    model = model.float()
    return {
        name: model(**batch)[0] for name, batch in fixed_batches(model.config, num_entries).items()
    }


def largest_differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, float]:
    """Batch -> largest difference of two models' logits; NaN where one of them is not finite."""
    return {name: (one[name] - other[name]).abs().max().item() for name in one}


def prove(
    source: Checkpoint, before: Mapping[str, Tensor], part: Path, out: str
) -> dict[str, float]:
    """Read a converted file as if nothing else were known of it, and compare.

    Args: before: logits of the source. part: the file. out: its name to be.
    Returns: largest difference of the logits of each batch.
    Raises: UserError if it is not the same model.
    """
    remedy = "nothing is left there. Please report this, with the configuration of the source"
    result = read_source(part)
    differences = largest_differences(before, logits(network_of(result), result.num_entries))
    for name, value in differences.items():
        if math.isnan(value):
            raise UserError(
                f"{source.path}: expected numbers, its logits of {name} are none (NaN); it cannot"
                f" be proved that {out} is the same model, and nothing is left there. Use an"
                " earlier checkpoint"
            )
        if value > ALLOWED:
            raise UserError(
                f"{out}: expected the logits of {source.path}, those of {name} differ by up to"
                f" {value:.3g} (allowed: {ALLOWED:g}); {remedy}"
            )
    changed = [
        name
        for name, tensor in source.parameters.items()
        if (there := result.parameters.get(name)) is None
        or there.dtype != tensor.dtype
        or not there.equal(tensor)
    ]
    if changed:
        raise UserError(
            f"{out}: expected the tensors of {source.path}, {len(changed)} differ"
            f" ({', '.join(changed[:3])}); {remedy}"
        )
    return differences
