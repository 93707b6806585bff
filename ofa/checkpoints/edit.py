"""Checkpoint files: several averaged, one stripped to its weights or merged with its base."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa.checkpoints.architecture import CONSTANT_TABLES
from ofa.checkpoints.options import values_of
from ofa.checkpoints.read import ENTRY, Checkpoint, read
from ofa.errors import UserError, naming
from ofa.io import tensor_files
from ofa.io.safe_load import load_checkpoint
from ofa.io.values import read_decimal

# checkpoint3.pt, checkpoint_3_1500.pt
EPOCH_OR_UPDATE = re.compile(r"checkpoint_?(\d+)(?:_(\d+))?\.pt")
DOWN, UP = ".lora_down", ".lora_up"
CONFIGURATION = ("cfg", "task_state", ENTRY)
# group -> option of its name
FLAT_GROUPS = {"task": "task", "model": "arch", "common": None, "dataset": None, "generation": None}


def num_bytes(content: Any) -> int:
    """Memory of all tensors in nested containers; what they share counts once."""
    storages: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, (Mapping, list, tuple)):
            for item in value.values() if isinstance(value, Mapping) else value:
                visit(item)

    visit(content)
    return sum(storages.values())


def newest(folder: str | Path, count: int) -> list[Path]:
    """The last ``count`` checkpoints that a run saved after epochs or updates, the oldest first.

    Copies (``checkpoint_last.pt``, ``checkpoint_best.pt``) do not count.
    Raises: UserError if there are fewer.
    """
    numbered = []
    for path in Path(folder).glob("checkpoint*.pt"):
        match = EPOCH_OR_UPDATE.fullmatch(path.name)
        if match:
            epoch, update = match.groups()
            numbered.append((int(epoch), float(update or "inf"), path))
    if len(numbered) < count or count < 1:
        raise UserError(
            f"{folder}: expected {max(count, 1)} checkpoints of epochs (checkpoint3.pt) or updates"
            f" (checkpoint_3_1500.pt) to average, found {len(numbered)}; take fewer by --last, name"
            " the files, or train without --no-epoch-checkpoints"
        )
    return [path for _, _, path in sorted(numbered)[-count:]]


def average(paths: Iterable[str | Path], ema: bool = False) -> dict[str, Any]:
    """One checkpoint with the mean weights of several, else that of the one with the most updates.

    Sums are float64, counters and tables are not averaged, one file is in memory at a time.
    Args: ema: average the moving averages. Raises: UserError if the files are not of one model.
    """
    sums: dict[str, Tensor] = {}
    expected: dict[str, Any] = {}
    last: dict[str, Any] | None = None
    most = 0
    names = [str(path) for path in paths]
    for path in names:
        checkpoint = read(path, ema=ema, whole=False)
        found: dict[str, Any] = {"its base": checkpoint.base.get("sha256")}
        found |= {
            name: list(tensor.shape)
            for name, tensor in checkpoint.weights.items()
            if not name.endswith(CONSTANT_TABLES)
        }
        expected = expected or found
        for name in {**expected, **found}:
            here, there = (part.get(name, "missing") for part in (found, expected))
            if here != there:
                raise UserError(
                    f"{path}: expected the model of {names[0]}, found another: {name} is {here},"
                    f" there {there}; average checkpoints of one run"
                )
        for name, tensor in checkpoint.weights.items():
            if tensor.is_floating_point():
                sums[name] = sums.get(name, 0) + tensor.double()
        updates = checkpoint.num_updates or 0
        if last is None or updates >= most:
            last, most = stripped(checkpoint), updates
    if last is None:
        raise UserError("expected checkpoints to average, found none")
    means: dict[tuple, Tensor] = {}  # tables that several names share stay shared
    for name, tensor in last["model"].items():
        if tensor.is_floating_point():
            place = tensor.data_ptr(), tensor.shape, tensor.stride()
            mean = means.setdefault(place, (sums[name] / len(names)).to(tensor.dtype))
            last["model"][name] = mean
    last["extra_state"] = {"averaged": [Path(name).name for name in names]}
    return last


def strip(path: str | Path, ema: bool = False, trust: bool = False) -> dict[str, Any]:
    """The weights and the configuration of a checkpoint: what evaluation needs.

    Args: ema: the moving averages become the weights. trust: the file may run code while it is
    read; the result holds plain data only.
    """
    return stripped(Checkpoint(str(path), load_checkpoint(path, trust=trust), ema))


def merge(path: str | Path, base: str | Path | None = None, ema: bool = False) -> dict[str, Any]:
    """A checkpoint that needs no base, of one of parameter-efficient tuning; else as ``strip``.

    What LoRA learned goes into the weights beside it, for a plain architecture; prompts and
    adapters stay modules.
    Args: base: where the base is now; default: as recorded. ema: take the moving averages.
    Raises: UserError if there is nothing to merge, or no such base.
    """
    checkpoint = read(path, base, ema)
    weights = checkpoint.weights
    if not checkpoint.base and not any(name.endswith(DOWN) for name in weights):
        raise UserError(
            f"{path}: expected tuned weights to merge with their base, found a checkpoint that"
            " holds all weights already"
        )
    kind = weights["encoder.embed_tokens.weight"].dtype
    alpha = checkpoint.options.get("lora_alpha") or 0
    with naming(path):
        try:
            scale = read_decimal(alpha)
        except ValueError as error:
            raise UserError(
                f"its options say lora_alpha {str(alpha)[:60]!r}, expected a number ({error}); take"
                " another checkpoint"
            ) from None
        merged = merge_lora(
            {
                name: tensor.to(kind) if tensor.is_floating_point() else tensor
                for name, tensor in weights.items()
            },
            scale,
        )
    content = {**stripped(checkpoint), "model": merged}
    content.pop(ENTRY, None)
    content["cfg"]["model"]["lora_rank"] = 0
    return content


def merge_lora(weights: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The plain architecture: what LoRA learned is added to the weights beside it, in float32.

    Args: alpha: ``--lora-alpha``. Raises: UserError if a layer's own weight is missing.
    """
    merged = {name: tensor for name, tensor in weights.items() if not name.endswith((DOWN, UP))}
    for name in (name for name in weights if name.endswith(DOWN)):
        layer = name.removesuffix(DOWN)
        plain, other = f"{layer}.weight", layer + UP
        if plain not in merged or other not in weights:
            raise UserError(
                f"expected {plain} and {other} beside {name}, found one of them missing; is the"
                " checkpoint complete?"
            )
        down, up = weights[name].float(), weights[other].float()
        if (
            not down.dim() == up.dim() == 2
            or up.size(1) != down.size(0)
            or (len(up), down.size(1)) != merged[plain].shape
            or not len(down)
        ):
            raise UserError(
                f"expected {name} and {other} to make a matrix of the shape of {plain}, found"
                f" {tuple(down.shape)} and {tuple(up.shape)}; take weights and base of one training"
            )
        learned = up @ down * (alpha / down.size(0))
        merged[plain] = (merged[plain].float() + learned).to(merged[plain].dtype)
    return merged


def stripped(checkpoint: Checkpoint) -> dict[str, Any]:
    """The weights and the configuration of a checkpoint."""
    content = checkpoint.content
    kept = {name: content[name] for name in CONFIGURATION if name in content}
    if content.get("args") is not None:
        kept["cfg"] = grouped(values_of(content["args"]))
    return {
        "args": None,
        **tensor_files.to_builtins(kept),
        "model": dict(checkpoint.weights),
        "optimizer_history": [{"num_updates": checkpoint.num_updates or 0}],
        "extra_state": {},
    }


def grouped(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Flat options of old files (``args``) as ``cfg``: each group of a reader has them all."""
    found = {group: dict(options) for group in FLAT_GROUPS}
    for group, name in FLAT_GROUPS.items():
        if name and name in options:
            found[group]["_name"] = options[name]
    return found
