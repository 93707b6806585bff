"""What one does with checkpoint files: average several, strip one to its weights,
merge one with its base."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa.checkpoints.contents import arguments, upstream_state_dict
from ofa.checkpoints.delta import DOWN, ENTRY, base_of, complete, merge_lora
from ofa.errors import UserError, naming
from ofa.io import tensor_files
from ofa.io.numbers import read_decimal
from ofa.io.safe_load import load_checkpoint

# checkpoint3.pt, checkpoint_3_1500.pt
EPOCH_OR_UPDATE = re.compile(r"checkpoint_?(\d+)(?:_(\d+))?\.pt")
CONFIGURATION = ("cfg", "task_state", ENTRY)
# group -> option of its name
FLAT_GROUPS = {"task": "task", "model": "arch", "common": None, "dataset": None, "generation": None}


def num_updates(checkpoint: Mapping[str, Any]) -> int | None:
    """After how many updates it was saved, if it says so."""
    history = checkpoint.get("optimizer_history") or [{}]
    return history[-1].get("num_updates")


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

    ``checkpoint_last.pt`` and ``checkpoint_best.pt`` are copies of others and do not count.

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
    """One checkpoint with the mean weights of several; all else is that of the one with the most
    updates.

    Sums are float64, counters and tables are not averaged, one file is in memory at a time.

    Args: ema: average the moving averages instead. Raises: UserError if the files are not of one
    model.
    """
    sums: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    last: dict[str, Any] | None = None
    names = [str(path) for path in paths]
    for path in names:
        checkpoint = load_checkpoint(path)
        with naming(path):
            weights = upstream_state_dict(checkpoint, ema)
            found = {name: list(tensor.shape) for name, tensor in weights.items()}
            shapes = shapes or found
            check_same_model(names[0], shapes, found)
            if last and base_of(last).get("sha256") != base_of(checkpoint).get("sha256"):
                raise UserError(
                    f"expected the base of {names[0]}, found another; average checkpoints of one"
                    " run"
                )
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                sums[name] = sums.get(name, 0) + tensor.double()
        if last is None or (num_updates(checkpoint) or 0) >= (num_updates(last) or 0):
            last = stripped(checkpoint, weights)
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


def check_same_model(
    first: str, shapes: Mapping[str, list[int]], found: Mapping[str, list[int]]
) -> None:
    """Args: first: file of the shapes. Raises: UserError if another file has others."""
    for name in {**shapes, **found}:
        if found.get(name) != shapes.get(name):
            raise UserError(
                f"expected the model of {first}, found another: {name} is"
                f" {found.get(name, 'missing')}, there {shapes.get(name, 'missing')}; average"
                " checkpoints of one run"
            )


def strip(path: str | Path, ema: bool = False, trust: bool = False) -> dict[str, Any]:
    """A checkpoint without optimizer, moving averages and the place in the data: what evaluation
    needs.

    Args:
        ema: the moving averages become the weights.
        trust: the file may run code while it is read; the result holds plain data only.
    """
    checkpoint = load_checkpoint(path, trust=trust)
    with naming(path):
        return stripped(checkpoint, upstream_state_dict(checkpoint, ema))


def merge(path: str | Path, base: str | Path | None = None, ema: bool = False) -> dict[str, Any]:
    """A checkpoint that needs no base, of one of parameter-efficient tuning: as ``strip`` makes it,
    with the weights of the base.

    What LoRA learned goes into the weights beside it, for a plain architecture; prompts and
    adapters stay modules.

    Args: base: where the base is now; default: as recorded. ema: take the moving averages.
    Raises: UserError if there is nothing to merge, or no such base.
    """
    checkpoint = complete(path, load_checkpoint(path), base)
    with naming(path):
        weights = upstream_state_dict(checkpoint, ema)
        if not base_of(checkpoint) and not any(name.endswith(DOWN) for name in weights):
            raise UserError(
                "expected tuned weights to merge with their base, found a checkpoint that holds all"
                " weights already"
            )
        kind = weights["encoder.embed_tokens.weight"].dtype
        weights = {
            name: tensor.to(kind) if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        }
        alpha = arguments(checkpoint).get("lora_alpha") or 0
        try:
            scale = read_decimal(alpha)
        except ValueError as error:
            raise UserError(
                f"its options say lora_alpha {str(alpha)[:60]!r}, expected a number ({error}); take"
                " another checkpoint"
            ) from None
        merged = merge_lora(weights, scale)
    content = stripped(checkpoint, merged)
    content.pop(ENTRY, None)
    content["cfg"]["model"]["lora_rank"] = 0
    return content


def stripped(checkpoint: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """A checkpoint of these weights and the configuration of another."""
    kept = {name: checkpoint[name] for name in CONFIGURATION if name in checkpoint}
    content = tensor_files.to_builtins(kept)
    if checkpoint.get("args") is not None:
        content["cfg"] = grouped(tensor_files.to_builtins(checkpoint["args"]))
    return {
        "args": None,
        **content,
        "model": dict(weights),
        "optimizer_history": [{"num_updates": num_updates(checkpoint) or 0}],
        "extra_state": {},
    }


def grouped(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The flat options of old files (``args``, a Namespace) as ``cfg``: each group that a reader
    looks up has them all."""
    found = {group: dict(options) for group in FLAT_GROUPS}
    for group, name in FLAT_GROUPS.items():
        if name and name in options:
            found[group]["_name"] = options[name]
    return found
