"""Parameter-efficient tuning in training: checkpoints hold the tuned weights only.

A run whose flags choose prefix prompts, adapters, BitFit or LoRA (``ModelConfig.peft_methods``)
starts from a base, which its checkpoints name by path and hash (``ofa.checkpoints.delta``). Without
a base (from random weights) checkpoints hold all.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from torch import Tensor, nn

from ofa.checkpoints.adapt import CONSTANTS, share_embeddings
from ofa.checkpoints.delta import ENTRY, TUNED, base_of, named_base
from ofa.models.peft import tuned_names
from ofa.trainer.fairseq_saving import CHECKPOINTS

logger = logging.getLogger(__name__)

AVERAGES = ("ema", "ema_fp32_params")
LARGE = 1 << 20  # elements besides the tuned ones, from which on a warning names them


@dataclass
class Base:
    """What the checkpoints of a run leave out, and where it is.

    Args: file: entry ``base`` of a checkpoint. held: names of the weights that checkpoints hold.
    """

    file: Mapping[str, Any]
    held: set[str]


def peft_methods(model: nn.Module) -> list[str]:
    """By which methods a model trains few weights. Layers cannot be dropped from a base that stays
    a file of its own."""
    config = getattr(model, "config", None)
    drops = any(getattr(config, f"{side}_layers_to_keep", None) for side in ("encoder", "decoder"))
    return [] if drops else getattr(config, "peft_methods", [])


def find_base(model: nn.Module, path: str, state: dict[str, Any], options) -> Optional[Base]:
    """The base of a run that starts from a checkpoint; None if its checkpoints hold all weights.
    Averages that the checkpoint has stay those of what is tuned now.

    Args: path, state: of the checkpoint, complete. options: fairseq's of checkpoints.
    """
    if not peft_methods(model):
        return None
    extra, tuned, known = state["extra_state"], tuned_names(model), state.get(ENTRY) or {}
    if not (file := base_of(state)):
        inside = Path(path).absolute().parent == Path(options.save_dir).absolute()
        if inside and Path(path).match(CHECKPOINTS):
            logger.info("%s: will be replaced and is no base; checkpoints hold all weights", path)
        else:
            averaged = any(map(extra.get, AVERAGES)) and options.use_ema_weights_to_init_param
            file = named_base(path, ema=averaged)
    if ENTRY not in state and any(name in extra for name in AVERAGES):
        extra.pop("ema_fp32_params", None)
        extra["ema"] = state["model"]
    keep_averages(extra, tuned)
    if not file:
        return None
    return Base(file, tuned | weights_beside_base(model, state["model"], known.get(TUNED, ())))


def weights_beside_base(model: Any, weights: Mapping[str, Tensor], held: Any) -> set[str]:
    """Names of weights that the base does not have (a larger vocabulary, ...) or has in another
    form. Args: weights: of the checkpoint that training starts from. held: names of what that file
    holds besides its base."""
    own, there = nn.Module.state_dict(model), dict(weights)
    share_embeddings(model, there)
    missing = {
        name
        for name, tensor in own.items()
        if not name.endswith(CONSTANTS) and (name not in there or there[name].shape != tensor.shape)
    }
    large = sorted(name for name in missing - tuned_names(model) if own[name].numel() >= LARGE)
    if large:
        reason = "the base has no such weights of this shape"
        logger.warning("checkpoints hold %s as well: %s", ", ".join(large), reason)
    return missing | own.keys() & set(held)


def leave_base_out(state: dict[str, Any], model: nn.Module, base: Optional[Base]) -> None:
    """Drop from a checkpoint, in place, what its base holds; tell which base that is."""
    if not (methods := peft_methods(model)):
        return
    tuned = tuned_names(model)
    keep_averages(state["extra_state"], tuned)
    if base is not None:
        state["model"] = only(base.held | tuned, state["model"])
    state[ENTRY] = {"methods": methods, "base": base and dict(base.file)}


def keep_averages(extra: dict[str, Any], tuned: set[str]) -> None:
    """Drop the averages of what is not tuned, in place."""
    for name in AVERAGES:
        if name in extra:
            extra[name] = only(tuned, extra[name])


def only(names: set[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name in names}
