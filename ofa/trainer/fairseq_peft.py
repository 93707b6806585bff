"""Light tuning in training: checkpoints and moving averages hold the tuned weights only.

A run whose flags choose prefix prompts, adapters, BitFit or LoRA (``ModelConfig.light_methods``)
starts from a base, which its checkpoints name by path and hash (``ofa.checkpoints.delta``). A run
without a base (from random weights) has no file that holds the other weights: its checkpoints hold
all.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from fairseq.models.ema.ema import EMA
from fairseq.trainer import Trainer
from torch import Tensor, nn

from ofa.checkpoints.adapt import CONSTANTS, share_embeddings
from ofa.checkpoints.delta import ENTRY, TUNED, base_of, named_base
from ofa.models.freezing import HEADS, tuned_names
from ofa.trainer.fairseq_ema import add_checkpoint_flags, changed_on_reading
from ofa.trainer.fairseq_saving import CHECKPOINTS

logger = logging.getLogger(__name__)

AVERAGES = ("ema", "ema_fp32_params")
LARGE = 1 << 20  # elements that a checkpoint holds besides what was tuned, from which on it is said


@dataclass
class Base:
    """What the checkpoints of a run leave out, and where it is.

    Args: file: entry ``base`` of a checkpoint. held: names of the weights that checkpoints hold.
    """

    file: dict[str, Any]
    held: set[str]


def install() -> None:
    """Called once, when the plugin registers; before the averages' own part, whose flags decide
    on the weights first."""
    text = "of a checkpoint that holds tuned weights only: where its base is now, if it has moved"
    add_checkpoint_flags({"base": text}, Optional[str], None)
    Trainer.load_checkpoint = note_base(Trainer.load_checkpoint)
    Trainer.state_dict = leave_base_out(Trainer.state_dict)
    EMA.__init__ = average_tuned_only(EMA.__init__)
    EMA.build_fp32_params = build_tuned_only(EMA.build_fp32_params)


def light_methods(model: nn.Module) -> list[str]:
    """By which methods a model trains few parameters. Layers cannot be dropped from a base that
    stays a file of its own."""
    config = getattr(model, "config", None)
    if getattr(config, "encoder_layers_to_keep", None) or getattr(
        config, "decoder_layers_to_keep", None
    ):
        return []
    return getattr(config, "light_methods", [])


# --- checkpoints
# --------------------------------------------------------------------------------------------------


def note_base(load: Callable) -> Callable:
    """``Trainer.load_checkpoint`` that remembers the base; where it is now, ``--base`` may say."""

    @functools.wraps(load)
    def load_checkpoint(self, filename, *args, **kwargs):
        with changed_on_reading(
            functools.partial(note, self, str(filename)),
            base=getattr(self.cfg.checkpoint, "base", None),
        ):
            return load(self, filename, *args, **kwargs)

    return load_checkpoint


def note(trainer, path: str, state: dict) -> dict:
    """Set ``trainer.base`` and put averages right. Args: state: the complete checkpoint.
    Returns: ``state``."""
    model, extra = trainer.get_model(), state["extra_state"]
    trainer.base = None
    if not light_methods(model):
        return state
    tuned, known = tuned_names(model), state.get(ENTRY) or {}
    file, options = base_of(state), trainer.cfg.checkpoint
    if not file:
        if Path(path).absolute().parent == Path(options.save_dir).absolute() and Path(path).match(
            CHECKPOINTS
        ):
            logger.info("%s: will be replaced and is no base; checkpoints hold all weights", path)
        else:
            averages = any(extra.get(name) for name in AVERAGES) and getattr(
                options, "use_ema_weights_to_init_param", False
            )
            file = named_base(path, ema=averages)
    if ENTRY not in state and any(
        name in extra for name in AVERAGES
    ):  # averages are those of what is tuned now
        extra.pop("ema_fp32_params", None)
        extra["ema"] = state["model"]
    for name in AVERAGES:
        if name in extra:
            extra[name] = only(tuned, extra[name])
    if file:
        trainer.base = Base(
            file, tuned | weights_beside_base(model, state["model"], known.get(TUNED, ()))
        )
    return state


def weights_beside_base(model: nn.Module, weights: Mapping[str, Tensor], held: Any) -> set[str]:
    """Names of weights of the model that its base does not have (a larger vocabulary, ...) or has
    in another form.

    Args: weights: of the checkpoint that training starts from. held: names of what that file holds
    besides its base.
    """
    own, there = nn.Module.state_dict(model), dict(weights)
    share_embeddings(model, there)
    missing = {
        name
        for name, tensor in own.items()
        if not name.endswith(CONSTANTS) and (name not in there or there[name].shape != tensor.shape)
    }
    large = sorted(name for name in missing - tuned_names(model) if own[name].numel() >= LARGE)
    if large:
        logger.warning(
            "checkpoints hold %s as well: the base has no such weights of this shape",
            ", ".join(large),
        )
    return missing | own.keys() & set(held)


def leave_base_out(state_dict: Callable) -> Callable:
    """``Trainer.state_dict`` of what is saved."""

    @functools.wraps(state_dict)
    def wrapped(self) -> dict[str, Any]:
        state, model = state_dict(self), self.get_model()
        methods, base = light_methods(model), getattr(self, "base", None)
        if methods:
            for name in AVERAGES:
                if name in state["extra_state"]:
                    state["extra_state"][name] = only(
                        tuned_names(model), state["extra_state"][name]
                    )
            if base is not None:
                state["model"] = only(base.held | tuned_names(model), state["model"])
            state[ENTRY] = {"methods": methods, "base": base and dict(base.file)}
        return state

    return wrapped


def only(names: set[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name in names}


# --- moving averages
# --------------------------------------------------------------------------------------------------


def average_tuned_only(init: Callable) -> Callable:
    """Averages of frozen weights are these weights: the two models share them."""

    @functools.wraps(init)
    def wrapped(self, model, *args, **kwargs):
        self.tuned = tuned_names(model) if light_methods(model) else None
        init(self, model, *args, **kwargs)
        if self.tuned is not None:
            share_frozen(self.model, model)

    return wrapped


def share_frozen(averaged: nn.Module, model: nn.Module) -> None:
    """Let ``averaged``, a copy of ``model``, have the model's own tensors where these do not
    train."""
    for (name, copied), module in zip(averaged.named_modules(), model.modules()):
        if not f"{name}.".startswith(HEADS):
            for key, parameter in module._parameters.items():
                if parameter is not None and not parameter.requires_grad:
                    copied._parameters[key] = parameter
            copied._buffers.update(module._buffers)


def build_tuned_only(build: Callable) -> Callable:
    """``EMA.build_fp32_params`` of the tuned weights."""

    @functools.wraps(build)
    def wrapped(self, state_dict=None):
        if self.tuned is not None:
            state_dict = only(
                self.tuned, self.model.state_dict() if state_dict is None else state_dict
            )
        build(self, state_dict)

    return wrapped
