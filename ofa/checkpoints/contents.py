"""What a checkpoint that was read holds: its weights and the options it was trained with."""

from collections.abc import Mapping
from typing import Any

import torch

from ofa.errors import UserError


def upstream_state_dict(
    checkpoint: Mapping[str, Any], ema: bool = False
) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint (or of a bare state dict).

    Args: ema: the moving average instead of the last step's.
    Raises: UserError if there are none of that kind.
    """
    state = checkpoint.get("model", checkpoint)
    if ema:
        extra = checkpoint.get("extra_state") or {}
        if not extra.get("ema") and not extra.get("ema_fp32_params"):
            raise UserError(
                "the checkpoint has no EMA weights (extra_state.ema); evaluate without --ema-eval, "
                "or train with --store-ema"
            )
        state = {**state, **(extra.get("ema") or {}), **(extra.get("ema_fp32_params") or {})}
    weights = {
        key.removeprefix("module."): value
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    light = "light_tuning" in checkpoint  # some weights only: of the decoder alone, perhaps
    if not any(
        key.startswith(("encoder.", "decoder.", "classification_heads.") if light else "encoder.")
        for key in weights
    ):
        raise UserError(
            "the checkpoint holds no OFA model: expected tensors named encoder.* under 'model',"
            " found " + (", ".join(list(map(str, state))[:5]) or "nothing")
        )
    return weights


def arguments(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Task and model options a checkpoint was trained with, whichever way it stores them.

    Old files hold a Namespace ``args``; newer ones ``cfg`` with ``task`` and ``model``, dicts or
    Namespaces.
    """
    found: dict[str, Any] = {}
    config = checkpoint.get("cfg") or {}
    for part in (
        checkpoint.get("args"),
        config.get("common"),
        config.get("task"),
        config.get("model"),
    ):
        if part is not None:
            found.update(part if isinstance(part, Mapping) else vars(part))
    name = found.pop("_name", None)
    if found.get("arch") is None and name:
        found["arch"] = name
    return found
