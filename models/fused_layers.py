"""A decoder's layers for steps of one token on a GPU, which takes as long to begin a small operator
as to compute it: the same numbers in fewer operators.

Queries, keys and values are one product, factors of heads are part of the output projection, and
LoRA is part of the weights. The weights for it are copies, in memory that stays: a CUDA graph reads
them there.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ofa.models.attention import MultiheadAttention, Stacked
from ofa.models.inference_weights import PackedLinear, shallow_copy
from ofa.models.layers import DecoderLayer
from ofa.models.peft import LoraLinear


class FusedLinear(nn.Linear):
    """Linear layers of one input as a single one, their outputs behind each other.

    Args: factors: float[H], which the heads of the input are multiplied by before.
    """

    def __init__(self, layers: Sequence[nn.Module], factors: Optional[Tensor] = None) -> None:
        nn.Module.__init__(self)
        self.layers, self.factors = list(layers), factors  # a list: no submodules
        weights, biases = self.read()
        self.weight = nn.Parameter(torch.cat(weights), requires_grad=False)
        self.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
        self.refresh()

    def read(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases of the layers, as they are now."""
        plain: list[Any] = [
            layer.merge_lora() if isinstance(layer, LoraLinear) else layer for layer in self.layers
        ]
        return [layer.weight for layer in plain], [layer.bias for layer in plain]

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights again, which may have changed."""
        for copy, tensors in zip((self.weight, self.bias), self.read()):
            torch.cat(tensors, out=copy)
        if self.factors is not None:
            self.weight.unflatten(1, (len(self.factors), -1)).mul_(self.factors[:, None])


class FusedAttention(MultiheadAttention):
    """Computes what ``attention`` does. Args: to_itself: it is self-attention."""

    def __init__(self, attention: MultiheadAttention, to_itself: bool) -> None:
        nn.Module.__init__(self)
        self.num_heads, self.scale, self.c_attn = attention.num_heads, attention.scale, None
        self.dropout, self.training = attention.dropout, attention.training
        keys, values, query = attention.k_proj, attention.v_proj, attention.q_proj
        if to_itself:
            self.in_proj = FusedLinear([keys, values, query])
        else:
            self.k_proj, self.v_proj, self.q_proj = keys, values, FusedLinear([query])
        self.out_proj = FusedLinear([attention.out_proj], attention.c_attn)

    def project(self, x: Tensor) -> tuple[Stacked, Tensor]:
        every = self.in_proj(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return every[:2], every[2]


class FusedLayers(nn.ModuleList):
    """The layers of a decoder in evaluation mode."""

    def __init__(self, layers: Iterable[DecoderLayer]) -> None:
        super().__init__(map(fuse_attention, layers))

    def refresh(self) -> None:
        """After the weights of the layers may have changed in place."""
        for module in self.modules():
            if isinstance(module, FusedLinear):
                module.refresh()


def fuse_attention(layer: DecoderLayer) -> DecoderLayer:
    """The layer with both of its attentions fused, as far as they are of linear layers we know."""
    fused = shallow_copy(layer)
    fused._modules = {**layer._modules}
    for name in ("self_attn", "encoder_attn"):
        attention = getattr(layer, name)
        parts = attention.k_proj, attention.v_proj, attention.q_proj, attention.out_proj
        if all(type(part) in (nn.Linear, PackedLinear, LoraLinear) for part in parts):
            fused._modules[name] = FusedAttention(attention, to_itself=name == "self_attn")
    return fused
