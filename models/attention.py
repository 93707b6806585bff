"""Multi-head attention with an additive bias.

Letters: B batch, T query positions, S key positions, H heads, D width of a head, C = H * D.
"""

from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.biased_attention import attend
from ofa.models.positions import split_heads

KeyValue = tuple[Tensor, Tensor]  # (B, H, S, D) each


class MultiheadAttention(nn.Module):
    """Attention whose scores are scaled by ``(D * scale_factor) ** -0.5`` and shifted by a bias.

    Args: scale_heads: multiply each head by a learned number before the output projection.
    """

    def __init__(
        self, width: int, num_heads: int, dropout: float, scale_factor: float, scale_heads: bool
    ) -> None:
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
        return split_heads(self.k_proj(source), self.num_heads), split_heads(
            self.v_proj(source), self.num_heads
        )

    def forward(
        self,
        x: Tensor,
        source: KeyValue,
        bias: Optional[Tensor],
        padding_mask: Optional[Tensor] = None,
    ) -> Tensor:
        """Args:

            x: (B, T, C).
            bias: (1 or B, H, T, S). padding_mask: bool[B, S], unless the bias includes it.

        Returns: (B, T, C).
        """
        query = split_heads(self.q_proj(x), self.num_heads)
        dropout = self.dropout if self.training else 0.0
        y = attend(query, *source, bias, padding_mask, self.scale, dropout)
        if self.c_attn is not None:
            y = y * self.c_attn[:, None, None]
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, H, T, D) -> (B, T, C)

    def weights(self, x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """The attention weights themselves, averaged over heads, for looking at: (B, T, S)."""
        scores = (
            split_heads(self.q_proj(x), self.num_heads) * self.scale @ keys.transpose(-1, -2) + bias
        )
        return scores.softmax(-1).mean(1)


def with_prompt(source: KeyValue, prompt: Optional[KeyValue]) -> KeyValue:
    """Put the keys and values of a prompt, (1, H, prompt length, D), before those of the input."""
    if prompt is None:
        return source
    batch = source[0].size(0)
    keys, values = (
        torch.cat([p.expand(batch, -1, -1, -1), x], dim=2) for p, x in zip(prompt, source)
    )
    return keys, values


def pad_for_prompt(x: Tensor, length: int) -> Tensor:
    """Columns for prompt keys before a bias or a padding mask: without position, never masked."""
    return F.pad(x, (length, 0)) if length else x
