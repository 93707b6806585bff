"""Parameter-efficient tuning: what each method adds to the network, and what trains with it.

Prefix prompts are keys and values that every layer sees before its own (P-tuning v2). Adapters are
bottlenecks at the end of a layer. LoRA learns a product of two thin matrices beside the weight of a
linear layer, whose own weight and bias keep their names, so that a checkpoint without LoRA loads as
it is. BitFit adds nothing: biases train.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.attention import KeyValue
from ofa.models.config import LORA_TARGETS, ModelConfig

HEADS = "classification_heads."
UNTOUCHED = ("encoder.embed_images", HEADS)  # the image stem, and what trains anyway
OF_METHOD: dict[str, Callable[[str], bool]] = {  # which parameters a method trains, by their names
    "prefix": lambda name: "prompt_encoder" in name,
    "adapter": lambda name: ".adapter." in name,
    "bitfit": lambda name: name.endswith("bias") and ("layer_norm" in name or "fc" in name),
    "lora": lambda name: ".lora_" in name,
}


class PrefixPrompt(nn.Module):
    """A table (length, layers * 2 * width), or one (length, width) blown up by a projection.

    Args: hidden: width inside the projection, 0 for none. Source: P-tuning v2, as used upstream.
    """

    def __init__(
        self, length: int, width: int, num_layers: int, num_heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_layers, self.num_heads = num_layers, num_heads
        total = num_layers * 2 * width
        self.embedding = nn.Embedding(length, width if hidden else total)
        self.trans: nn.Module = nn.Identity()
        if hidden:
            layers = nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, total)
            self.trans = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self) -> list[KeyValue]:
        """Returns: keys and values (1, heads, length, head width) for each layer."""
        table = self.dropout(self.trans(self.embedding.weight))
        table = table.unflatten(1, (self.num_layers, 2, self.num_heads, -1))
        # (layers, 2, 1, heads, length, head width)
        table = table.permute(1, 2, 3, 0, 4).unsqueeze(2)
        return [(layer[0], layer[1]) for layer in table]


class Adapter(nn.Module):
    """A bottleneck with its own residual (Houlsby et al. 2019)."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(width, bottleneck)
        self.up_proj = nn.Linear(bottleneck, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up_proj(F.relu(self.down_proj(x)))


class LoraLinear(nn.Linear):
    """``x W^T + b + alpha / rank * dropout(x) A^T B^T`` with W and b of ``layer``, A (rank, in) and
    B (out, rank), which starts at zero."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_down = nn.Parameter(torch.empty(rank, self.in_features).to(layer.weight))
        self.lora_up = nn.Parameter(torch.zeros(self.out_features, rank).to(layer.weight))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))
        self.scale = alpha / rank
        self.lora_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        learned = F.linear(F.linear(self.lora_dropout(x), self.lora_down), self.lora_up)
        return F.linear(x, self.weight, self.bias) + learned * self.scale

    def merge_lora(self) -> nn.Linear:
        """A plain layer that computes the same in evaluation mode."""
        plain = nn.Linear(self.in_features, self.out_features, device="meta")
        weight = self.weight + self.scale * self.lora_up @ self.lora_down
        plain.weight = nn.Parameter(weight.detach(), requires_grad=False)
        plain.bias = self.bias
        return plain


def add_lora(model: nn.Module, config: ModelConfig) -> None:
    """Replace the linear layers of encoder and decoder that ``--lora-targets`` names."""
    endings = {LORA_TARGETS[name] for name in config.lora_target_names}
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if type(module) is nn.Linear and name in endings and not path.startswith(UNTOUCHED):
            lora = LoraLinear(module, config.lora_rank, config.lora_alpha, config.lora_dropout)
            setattr(model.get_submodule(parent), name, lora)


def freeze(model: Any) -> None:
    """Prefix prompts, adapters, LoRA and the biases of BitFit train alone (or with each other);
    embeddings may be frozen. ``model`` has no classification heads yet: these always train."""
    config: ModelConfig = model.config
    if config.peft_methods:
        wanted = [OF_METHOD[method] for method in config.peft_methods]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(trains(name) for trains in wanted))
    if config.freeze_encoder_embedding or config.adapter:
        model.encoder.embed_tokens.weight.requires_grad_(False)
    if config.freeze_decoder_embedding or config.adapter:
        model.decoder.embed_tokens.weight.requires_grad_(False)


def tuned_names(model: nn.Module) -> set[str]:
    """Names in the state dict of what changes when only few weights train: those and the heads."""
    parameters = model.named_parameters(remove_duplicate=False)
    names = {name for name, parameter in parameters if parameter.requires_grad}
    return names | {name for name in nn.Module.state_dict(model) if name.startswith(HEADS)}
