"""Moving averages of the weights: fairseq's, and the two flags that upstream added to fairseq.

``--use-ema-weights-to-init-param``   start from the averaged weights of the checkpoint
``--use-latest-weights-to-init-ema``  start the averages anew from the checkpoint's last weights
"""

import logging
from types import SimpleNamespace
from typing import Any

from fairseq.models.ema.ema import EMA
from torch import nn

from ofa.checkpoints.contents import averages_of
from ofa.errors import UserError
from ofa.models.peft import HEADS, tuned_names
from ofa.trainer.fairseq_peft import only, peft_methods
from ofa.trainer.fairseq_resume import INITIAL_WEIGHTS, STATE_KEY

logger = logging.getLogger(__name__)


class ModelAverages(EMA):
    """fairseq's averages, of the tensors that train alone.

    fairseq's fail on integer tables and decay a shared embedding once for each of its names. In
    parameter-efficient tuning the averages of frozen weights are these weights: both models share
    them.
    """

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

    def _step_internal(self, new_model, updates=None) -> None:
        names: dict[int, list[str]] = {}
        state: dict[str, Any] = {}
        for name, tensor in new_model.state_dict().items():
            same = names.setdefault(tensor.data_ptr(), [])
            same.append(name)
            trains = self.tuned is None or name in self.tuned
            if tensor.is_floating_point() and len(same) == 1 and trains:
                state[name] = tensor
        super()._step_internal(SimpleNamespace(state_dict=lambda: state), updates)
        for first, *others in names.values():
            for other in others if first in self.fp32_params else ():
                self.fp32_params[other].copy_(self.fp32_params[first])

    def resume(self, updates: int) -> None:
        """Count on towards ``--ema-update-freq``. Args: updates: made so far."""
        self.update_freq_counter = updates % max(self.config.ema_update_freq, 1)


def share_frozen(averaged: nn.Module, model: nn.Module) -> None:
    """Let ``averaged``, a copy of ``model``, have the model's own tensors where they are frozen."""
    for (name, copied), module in zip(averaged.named_modules(), model.modules()):
        if not f"{name}.".startswith(HEADS):
            for key, parameter in module._parameters.items():
                if parameter is not None and not parameter.requires_grad:
                    copied._parameters[key] = parameter
            copied._buffers.update(module._buffers)


def arrange_weights(state: dict[str, Any], cfg, filename: str, resumes: bool = False) -> None:
    """Exchange weights and averages of a checkpoint as the two flags say, in place.

    Averages that the checkpoint lacks start from its weights; fairseq frees these before it looks.

    Args: resumes: the checkpoint is one of this very run, which followed the flags at its start.
    """
    extra, latest, averages = state["extra_state"], state["model"], averages_of(state)
    exchange, renew = (getattr(cfg.checkpoint, it) and not resumes for it in INITIAL_WEIGHTS)
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


def check_ema_options(cfg) -> None:
    """``--uses-ema`` validates with averages, which ``--store-ema`` makes. Raises: UserError."""
    if getattr(cfg.task, "uses_ema", False) and not cfg.ema.store_ema:
        raise UserError(
            "--uses-ema: expects averaged weights to validate with, found no --store-ema; "
            "add that flag"
        )
