"""Moving averages of the weights: fairseq's, and the two flags that the release added to fairseq.

``--use-ema-weights-to-init-param``   start from the averaged weights of the checkpoint
``--use-latest-weights-to-init-ema``  start the averages anew from the checkpoint's last weights
"""

import dataclasses
import functools
import logging
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fairseq import checkpoint_utils
from fairseq.dataclass.configs import CheckpointConfig
from fairseq.dataclass.initialize import hydra_init
from fairseq.models.ema.ema import EMA
from fairseq.trainer import Trainer

from ofa.errors import UserError
from ofa.trainer.fairseq_resume import INITIAL_WEIGHTS, STATE_KEY

logger = logging.getLogger(__name__)

FLAGS = dict(
    zip(
        INITIAL_WEIGHTS,
        (
            "start from the averaged weights of the checkpoint, if it has some",
            "start the averages anew from the weights of the checkpoint's last step",
        ),
    )
)


def install() -> None:
    """Called once, when the plugin registers."""
    add_checkpoint_flags()
    EMA._step_internal = average_every_tensor_once(EMA._step_internal)
    Trainer.load_checkpoint = start_as_flags_say(Trainer.load_checkpoint)


def add_checkpoint_flags(
    added: Mapping[str, str] = FLAGS, kind: Any = bool, default: Any = False
) -> None:
    """More fields of fairseq's checkpoint options: on the command line and in every configuration.

    Args: added: name -> help. kind, default: of their values.
    """
    options = {field.name: field for field in dataclasses.fields(CheckpointConfig)}
    for name, text in added.items():
        options[name] = dataclasses.field(default=default, metadata={"help": text})
        CheckpointConfig.__annotations__[name] = kind
    for name, field in options.items():
        if name in CheckpointConfig.__annotations__:
            setattr(
                CheckpointConfig,
                name,
                dataclasses.field(default=field.default, metadata=field.metadata),
            )
    dataclasses.dataclass(CheckpointConfig)
    hydra_init()


def start_as_flags_say(load: Callable) -> Callable:
    """``Trainer.load_checkpoint`` that follows the two flags, and starts averages that the
    checkpoint lacks.

    Stock fairseq frees the weights before it looks for averages, and fails when it then needs the
    weights.
    """

    @functools.wraps(load)
    def load_checkpoint(self, filename, *args, **kwargs):
        def arrange(state: dict) -> dict:
            return arrange_weights(state, self.cfg, filename, getattr(self, "goes_on", False))

        with changed_on_reading(arrange):
            return load(self, filename, *args, **kwargs)

    return load_checkpoint


@contextmanager
def changed_on_reading(change: Callable[[dict], dict], **overrides: Any) -> Iterator[None]:
    """Inside, checkpoints that fairseq reads are changed. Args: overrides: as of
    ``load_checkpoint_to_cpu``."""
    read = checkpoint_utils.load_checkpoint_to_cpu

    def load_checkpoint_to_cpu(path, arg_overrides=None, **kwargs):
        return change(read(path, {**(arg_overrides or {}), **overrides}, **kwargs))

    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
    try:
        yield
    finally:
        checkpoint_utils.load_checkpoint_to_cpu = read


def arrange_weights(state: dict, cfg, filename: str, goes_on: bool = False) -> dict:
    """The checkpoint with its weights and averages exchanged as the flags say.

    Args: goes_on: the checkpoint is one of this very run, which has followed the flags at its
    start.
    Returns: ``state``.
    """
    options, extra = cfg.checkpoint, state["extra_state"]
    exchange, renew = (getattr(options, name) and not goes_on for name in FLAGS)
    latest, averages = (
        state["model"],
        {**(extra.get("ema") or {}), **(extra.get("ema_fp32_params") or {})},
    )
    if exchange:
        if averages:
            logger.info("%s: starting from its averaged weights", filename)
            state["model"] = {**latest, **averages}
            extra.get(STATE_KEY, {}).pop(
                "fp32_params", None
            )  # master weights are those of the last step
        else:
            logger.warning(
                "%s: has no averaged weights; starting from those of its last step", filename
            )
    if cfg.ema.store_ema and (renew or not averages):
        logger.info("%s: averages start from the weights of its last step", filename)
        extra["ema"] = latest
        extra.pop("ema_fp32_params", None)
    return state


def average_every_tensor_once(step: Callable) -> Callable:
    """EMA fails on integer tables, and decays a shared embedding once for each of its names.

    What is frozen in light tuning (``ofa.trainer.fairseq_peft``) is not averaged.
    """

    @functools.wraps(step)
    def step_internal(self, new_model, updates=None):
        names: dict[int, list[str]] = {}
        state = {}
        for name, tensor in new_model.state_dict().items():
            same = names.setdefault(tensor.data_ptr(), [])
            same.append(name)
            if (
                tensor.is_floating_point()
                and len(same) == 1
                and (self.tuned is None or name in self.tuned)
            ):
                state[name] = tensor
        step(self, types.SimpleNamespace(state_dict=lambda: state), updates)
        for first, *others in names.values():
            for other in others if first in self.fp32_params else ():
                self.fp32_params[other].copy_(self.fp32_params[first])

    return step_internal


def check_ema_options(cfg) -> None:
    """``--uses-ema`` validates with averages, which exist with ``--store-ema`` only. Raises:
    UserError."""
    if getattr(cfg.task, "uses_ema", False) and not cfg.ema.store_ema:
        raise UserError(
            "--uses-ema: expects averaged weights to validate with, found no --store-ema; add that"
            " flag"
        )
