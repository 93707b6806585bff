"""LoRA: a linear layer learns a product of two thin matrices beside its own weight (Hu et al.
2021).

The names of the layer's own weight and bias stay, so that a checkpoint without LoRA loads as it is.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.config import LORA_TARGETS, ModelConfig

# the image stem, and what trains anyway
UNTOUCHED = ("encoder.embed_images", "classification_heads")


class LoraLinear(nn.Linear):
    """``x W^T + b + alpha / rank * dropout(x) A^T B^T`` with A (rank, in) and B (out, rank), which
    starts at zero.

    Args: layer: whose weight and bias it takes over.
    """

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
        plain = nn.utils.skip_init(
            nn.Linear, self.in_features, self.out_features, self.bias is not None, device="meta"
        )
        weight = self.weight + self.scale * self.lora_up @ self.lora_down
        plain.weight = nn.Parameter(weight.detach(), requires_grad=False)
        plain.bias = self.bias
        return plain


def add_lora(model: nn.Module, config: ModelConfig) -> None:
    """Replace the linear layers that ``--lora-targets`` names, in every layer of encoder and
    decoder."""
    endings = {LORA_TARGETS[name] for name in config.lora_target_names}
    for path, module in list(model.named_modules()):
        if (
            type(module) is nn.Linear
            and path.split(".")[-1] in endings
            and not path.startswith(UNTOUCHED)
        ):
            parent = model.get_submodule(path.rpartition(".")[0])
            lora = LoraLinear(module, config.lora_rank, config.lora_alpha, config.lora_dropout)
            setattr(parent, path.split(".")[-1], lora)
