"""Multi-head attention with an additive bias.

Letters: B batch, T query positions, S key positions, H heads, D width of a head, C = H * D.
"""

from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.positions import split_heads

KeyValue = tuple[Tensor, Tensor]  # (B, H, S, D) each


def mask_bias(bias: Tensor, padding_mask: Optional[Tensor]) -> Tensor:
    """Forbid padded keys. Args: bias: (1 or B, H, T, S); padding_mask: bool[B, S], True is padding.

    The smallest finite number stands for minus infinity, so that a row without any key stays finite.
    """
    if padding_mask is None:
        return bias
    return bias.masked_fill(padding_mask[:, None, None, :], torch.finfo(bias.dtype).min)


class MultiheadAttention(nn.Module):
    """Attention whose scores are scaled by ``(D * scale_factor) ** -0.5`` and shifted by a bias.

    Args: scale_heads: multiply each head by a learned number before the output projection.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, scale_factor: float, scale_heads: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.scale = (width // num_heads * scale_factor) ** -0.5
        self.c_attn = nn.Parameter(torch.ones(num_heads)) if scale_heads else None
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def keys_values(self, source: Tensor) -> KeyValue:
        """Args: source: (B, S, C)."""
        return split_heads(self.k_proj(source), self.num_heads), split_heads(self.v_proj(source), self.num_heads)

    def forward(self, x: Tensor, source: KeyValue, bias: Optional[Tensor]) -> Tensor:
        """Args: x: (B, T, C); bias: broadcastable to (B, H, T, S), padding included. Returns: (B, T, C)."""
        query = split_heads(self.q_proj(x), self.num_heads)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(query, *source, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        if self.c_attn is not None:
            y = y * self.c_attn[:, None, None]
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, H, T, D) -> (B, T, C)

    def weights(self, x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """The attention weights themselves, averaged over heads, for looking at: (B, T, S)."""
        scores = split_heads(self.q_proj(x), self.num_heads) * self.scale @ keys.transpose(-1, -2) + bias
        return scores.softmax(-1).mean(1)


def with_prompt(source: KeyValue, prompt: Optional[KeyValue]) -> KeyValue:
    """Put the keys and values of a prompt, (1, H, prompt length, D), before those of the input."""
    if prompt is None:
        return source
    batch = source[0].size(0)
    return tuple(torch.cat([p.expand(batch, -1, -1, -1), x], dim=2) for p, x in zip(prompt, source))


def pad_for_prompt(bias: Tensor, length: int) -> Tensor:
    """Prompt keys have no position: their bias is 0, and they are never masked."""
    return F.pad(bias, (length, 0)) if length else bias
