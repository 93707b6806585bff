"""The encoder layer, the decoder layer, and their small parts.

Letters: B batch, T positions, C width.
"""

from collections.abc import Callable
from functools import partial
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.attention import KeyValue, MultiheadAttention, with_prompt
from ofa.models.config import ModelConfig
from ofa.models.peft import Adapter

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # no lambdas: networks are pickled
    "gelu": F.gelu,
    "gelu_accurate": partial(F.gelu, approximate="tanh"),
    "gelu_fast": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
    "linear": torch.positive,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Raises: UserError that lists the known names."""
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def norm_if(wanted: bool, width: int) -> nn.Module:
    """A LayerNorm, or what leaves its input alone and has no weights."""
    return nn.LayerNorm(width) if wanted else nn.Identity()


class DropPath(nn.Module):
    """Stochastic depth: drops a block's output for whole samples, and scales the others up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = x.new_empty(x.size(0), *(1,) * (x.dim() - 1)).bernoulli_(1 - self.rate)
        return x * keep.div_(1 - self.rate)


class Layer(nn.Module):
    """What both layers share: residual connections and the feed-forward block.

    The order in which modules are made is the order of upstream's state dict.
    """

    fc1: nn.Linear
    fc2: nn.Linear
    ffn_layernorm: nn.Module
    final_layer_norm: nn.LayerNorm

    def __init__(
        self, config: ModelConfig, width: int, drop_path: float, normalize_before: bool
    ) -> None:
        super().__init__()
        self.w_resid = nn.Parameter(torch.ones(width)) if config.scale_resids else None
        self.adapter = Adapter(width, config.adapter_dim) if config.adapter else nn.Identity()
        self.normalize_before = normalize_before
        self.activation = activation(config.activation_fn)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def residual(
        self, x: Tensor, norm: nn.LayerNorm, block: Callable, scale: Optional[Tensor] = None
    ) -> Tensor:
        """``scale * x + block(x)``, normed before or at the end: (B, T, C) -> (B, T, C)."""
        y = self.drop_path(block(norm(x) if self.normalize_before else x))
        x = (x if scale is None else scale * x) + y
        return x if self.normalize_before else norm(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.activation_dropout(self.activation(self.fc1(x)))
        return self.adapter(self.dropout(self.fc2(self.ffn_layernorm(hidden))))


def attention_of(config: ModelConfig, width: int, num_heads: int) -> MultiheadAttention:
    dropout, scale_factor = config.attention_dropout, config.attn_scale_factor
    return MultiheadAttention(width, num_heads, dropout, scale_factor, config.scale_heads)


class EncoderLayer(Layer):
    """Self-attention over patches and text together, then feed-forward."""

    def __init__(self, config: ModelConfig, drop_path: float) -> None:
        width, hidden = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        super().__init__(config, width, drop_path, config.encoder_normalize_before)
        self.self_attn = attention_of(config, width, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.attn_ln = norm_if(config.scale_attn, width)
        self.ffn_layernorm = norm_if(config.scale_fc, hidden)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        padding_mask: Optional[Tensor],
        prompt: Optional[KeyValue] = None,
    ) -> Tensor:
        """Args:

        x: (B, T, C). prompt: keys and values put before those of x.
        bias: (1 or B, H, T, prompt length + T). padding_mask: bool[B, prompt length + T].
        """

        def attend(y: Tensor) -> Tensor:
            source = with_prompt(self.self_attn.keys_values(y), prompt)
            return self.dropout(self.attn_ln(self.self_attn(y, source, bias, padding_mask)))

        x = self.residual(x, self.self_attn_layer_norm, attend)
        return self.residual(x, self.final_layer_norm, self.feed_forward, self.w_resid)


class DecoderLayer(Layer):
    """Causal self-attention, attention to the encoder's output, feed-forward."""

    def __init__(self, config: ModelConfig, drop_path: float) -> None:
        width, hidden = config.decoder_embed_dim, config.decoder_ffn_embed_dim
        super().__init__(config, width, drop_path, config.decoder_normalize_before)
        self.self_attn = attention_of(config, width, config.decoder_attention_heads)
        self.self_attn_ln = norm_if(config.scale_attn, width)
        self.cross_attn_ln = norm_if(config.scale_attn, width)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = attention_of(config, width, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.ffn_layernorm = norm_if(config.scale_fc, hidden)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        extend: Callable[[KeyValue], KeyValue],
        bias: Tensor,
        source: KeyValue,
        source_bias: Tensor,
    ) -> Tensor:
        """One layer for a whole target, or for the next tokens of all beams.

        Args:
            x: (N, T, C). N is B, or B * beams; beams that share an image attend to it side by side.
            extend: puts earlier keys and values (a prompt, the cache) before those of x.
            bias: (1 or N, H, T, all keys), the causal mask included.
            source: cross-attention keys and values (B, H, S, D), computed once per image.
            source_bias: (1 or B, H, N / B * T, S), padding included.
        """

        def attend(y: Tensor) -> Tensor:
            y = self.self_attn(y, extend(self.self_attn.keys_values(y)), bias)
            return self.dropout(self.self_attn_ln(y))

        def attend_source(y: Tensor) -> Tensor:
            side_by_side = y.reshape(source[0].size(0), -1, y.size(-1))  # (B, beams * T, C)
            y = self.encoder_attn(side_by_side, source, source_bias).view_as(y)
            return self.dropout(self.cross_attn_ln(y))

        x = self.residual(x, self.self_attn_layer_norm, attend)
        x = self.residual(x, self.encoder_attn_layer_norm, attend_source)
        return self.residual(x, self.final_layer_norm, self.feed_forward, self.w_resid)
