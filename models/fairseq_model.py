"""The network as a fairseq model: command line, architectures, what is frozen, loading."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from fairseq.models import BaseFairseqModel, register_model, register_model_architecture

from ofa.checkpoints.adapt import adapt_state_dict, load_into
from ofa.checkpoints.upstream_options import ALWAYS_ON, SAME_WIDTH, WITHOUT_EFFECT
from ofa.errors import UserError
from ofa.io.flags import UNSET, add_flag
from ofa.io.safe_load import load_checkpoint
from ofa.models.config import PRESETS, ModelConfig, add_flags
from ofa.models.image_stems import load_imagenet_weights
from ofa.models.ofa_model import OFAModel
from ofa.models.peft import freeze

logger = logging.getLogger(__name__)


@register_model("ofa")
class FairseqOFAModel(OFAModel, BaseFairseqModel):
    """``OFAModel`` with fairseq's way of being built and loaded.

    Attributes:
        takes_batches: ``forward`` takes several batches at once, see ``batches``.
    """

    takes_batches = True

    def forward(self, *args, batches: Sequence[Mapping[str, Any]] | None = None, **net_input):
        """As ``OFAModel``'s. Args: batches: the arguments of several calls instead, which are one
        for what is around the model. Returns: what each of these returns."""
        call = super().forward
        return call(*args, **net_input) if batches is None else [call(**one) for one in batches]

    @classmethod
    def add_args(cls, parser: argparse.ArgumentParser) -> None:
        """Without defaults: the architecture supplies what the command line does not give."""
        add_flags(parser)
        for name, default, reason in WITHOUT_EFFECT:
            kind = str if default is None else type(default)
            add_flag(parser, name, kind, UNSET, help=f"no effect: {reason}")
        for name in ALWAYS_ON:
            add_flag(parser, name, bool, UNSET, help="always on")
        for name in SAME_WIDTH:
            add_flag(parser, name, int, UNSET, help="must equal the width")

    @classmethod
    def build_model(cls, args: Any, task: Any) -> "FairseqOFAModel":
        """The model of a parsed command line (or of a checkpoint's), frozen as its flags say."""
        arch = getattr(args, "arch", None) or getattr(args, "_name", None)
        config = ModelConfig.from_namespace(args, arch)
        warn_of_flags_without_effect(args)
        for name in SAME_WIDTH:
            if getattr(args, name, None) not in (None, 0, config.decoder_embed_dim):
                raise UserError(
                    f"--{name.replace('_', '-')} must equal --decoder-embed-dim"
                    f" {config.decoder_embed_dim}"
                )
        dictionary = task.source_dictionary
        model = cls(config, len(dictionary), dictionary.pad())
        if path := config.resnet_model_path:
            load_imagenet_weights(model.encoder.embed_images, load_checkpoint(path), path)
            args.resnet_model_path = None  # later the weights are in the checkpoint
        freeze(model)
        return model

    def upgrade_state_dict_named(self, state_dict, name: str) -> None:
        adapt_state_dict(self, state_dict)

    def load_state_dict(  # type: ignore[override]  # the arguments are fairseq's
        self, state_dict, strict: bool = True, model_cfg=None, args=None, **unused
    ):
        """Loads checkpoints of older, smaller or plainer models too (``ofa.checkpoints.adapt``)."""
        load_into(self, state_dict, strict)


@cache
def warn(message: str) -> None:
    """Once in this process."""
    logger.warning(message)


def warn_of_flags_without_effect(args: Any) -> None:
    def is_given(name: str, default: Any) -> bool:
        return getattr(args, name, None) not in (None, default)

    for name, default, reason in WITHOUT_EFFECT:
        if is_given(name, default):
            warn(f"--{name.replace('_', '-')} has no effect: {reason}")
    lora = "lora_alpha", "lora_targets", "lora_dropout"
    given = any(is_given(name, getattr(ModelConfig, name)) for name in lora)
    if given and not getattr(args, "lora_rank", None):
        warn("--lora-alpha, --lora-targets and --lora-dropout have no effect without --lora-rank")


def fill_in(arch: str, args: Any) -> None:
    """``--arch NAME``: the preset says what the command line did not."""
    for name, value in vars(ModelConfig.from_namespace(args, arch)).items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


for preset_name in PRESETS:
    register_model_architecture("ofa", preset_name)(partial(fill_in, preset_name))
