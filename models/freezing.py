"""Which parameters train: everything, or what a parameter-efficient method adds."""

from typing import Callable

from torch import nn

from ofa.models.ofa import OFA


def freeze(model: OFA) -> None:
    """Prefix prompts and adapters train alone, BitFit trains biases alone, embeddings may be frozen.

    Call it before classification heads are registered: these always train.
    """
    config = model.config
    prompts = config.encoder_prompt or config.decoder_prompt
    if prompts or (config.adapter and not config.adapter_train_backbone):
        train_only(model, lambda name: "prompt_encoder" in name or ".adapter." in name)
    if config.bitfit:
        train_only(model, lambda name: name.endswith("bias") and ("layer_norm" in name or "fc" in name))
    if config.freeze_encoder_embedding or config.adapter:
        model.encoder.embed_tokens.weight.requires_grad_(False)
    if config.freeze_decoder_embedding or config.adapter:
        model.decoder.embed_tokens.weight.requires_grad_(False)


def train_only(model: nn.Module, wanted: Callable[[str], bool]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(wanted(name))
