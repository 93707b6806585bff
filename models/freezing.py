"""Which parameters train: everything, or what a parameter-efficient method adds."""

from collections.abc import Callable

from torch import nn

from ofa.models.ofa_model import OFAModel

OF_METHOD: dict[str, Callable[[str], bool]] = {  # which parameters a method trains, by their names
    "prefix": lambda name: "prompt_encoder" in name,
    "adapter": lambda name: ".adapter." in name,
    "bitfit": lambda name: name.endswith("bias") and ("layer_norm" in name or "fc" in name),
    "lora": lambda name: ".lora_" in name,
}
HEADS = "classification_heads."


def freeze(model: OFAModel) -> None:
    """Prefix prompts, adapters, LoRA and the biases of BitFit train alone (or with each other);
    embeddings may be frozen.

    Call it before classification heads are registered: these always train.
    """
    config = model.config
    if config.light_methods:
        wanted = [OF_METHOD[method] for method in config.light_methods]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(trains(name) for trains in wanted))
    if config.freeze_encoder_embedding or config.adapter:
        model.encoder.embed_tokens.weight.requires_grad_(False)
    if config.freeze_decoder_embedding or config.adapter:
        model.decoder.embed_tokens.weight.requires_grad_(False)


def tuned_names(model: nn.Module) -> set[str]:
    """Names in the state dict of what a training changes when only few weights train: those and
    the heads."""
    names = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }
    return names | {name for name in nn.Module.state_dict(model) if name.startswith(HEADS)}
