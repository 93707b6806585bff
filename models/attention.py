"""Multi-head attention with an additive bias.

torch's fused kernels do not differentiate their mask on a CPU: with a trained bias every attention
weight would be stored. There the forward pass is the fused kernel here, and the backward pass makes
the weights again, a few samples at a time: less memory, and faster. In training on GPUs a large
bias is never put together (``flex_attention.py``); others are one for all samples, and padding is
no part of them, so that no (B, H, T, S) is made and kept. ``takes_parts`` and ``choose_kernel``
decide; the environment variable OFA_ATTENTION changes their choice.

Letters: B batch, T query positions, S key positions, H heads, D width of a head, C = H * D.
"""

import os
from collections.abc import Callable
from typing import Optional, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.flex_attention import BiasParts, attend_by_parts
from ofa.models.positions import split_heads
from ofa.models.recompute import cheap

KeyValue = tuple[Tensor, Tensor]  # (B, H, S, D) each
Stacked = Tensor  # keys and values as one tensor (2, B, H, S, D)
Bias = Union[Tensor, BiasParts]  # (1 or B, H, T, S), or what it is the sum of
LARGEST_WEIGHTS = 1 << 19  # attention weights remade at a time: 2 MB stay in a core's cache
LARGE_MASK = 1 << 23  # numbers of a (B, H, T, S); making a smaller one beats widening the heads
COLUMNS = 8  # by which heads are widened: kernels want widths of multiples of 8 in 16 bits
FORBIDDEN = -1e4  # score of a padded key: exp(-1e4) is 0, and 16 bits hold its parts

CHOICES = {
    "auto": "the kernel that suits device, type and size",
    "flex": "in training FlexAttention for all types and sizes, on GPUs from sm_80 on",
    "shared": "never FlexAttention: one bias for all samples of a batch",
    "masked": "a bias for each sample, padding included",
    "cudnn": "as masked, and torch may take cuDNN's kernel",
}


def read_choice() -> str:
    """OFA_ATTENTION. Raises: UserError that lists the known values."""
    choice = os.environ.get("OFA_ATTENTION", "auto")
    if choice not in CHOICES:
        known = "; ".join(f"{name}: {what}" for name, what in CHOICES.items())
        raise UserError(f"unknown OFA_ATTENTION={choice!r}; known: {known}")
    return choice


CHOICE = read_choice()
# Where a bias needs no gradient torch 2.11 takes cuDNN's kernel on an H100 and newer. It makes a
# plan for each new shape, about half a second, and generation has a new shape for every token.
torch.backends.cuda.enable_cudnn_sdp(CHOICE == "cudnn")


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

    def project(self, x: Tensor) -> tuple[KeyValue | Stacked, Tensor]:
        """Keys and values, and queries (B, H, T, D), of self-attention. Args: x: (B, T, C)."""
        return self.keys_values(x), split_heads(self.q_proj(x), self.num_heads)

    def forward(
        self,
        x: Tensor,
        source: KeyValue,
        bias: Optional[Bias],
        padding_mask: Optional[Tensor] = None,
        query: Optional[Tensor] = None,
    ) -> Tensor:
        """Attention of the positions of ``x`` to those of ``source``: (B, T, C).

        Args:
            x: (B, T, C).
            source: what ``keys_values`` returned, perhaps with a prompt before it.
            bias: (1 or B, H, T, S), added to the scores; or its parts.
            padding_mask: bool[B, S], True is padding; None if the bias includes it.
            query: that of ``project``, where it was called.
        """
        if query is None:
            query = split_heads(self.q_proj(x), self.num_heads)
        dropout = self.dropout if self.training else 0.0
        y = attend(query, *source, bias, padding_mask, self.scale, dropout)
        merged = merge_heads(y) if self.c_attn is None else cheap(merge_heads, y, self.c_attn)
        return self.out_proj(merged)

    def weights(self, x: Tensor, keys: Tensor, bias: Tensor) -> Tensor:
        """The attention weights themselves, averaged over heads, for looking at: (B, T, S)."""
        query = split_heads(self.q_proj(x), self.num_heads) * self.scale
        return (query @ keys.mT + bias).softmax(-1).mean(1)


def merge_heads(y: Tensor, factors: Optional[Tensor] = None) -> Tensor:
    """(B, H, T, D) -> (B, T, C). Args: factors: (H,), of each head."""
    scaled = y if factors is None else y * factors[:, None, None]
    return scaled.transpose(1, 2).flatten(2)


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
    bias: Optional[Bias],
    padding_mask: Optional[Tensor],
    scale: float,
    dropout: float = 0.0,
    kernel: Optional["Kernel"] = None,
) -> Tensor:
    """Values averaged by the attention weights: (B, H, T, D).

    Args:
        query: (B, H, T, D); keys, values: (B, H, S, D).
        bias: (1 or B, H or 1, T, S), added to the scaled scores; or its parts, padding included.
        padding_mask: bool[B, S], True is padding.
        kernel: default: that of ``choose_kernel``.
    """
    if isinstance(bias, BiasParts):
        assert padding_mask is None and dropout == 0
        return attend_by_parts(query, keys, values, bias, scale)
    if bias is None:
        assert padding_mask is None
        return F.scaled_dot_product_attention(query, keys, values, dropout_p=dropout, scale=scale)
    kernel = kernel or choose_kernel(query, bias, dropout)
    return kernel(query, keys, values, bias, padding_mask, scale, dropout)


# (query, keys, values, bias, padding mask, scale, dropout) -> values averaged
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Optional[Tensor], float, float], Tensor]


def choose_kernel(query: Tensor, bias: Tensor, dropout: float) -> Kernel:
    """Of a bias that is put together, by device, type and OFA_ATTENTION."""
    trains = torch.is_grad_enabled()
    if query.device.type == "cpu":
        float32 = query.dtype == bias.dtype == torch.float32
        remakes = trains and bias.requires_grad and float32 and dropout == 0
        remakes = remakes and not torch.compiler.is_compiling()  # its gradient is no graph
        return remade_weights_attention if remakes else masked_attention
    if query.device.type != "cuda" or CHOICE in ("masked", "cudnn"):
        return masked_attention
    return shared_bias_attention


# ------------------------------------------------------------------ the kernels


def masked_attention(query, keys, values, bias, padding_mask, scale, dropout) -> Tensor:
    """With a bias that includes the padding, (B, H, T, S) where there is any."""
    # cuDNN's kernel misreads a float32 bias of 16-bit queries
    mask = mask_bias(bias, padding_mask).to(query.dtype)
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, dropout_p=dropout, scale=scale
    )


def shared_bias_attention(query, keys, values, bias, padding_mask, scale, dropout) -> Tensor:
    """A bias shared by all samples stays (1, H, T, S): padding is told by further columns of the
    queries, all ones, and of the keys, 0 or a number that forbids the key."""
    if padding_mask is not None and bias.size(0) == 1 < query.size(0):
        if torch.compiler.is_compiling() or query.size(0) * bias.numel() >= LARGE_MASK:
            query, keys = add_padding_columns(query, keys, padding_mask, scale)
            padding_mask = None
    return masked_attention(query, keys, values, bias, padding_mask, scale, dropout)


def add_padding_columns(
    query: Tensor, keys: Tensor, padding_mask: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Wider queries and keys, (B, H, T or S, D + 8), whose scores are the same, but 10 000 lower
    where the key is padding. At a scale of 0.5, for 2 columns instead of 8:

        [0.3, 0.2] -> [0.3, 0.2, 1, 1]
        [0.1, 0.4] -> [0.1, 0.4, 0, 0], or [0.1, 0.4, -10000, -10000] if padded
    """
    ones = query.new_ones(1).expand(*query.shape[:3], COLUMNS)
    number = FORBIDDEN / (COLUMNS * scale)
    forbidden = (padding_mask.to(keys.dtype) * number)[:, None, :, None]
    forbidden = forbidden.expand(*keys.shape[:3], COLUMNS)
    return torch.cat([query, ones], -1), torch.cat([keys, forbidden], -1)


def remade_weights_attention(query, keys, values, bias, padding_mask, scale, dropout) -> Tensor:
    assert dropout == 0
    return BiasedAttention.apply(query, keys, values, bias, padding_mask, scale)


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
