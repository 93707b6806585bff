"""Checkpoints of parameter-efficient tuning: only the weights that were tuned, and which file (the
base) holds all others.

Such a file has one entry more than an ordinary one, ``light_tuning``::

    {"base": {"path": "/models/ofa_base.pt", "sha256": "3f0c...", "ema": False}, "methods":
    ["lora"]}

``ema``: the base's averaged weights are meant. The base is looked for where it was given, where it
was at training, and beside the checkpoint; it is taken only if its bytes are the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ofa.checkpoints.contents import upstream_state_dict
from ofa.errors import UserError
from ofa.io.fingerprint import sha256_of
from ofa.io.safe_load import load_checkpoint
from ofa.io.stored_options import is_readable_path

ENTRY = "light_tuning"
TUNED = "tuned"  # in the entry of a completed checkpoint: the names that the file itself holds
DOWN, UP = ".lora_down", ".lora_up"


class BaseNotFound(UserError):
    """The file that a delta checkpoint needs is missing, or is another one."""


def base_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """``path``, ``sha256`` and ``ema`` of the file that a checkpoint needs; empty if it is complete
    by itself.

    Raises: UserError if the entry is damaged.
    """
    base = (checkpoint.get(ENTRY) or {}).get("base") or {}
    if base and not (
        isinstance(base, Mapping)
        and all(isinstance(base.get(name), str) for name in ("path", "sha256"))
    ):
        raise UserError(
            f"expected path and sha256 of the base in the checkpoint's '{ENTRY}', found {base!r}"
        )
    return base


def is_light(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint, as it was read, lacks the weights of its base."""
    return bool(base_of(checkpoint)) and TUNED not in checkpoint[ENTRY]


def named_base(path: str | Path, ema: bool = False) -> dict[str, Any]:
    """How a checkpoint names the file ``path`` as its base."""
    return {"path": str(Path(path).absolute()), "sha256": sha256_of(path), "ema": ema}


def find_base(
    path: str | Path, checkpoint: Mapping[str, Any], given: str | Path | None = None
) -> Path:
    """The base of the delta checkpoint ``path``.

    Args: given: where the user says it is; then nowhere else.
    Raises: BaseNotFound if there is no file, or another one.
    """
    base = base_of(checkpoint)
    recorded = Path(base["path"])
    places = [Path(given)] if given else [recorded, Path(path).absolute().parent / recorded.name]
    others = []
    for place in places:
        if (given or is_readable_path(str(place))) and place.is_file():
            found = sha256_of(place)
            if found == base["sha256"]:
                return place
            others.append(f"{place} (sha256 {found[:12]}...)")
    needs = (
        f"{path}: holds only tuned weights and needs its base {recorded.name} (sha256"
        f" {base['sha256'][:12]}...)"
    )
    if others:
        raise BaseNotFound(
            f"{needs}, found another file in its place: {others[0]}; give the one that the training"
            " started from by --base FILE"
        )
    nowhere = ", nor ".join(dict.fromkeys(map(str, places)))
    raise BaseNotFound(f"{needs}, found no file {nowhere}; give it by --base FILE")


def complete(
    path: str | Path, checkpoint: dict[str, Any], base: str | Path | None = None
) -> dict[str, Any]:
    """Add the weights of the base to a delta checkpoint, in place; one that is complete stays as it
    is.

    Args: path: where it was read, for finding the base and for messages. base: where the base is
    now.
    Returns: ``checkpoint``. Raises: BaseNotFound.
    """
    if is_light(checkpoint):
        found = find_base(path, checkpoint, base)
        whole = upstream_state_dict(load_checkpoint(found), base_of(checkpoint).get("ema", False))
        tuned = checkpoint["model"]
        checkpoint["model"] = {**whole, **tuned}
        checkpoint[ENTRY] = {**checkpoint[ENTRY], TUNED: list(tuned)}
    return checkpoint


def load_complete(path: str | Path, base: str | Path | None = None) -> dict[str, Any]:
    """``load_checkpoint`` for those who need every weight."""
    return complete(path, load_checkpoint(path), base)


def merge_lora(weights: Mapping[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """The weights of the plain architecture: what LoRA learned is added to the weights beside it,
    in float32.

    Args: alpha: ``--lora-alpha`` of the training. Raises: UserError if a layer's own weight is
    missing.
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
