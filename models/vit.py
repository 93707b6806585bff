"""The other image stem: lower layers of a CLIP vision transformer, stride 16, no class token."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.positions import split_heads

VITS = {"ViT-B/16": dict(image_size=224, patch_size=16, width=768, num_layers=9, num_heads=12)}


class QuickGELU(nn.Module):
    """CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class PackedAttention(nn.Module):
    """Self-attention with all projections in one matrix (CLIP's parameter names)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.num_heads) for part in packed)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = PackedAttention(width, num_heads)
        self.ln_1 = nn.LayerNorm(width)
        c_fc, c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=c_fc, gelu=QuickGELU(), c_proj=c_proj))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    """Args: image_size: side in pixels of the position table, which other sizes interpolate."""

    def __init__(
        self, image_size: int, patch_size: int, width: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        self.channels = width
        self.grid = image_size // patch_size
        self.positional_embedding = nn.Parameter(torch.randn(self.grid**2 + 1, width) * width**-0.5)
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})

    def forward(self, images: Tensor) -> Tensor:
        """float[B, 3, height, width] -> float[B, channels, height / 16, width / 16]."""
        x = self.conv1(images)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + self.positions(height, width).to(x.dtype)  # (B, P, C)
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"].children():
            x = block(x)
        return x.transpose(1, 2).unflatten(2, (height, width))

    def positions(self, height: int, width: int) -> Tensor:
        """(height * width, C)."""
        table = self.positional_embedding[1:]  # row 0 belonged to CLIP's class token
        if (height, width) == (self.grid, self.grid):
            return table
        table = table.T.unflatten(1, (self.grid, self.grid))[None]
        return F.interpolate(table, size=(height, width), mode="bilinear")[0].flatten(1).T
