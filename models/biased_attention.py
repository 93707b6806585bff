"""Attention with a learned bias, on CPU, in training.

torch's fused kernel does not differentiate its mask, so with a trained bias ``scaled_dot_product_attention``
falls back to storing every attention weight. Here the forward pass is the fused kernel, and the backward pass
makes the weights again, one sample at a time, from the logarithms of their sums: less memory, and faster.

Letters: B batch, H heads, T query positions, S key positions, D width of a head.
"""

from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_bias(bias: Tensor, padding_mask: Optional[Tensor]) -> Tensor:
    """Forbid padded keys. Args: bias: (1 or B, H, T, S); padding_mask: bool[B, S], True is padding.

    The smallest finite number stands for minus infinity, so that a row without any key stays finite.
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
    """Args:

        query: (B, H, T, D); keys, values: (B, H, S, D).
        bias: (1 or B, H or 1, T, S), added to the scaled scores. padding_mask: bool[B, S], True is padding.

    Returns: (B, H, T, D).
    """
    if bias is None:
        assert padding_mask is None
        return F.scaled_dot_product_attention(query, keys, values, dropout_p=dropout, scale=scale)
    trains_bias = torch.is_grad_enabled() and bias.requires_grad
    if (
        trains_bias
        and dropout == 0
        and query.device.type == "cpu"
        and query.dtype == bias.dtype == torch.float32
    ):
        return BiasedAttention.apply(query, keys, values, bias, padding_mask, scale)
    mask = mask_bias(bias, padding_mask).to(query.dtype)
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, dropout_p=dropout, scale=scale)


class BiasedAttention(torch.autograd.Function):
    """``attend`` for float32 on CPU without dropout."""

    @staticmethod
    def forward(ctx, query, keys, values, bias, padding_mask, scale):
        output, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, False, attn_mask=mask_bias(bias, padding_mask), scale=scale
        )
        ctx.save_for_backward(query, keys, values, bias, padding_mask, output, log_sums)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx, grad_output):
        query, keys, values, bias, padding_mask, output, log_sums = ctx.saved_tensors
        grad_query, grad_keys, grad_values = (
            torch.empty_like(query),
            torch.empty_like(keys),
            torch.empty_like(values),
        )
        grad_bias = torch.zeros_like(bias)
        expected = (grad_output * output).sum(-1, keepdim=True)  # (B, H, T, 1)
        for row in range(query.size(0)):
            of_bias = row if bias.size(0) > 1 else 0
            weights = torch.baddbmm(
                bias[of_bias].expand(query.size(1), -1, -1), query[row], keys[row].mT, alpha=ctx.scale
            )
            weights.sub_(log_sums[row].unsqueeze(-1)).exp_()  # (H, T, S)
            if padding_mask is not None:
                weights.masked_fill_(padding_mask[row], 0.0)
            grad_values[row] = weights.mT @ grad_output[row]
            grad_scores = grad_output[row] @ values[row].mT
            grad_scores.sub_(expected[row]).mul_(weights)
            grad_bias[of_bias] += grad_scores.sum(0, keepdim=True) if bias.size(1) == 1 else grad_scores
            torch.bmm(grad_scores, keys[row], out=grad_query[row]).mul_(ctx.scale)
            torch.bmm(grad_scores.mT, query[row], out=grad_keys[row]).mul_(ctx.scale)
        return grad_query, grad_keys, grad_values, grad_bias, None, None
