"""Small parts, the encoder layer and the decoder layer of them, and a stack of layers.

Letters: B batch, H heads, T positions, C width.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial
from typing import Any, Optional, Union

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ofa.errors import UserError
from ofa.models.attention import (
    Bias,
    KeyValue,
    MultiheadAttention,
    needs_mask,
    pad_for_prompt,
    with_prompt,
)
from ofa.models.attention_trial import Kind, takes_parts
from ofa.models.config import ModelConfig
from ofa.models.flex_attention import BiasParts, join_parts, table_of_parts
from ofa.models.peft import Adapter, PrefixPrompt
from ofa.models.positions import (
    bucket_bias,
    image_buckets,
    num_image_buckets,
    split_heads,
    token_bucket_rows,
    token_buckets,
)
from ofa.models.recompute import cheap, recomputing, recomputing_pays

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


def rising_rates(last: float, count: int) -> list[float]:
    """Drop path rates of the blocks of a stack: from 0 to ``last`` in equal steps."""
    return [last * block / max(1, count - 1) for block in range(count)]


class DropPath(nn.Module):
    """Stochastic depth: drops a block's output for whole samples, and scales the others up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        # a program takes the rate as an input: layers of other rates share it
        compiles = torch.compiler.is_compiling()
        if not self.training or not compiles and self.rate == 0.0:
            return x
        shape = x.size(0), *(1,) * (x.dim() - 1)
        if compiles:
            keep = torch.rand(shape, device=x.device) >= self.rate
            return x * (keep / (1 - self.rate)).to(x.dtype)
        keep = x.new_empty(shape).bernoulli_(1 - self.rate)
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
        y = self.drop_path(block(cheap(norm, x) if self.normalize_before else x))
        x = (x if scale is None else scale * x) + y
        return x if self.normalize_before else norm(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.activation_dropout(cheap(self.activation, self.fc1(x)))
        return self.adapter(self.dropout(self.fc2(cheap(self.ffn_layernorm, hidden))))


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
        bias: Bias,
        padding_mask: Optional[Tensor],
        prompt: Optional[KeyValue] = None,
    ) -> Tensor:
        """Args:

        x: (B, T, C). prompt: keys and values put before those of x.
        bias: (1 or B, H, T, prompt length + T), or its parts, padding included.
        padding_mask: bool[B, prompt length + T].
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
        extend: Callable[[Any], KeyValue],
        bias: Bias,
        source: Union[KeyValue, Tensor],
        source_bias: Tensor,
    ) -> Tensor:
        """One layer for a whole target, or for the next tokens of all beams.

        Args:
            x: (N, T, C). N is B, or B * beams; beams that share an image attend to it side by side.
            extend: puts earlier keys and values (a prompt, the cache) before those that the
                attention's ``project`` makes of x.
            bias: (1 or N, H, T, all keys), or its parts, the causal mask included.
            source: cross-attention keys and values (B, H, S, D), computed once per image; or the
                encoder's states (B, S, C), of which the layer makes them.
            source_bias: (1 or B, H, N / B * T, S), padding included.
        """

        if isinstance(source, Tensor):
            source = self.encoder_attn.keys_values(source)
        keys, values = source

        def attend(y: Tensor) -> Tensor:
            new, query = self.self_attn.project(y)
            y = self.self_attn(y, extend(new), bias, query=query)
            return self.dropout(self.self_attn_ln(y))

        def attend_source(y: Tensor) -> Tensor:
            side_by_side = y.reshape(keys.size(0), -1, y.size(-1))  # (B, beams * T, C)
            y = self.encoder_attn(side_by_side, (keys, values), source_bias).view_as(y)
            return self.dropout(self.cross_attn_ln(y))

        x = self.residual(x, self.self_attn_layer_norm, attend)
        x = self.residual(x, self.encoder_attn_layer_norm, attend_source)
        return self.residual(x, self.final_layer_norm, self.feed_forward, self.w_resid)


class TransformerStack(nn.Module):
    """What encoder and decoder have in common: embeddings, positions, layers, biases.

    A constructor calls the ``make`` functions in the order of upstream's state dict.

    Args: side: "encoder" or "decoder", the beginning of the names of its fields in ``config``.
    """

    layers: Sequence[nn.Module]
    token_rel_pos_table_list: Sequence[nn.Embedding]
    image_rel_pos_table_list: Sequence[nn.Embedding]
    version: Tensor
    token_rp_bucket: Tensor
    image_rp_bucket: Tensor
    compiled_by: Any = None  # backend of torch.compile, see ``compile_network``

    def __init__(self, side: str, config: ModelConfig, pad: int) -> None:
        super().__init__()
        self.side, self.config, self.pad = side, config, pad
        self.width, self.num_heads = self.setting("embed_dim"), self.setting("attention_heads")
        self.num_layers = self.setting("layers")
        self.prompt_length = self.setting("prompt_length") if self.setting("prompt") else 0
        self.position_scale = (self.width // self.num_heads * config.attn_scale_factor) ** -0.5
        self.embed_scale = 1.0 if config.no_scale_embedding else self.width**0.5
        with torch.device("cpu"):  # constant tables are made in a network on the meta device, too
            self.register_buffer("version", torch.tensor([3.0]))
            self.register_buffer("token_rp_bucket", token_buckets(config.token_bucket_size))
            self.register_buffer("image_rp_bucket", image_buckets(config.image_bucket_size))

    def setting(self, name: str):
        """The side's own field of the configuration."""
        return getattr(self.config, f"{self.side}_{name}")

    def make_embeddings(self, embed_tokens: nn.Embedding) -> None:
        if self.prompt_length:
            hidden = self.setting("prompt_dim") if self.setting("prompt_projection") else 0
            shape = self.prompt_length, self.width, self.num_layers, self.num_heads
            prompt = PrefixPrompt(*shape, hidden, self.config.prompt_dropout)
            self.add_module(f"{self.side}_prompt_encoder", prompt)
        self.embed_tokens = embed_tokens
        self.layernorm_embedding = norm_if(self.config.layernorm_embedding, self.width)

    def make_positions(self, longest_text: int) -> None:
        self.embed_positions = nn.Embedding(longest_text + 2, self.width)
        self.embed_image_positions = nn.Embedding(self.config.image_bucket_size**2 + 1, self.width)
        self.pos_ln = nn.LayerNorm(self.width)
        self.image_pos_ln = nn.LayerNorm(self.width)

    def make_layers(self, make: Callable[[ModelConfig, float], nn.Module]) -> None:
        """Layers with drop path rates that rise linearly from 0."""
        rates = rising_rates(self.setting("drop_path_rate"), self.num_layers)
        layers: Any = nn.ModuleList(make(self.config, rate) for rate in rates)
        self.layers = layers
        self.layer_norm = norm_if(self.setting("normalize_before"), self.width)

    def make_biases(self) -> None:
        def tables(num_buckets: int) -> Any:
            every = (nn.Embedding(num_buckets, self.num_heads) for _ in range(self.num_layers))
            return nn.ModuleList(every)

        text = 2 * self.config.token_bucket_size - 1
        self.first_image_bucket = 1 + text
        self.token_rel_pos_table_list = tables(text)
        self.image_rel_pos_table_list = tables(num_image_buckets(self.config.image_bucket_size))
        self.dropout = nn.Dropout(self.config.dropout)

    def heads(self, linear: nn.Module, x: Tensor) -> Tensor:
        """Queries or keys of position vectors (B, T, C): (B, H, T, D)."""
        return split_heads(linear(x), self.num_heads)

    def text_pair_buckets(self, first: int, last: int) -> Tensor:
        """int64[last - first, last]: buckets of text positions first..last-1 against 0..last-1."""
        return token_bucket_rows(self.token_rp_bucket, first, last) + 1

    def image_pair_buckets(self, cells: Tensor, other: Tensor) -> Tensor:
        """int64[..., T, T']: buckets of grid cells (..., T) against others (..., T')."""
        pairs = self.image_rp_bucket[cells[..., :, None], other[..., None, :]]
        return pairs + self.first_image_bucket

    def bucket_biases(self, index: int) -> Tensor:
        """A layer's learned numbers (buckets, H): of no bucket, which is 0, of texts, of images."""
        text = self.token_rel_pos_table_list[index].weight
        image = self.image_rel_pos_table_list[index].weight
        return torch.cat([text.new_zeros(1, self.num_heads), text, image])

    def relative_bias(self, index: int, buckets: Tensor) -> Tensor:
        """A layer's learned biases (1 or B, H, T, T'). Args: buckets: int64[1 or B, T, T']."""
        return bucket_bias(self.bucket_biases(index), buckets)

    def takes_parts(self, x: Tensor, buckets: Tensor) -> bool:
        """Whether the layers' self-attention takes parts of a bias. Args: x: their input. buckets:
        int64[1 or B, T, T]."""
        dropout = self.config.attention_dropout if self.training else 0.0
        kind = Kind(causal=self.side == "decoder", per_sample=buckets.size(0) > 1)
        return takes_parts(x, self.num_heads, self.prompt_length + x.size(1), dropout, kind)

    def absolute_parts(
        self, queries: Tensor, keys: Tensor, buckets: Tensor, padding_mask: Optional[Tensor]
    ) -> BiasParts:
        """What is the same for all layers; keys of a prompt, which come first, have no position.

        Args:
            queries, keys: of positions, not scaled, (1 or B, H, T, D).
            buckets: int64[1 or B, T, T].
            padding_mask: bool[B, L + T], True is padding.
        """
        keys = F.pad(keys, (0, 0, self.prompt_length, 0))
        buckets = pad_for_prompt(buckets, self.prompt_length)
        first_hidden = self.prompt_length + 1 if self.side == "decoder" else None
        return join_parts(queries, keys, buckets, padding_mask, first_hidden)

    def bias(self, index: int, absolute: Bias, buckets: Tensor) -> Bias:
        """Of a layer, (1 or B, H, T, L + T), or its parts. Args: absolute: what all layers have."""
        if isinstance(absolute, BiasParts):
            return absolute._replace(table=table_of_parts(self.bucket_biases(index)))
        bias = absolute + self.relative_bias(index, buckets)
        return pad_for_prompt(bias, self.prompt_length)

    def prompts(self) -> list:
        """Keys and values that each layer sees before its own; None without a prompt."""
        if not self.prompt_length:
            return [None] * self.num_layers
        return getattr(self, f"{self.side}_prompt_encoder")()

    def skips_layer(self) -> bool:
        """Layer drop: in training each layer is left out with this chance (Fan et al. 2019)."""
        rate = self.setting("layerdrop")
        return self.training and rate > 0 and torch.rand((), device="cpu").item() < rate

    def needs_mask(self, padding_mask: Tensor, known: Optional[bool]) -> bool:
        """As ``attention.needs_mask``. Compiled layers always mask: one program for all batches."""
        return self.compiled_by is not None or needs_mask(padding_mask, known)

    def compiled(self, run: Callable) -> Callable:
        """``run``, the function that calls a layer, as it is or compiled."""
        return run if self.compiled_by is None else compile_call(run, self.compiled_by)

    def run_layer(self, run: Callable, x: Tensor, *inputs) -> Tensor:
        """``run(x, *inputs)``; with --checkpoint-activations recomputed in the backward pass; else
        what is cheap in it, where that pays."""
        offloads = self.config.offload_activations
        if not (self.config.checkpoint_activations or offloads) or not torch.is_grad_enabled():
            pays = self.compiled_by is None and recomputing_pays(x)
            with recomputing() if pays else nullcontext():
                return run(x, *inputs)
        with save_on_cpu() if offloads else nullcontext():
            return checkpoint(run, x, *inputs, use_reentrant=False)


@cache
def compile_call(run: Callable, backend: Any) -> Callable:
    """``run`` as programs for inputs of any size; layers of one kind share them."""
    return torch.compile(run, backend=backend, dynamic=True)
