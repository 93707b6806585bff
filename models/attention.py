"""Multi-head attention with an additive bias.

torch's fused kernel does not differentiate its mask: with a trained bias every attention weight
would be stored. On a CPU the forward pass is the fused kernel here, and the backward pass makes the
weights again, a few samples at a time: less memory, and faster.

Letters: B batch, T query positions, S key positions, H heads, D width of a head, C = H * D.
"""

from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.positions import split_heads

KeyValue = tuple[Tensor, Tensor]  # (B, H, S, D) each
LARGEST_WEIGHTS = 1 << 19  # attention weights remade at a time: 2 MB stay in a core's cache


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
        """Keys and values of what is attended to. Args: source: (B, S, C)."""
        keys, values = self.k_proj(source), self.v_proj(source)
        return split_heads(keys, self.num_heads), split_heads(values, self.num_heads)

    def forward(
        self,
        x: Tensor,
        source: KeyValue,
        bias: Optional[Tensor],
        padding_mask: Optional[Tensor] = None,
    ) -> Tensor:
        """Attention of the positions of ``x`` to those of ``source``: (B, T, C).

        Args:
            x: (B, T, C).
            source: what ``keys_values`` returned, perhaps with a prompt before it.
            bias: (1 or B, H, T, S), added to the scores.
            padding_mask: bool[B, S], True is padding; None if the bias includes it.
        """
        query = split_heads(self.q_proj(x), self.num_heads)
        dropout = self.dropout if self.training else 0.0
        y = attend(query, *source, bias, padding_mask, self.scale, dropout)
        if self.c_attn is not None:
            y = y * self.c_attn[:, None, None]
        return self.out_proj(y.transpose(1, 2).flatten(2))  # (B, H, T, D) -> (B, T, C)

    def weights(self, x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """The attention weights themselves, averaged over heads, for looking at: (B, T, S)."""
        query = split_heads(self.q_proj(x), self.num_heads) * self.scale
        return (query @ keys.mT + bias).softmax(-1).mean(1)


def with_prompt(source: KeyValue, prompt: Optional[KeyValue]) -> KeyValue:
    """Put the keys and values of a prompt, (1, H, prompt length, D), before those of the input."""
    if prompt is None:
        return source
    keys, values = (
        torch.cat([p.expand(x.size(0), -1, -1, -1), x], dim=2) for p, x in zip(prompt, source)
    )
    return keys, values


def pad_for_prompt(x: Tensor, length: int) -> Tensor:
    """Columns for prompt keys before a bias or a padding mask: without position, never masked."""
    return F.pad(x, (length, 0)) if length else x


def needs_mask(padding_mask: Tensor, known: Optional[bool]) -> bool:
    """Whether a padding mask has to be applied; where nobody knows, a mask of nothing is applied
    rather than looked at, which a GPU would have to finish its work for.

    Args: known: whether there is padding, if the host knows it.
    """
    if known is not None:
        return known
    looks = padding_mask.device.type == "cpu" and not torch.compiler.is_compiling()
    return bool(padding_mask.any()) if looks else True


def mask_bias(bias: Tensor, padding_mask: Optional[Tensor]) -> Tensor:
    """Forbid padded keys. Args: bias: (1 or B, H, T, S); padding_mask: bool[B, S], True is padding.

    The smallest finite number is their bias, so that a row without any key stays finite.
    """
    if padding_mask is None:
        return bias
    return bias.masked_fill(padding_mask[:, None, None, :], torch.finfo(bias.dtype).min)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Optional[Tensor],
    padding_mask: Optional[Tensor],
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Values averaged by the attention weights: (B, H, T, D).

    Args:
        query: (B, H, T, D); keys, values: (B, H, S, D).
        bias: (1 or B, H or 1, T, S), added to the scaled scores.
        padding_mask: bool[B, S], True is padding.
    """
    if bias is None:
        assert padding_mask is None
        return F.scaled_dot_product_attention(query, keys, values, dropout_p=dropout, scale=scale)
    trains_bias = torch.is_grad_enabled() and bias.requires_grad
    on_cpu = query.device.type == "cpu" and query.dtype == bias.dtype == torch.float32
    if trains_bias and on_cpu and dropout == 0:
        return BiasedAttention.apply(query, keys, values, bias, padding_mask, scale)
    mask = mask_bias(bias, padding_mask).to(query.dtype)
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, dropout_p=dropout, scale=scale
    )


class BiasedAttention(torch.autograd.Function):
    """``attend`` for float32 on CPU without dropout."""

    @staticmethod
    def forward(ctx, query, keys, values, bias, padding_mask, scale):
        output, _ = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, False, attn_mask=mask_bias(bias, padding_mask), scale=scale
        )
        ctx.save_for_backward(query, keys, values, bias, padding_mask, output)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx, grad_output):
        query, keys, values, bias, padding_mask, output = ctx.saved_tensors
        rows_at_a_time = max(1, LARGEST_WEIGHTS // (query.size(1) * query.size(2) * keys.size(2)))
        grad_query, grad_keys, grad_values = map(torch.empty_like, (query, keys, values))
        grad_bias = torch.zeros_like(bias)
        expected = (grad_output * output).sum(-1, keepdim=True)  # (B, H, T, 1)
        for start in range(0, query.size(0), rows_at_a_time):
            rows = slice(start, start + rows_at_a_time)  # n samples
            of_bias = rows if bias.size(0) > 1 else slice(0, 1)
            # (n H, T or S, D)
            q, k, v, grad = (x[rows].flatten(0, 1) for x in (query, keys, values, grad_output))
            shape = (*query[rows].shape[:3], keys.size(2))  # (n, H, T, S)
            padding = None if padding_mask is None else padding_mask[rows]
            mask = mask_bias(bias[of_bias], padding).expand(shape).flatten(0, 1)
            weights = torch.baddbmm(mask, q, k.mT, alpha=ctx.scale).view(shape).softmax(-1)
            grad_values[rows] = torch.bmm(weights.flatten(0, 1).mT, grad).view_as(values[rows])
            grad_scores = torch.bmm(grad, v.mT).view(shape).sub_(expected[rows]).mul_(weights)
            grad_bias[of_bias] += grad_scores.sum_to_size(bias[of_bias].shape)
            scores = grad_scores.flatten(0, 1)
            grad_q, grad_k = torch.bmm(scores, k), torch.bmm(scores.mT, q)
            torch.mul(grad_q.view_as(query[rows]), ctx.scale, out=grad_query[rows])
            torch.mul(grad_k.view_as(keys[rows]), ctx.scale, out=grad_keys[rows])
        return grad_query, grad_keys, grad_values, grad_bias, None, None
