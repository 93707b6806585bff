"""Which weights a run starts from, averages and saves.

A run whose flags choose parameter-efficient tuning (``ModelConfig.peft_methods``) starts from a
base, which its checkpoints name by path and hash (``ofa.checkpoints.read``); they hold the tuned
weights only. Without a base (from random weights) they hold all. Averages are fairseq's, with the
two flags that upstream added to fairseq.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.models.ema.ema import EMA
from torch import Tensor, nn

from ofa.checkpoints.adapt import CONSTANTS, share_embeddings
from ofa.checkpoints.read import ENTRY, TUNED, Checkpoint, named_base
from ofa.models.peft import HEADS, tuned_names
from ofa.trainer.fairseq_checkpoint import CHECKPOINTS
from ofa.trainer.fairseq_distributed import own_part
from ofa.trainer.fairseq_resume import INITIAL_WEIGHTS, STATE_KEY
from ofa.trainer.float32_copies import Float32Copies, by_type

logger = logging.getLogger(__name__)

AVERAGES = ("ema", "ema_fp32_params")
LARGE = 1 << 20  # elements besides the tuned ones, from which on a warning names them


@dataclass
class Base:
    """What the checkpoints of a run leave out, and where it is."""

    file: Mapping[str, Any]  # entry ``base`` of a checkpoint
    held: set[str]  # names of the weights that checkpoints hold


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
    if not (file := Checkpoint(path, state).base):
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


class ModelAverages(EMA):
    """fairseq's averages, of the tensors that train alone, in a few operators for all of them.

    fairseq's fail on integer tables and decay a shared embedding once for each of its names. In
    parameter-efficient tuning the averages of frozen weights are these weights: both models share
    them.
    """

    followed: Optional["Followed"] = None  # the model whose weights are averaged

    def __init__(self, model: nn.Module, config, device=None):
        # names of what parameter-efficient tuning trains; None: everything trains
        self.tuned = tuned_names(model) if peft_methods(model) else None
        super().__init__(model, config, device)
        if self.tuned is not None:
            share_frozen(self.model, model)

    def build_fp32_params(self, state_dict=None) -> None:
        if self.tuned is not None:
            whole = self.model.state_dict() if state_dict is None else state_dict
            state_dict = only(self.tuned, whole)
        super().build_fp32_params(state_dict)
        for first, *others in names_of_tensors(self.model):
            self.fp32_params.update(
                (name, self.fp32_params[first]) for name in others if name in self.fp32_params
            )

    def step(self, new_model, updates=None) -> None:
        self.divide(new_model)
        super().step(new_model, updates)

    def _step_internal(self, new_model, updates=None) -> None:
        if self.followed is None or self.followed.model is not new_model:
            self.followed = Followed(new_model, self)
        self.followed.average(self.decay)

    def divide(self, network: nn.Module) -> None:
        """Keep a part of the averages where processes have parts of the network."""
        if not hasattr(network, "unshard"):  # no FSDPModule
            return
        from ofa.trainer.fairseq_fully_sharded import divide_as, part_of

        if not divide_as(self.model, network):
            return
        named, parts = tensors_of(self.model), dict[int, Tensor]()
        for name, average in self.fp32_params.items():
            own = named[name]
            # those of a float32 network are its tensors themselves
            found = own_part(own) if average.dtype == own.dtype else part_of(average, own)
            self.fp32_params[name] = parts.setdefault(id(average), found)


class Followed:
    """A model in training and its averages, as lists that are made once: for each of ofa_base's
    thousand tensors a name, a check and three operators would take longer than the arithmetic.

    Args: model: in training. ema: its averages. A tensor with several names counts once.
    """

    def __init__(self, model: nn.Module, ema: ModelAverages) -> None:
        self.model = model
        own, copies = (
            {name: own_part(tensor) for name, tensor in tensors_of(network).items()}
            for network in (model, ema.model)
        )
        averages = ema.fp32_params if ema.config.ema_fp32 else copies
        names = [
            first
            for first, *_ in names_of_tensors(model)
            if own[first].is_floating_point() and (ema.tuned is None or first in ema.tuned)
        ]
        every = ([tensors[name] for name in names] for tensors in (own, averages, copies))
        self.parts = by_type(*every)
        self.copies = [  # of 16-bit weights with float32 averages
            None if weights[0].dtype == averages[0].dtype else Float32Copies(weights)
            for weights, averages, _ in self.parts
        ]

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """``average = decay * average + (1 - decay) * weight``, of all tensors."""
        for (weights, averages, shown), copies in zip(self.parts, self.copies):
            # a number, as no tensor, would be rounded to 16 bits before it is multiplied
            torch._foreach_mul_(averages, torch.tensor(decay))
            if copies is None:
                torch._foreach_add_(averages, weights, alpha=1 - decay)
            else:
                for part, precise in copies.of(weights):
                    torch._foreach_add_(averages[part], precise, alpha=1 - decay)
            # those of a float32 model are the tensors of its copy themselves
            if shown[0].dtype != averages[0].dtype:
                torch._foreach_copy_(shown, averages)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Name in the state dict -> parameter or buffer, which is one object for all its names."""
    every = chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    stored = model.state_dict().keys()
    return {name: tensor for name, tensor in every if name in stored}


def names_of_tensors(model: nn.Module) -> list[list[str]]:
    """The names of every tensor of a state dict; several where it is shared."""
    names: dict[int, list[str]] = {}
    for name, tensor in tensors_of(model).items():
        names.setdefault(id(tensor), []).append(name)
    return list(names.values())


def share_frozen(averaged: nn.Module, model: nn.Module) -> None:
    """Let ``averaged``, a copy of ``model``, have the model's own tensors where they are frozen."""
    for (name, copied), module in zip(averaged.named_modules(), model.modules()):
        if not f"{name}.".startswith(HEADS):
            for key, parameter in module._parameters.items():
                if parameter is not None and not parameter.requires_grad:
                    copied._parameters[key] = parameter
            copied._buffers.update(module._buffers)


def arrange_weights(state: dict[str, Any], cfg, filename: str, resumes: bool = False) -> None:
    """Exchange weights and averages of a checkpoint as the two flags say, in place. Averages that
    it lacks start from its weights; fairseq frees these before it looks.

    Args: resumes: the checkpoint is one of this very run, which followed the flags at its start.
    """
    extra, latest = state["extra_state"], state["model"]
    averages = Checkpoint(filename, state).averages
    exchange, renew = (getattr(cfg.checkpoint, flag) and not resumes for flag in INITIAL_WEIGHTS)
    if exchange and averages:
        logger.info("%s: starting from its averaged weights", filename)
        state["model"] = {**latest, **averages}
        extra.get(STATE_KEY, {}).pop("fp32_params", None)  # master weights are the last step's
    elif exchange:
        logger.warning("%s: has no averages; starting from the weights of its last step", filename)
    if cfg.ema.store_ema and (renew or not averages):
        logger.info("%s: averages start from the weights of its last step", filename)
        extra["ema"] = latest
        extra.pop("ema_fp32_params", None)
