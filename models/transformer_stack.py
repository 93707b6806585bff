"""A stack of layers: what encoder and decoder share, layer drop, activation checkpointing."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from ofa.models.config import ModelConfig
from ofa.models.layers import norm_if
from ofa.models.peft import PrefixPrompt
from ofa.models.positions import (
    bucket_bias,
    image_buckets,
    num_image_buckets,
    split_heads,
    token_bucket_rows,
    token_buckets,
)


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
        rates = torch.linspace(0, self.setting("drop_path_rate"), self.num_layers, device="cpu")
        layers: Any = nn.ModuleList(make(self.config, rate) for rate in rates.tolist())
        self.layers = layers
        self.layer_norm = norm_if(self.setting("normalize_before"), self.width)

    def make_biases(self) -> None:
        text = 2 * self.config.token_bucket_size - 1
        self.first_image_bucket = 1 + text

        def tables(num_buckets: int) -> Any:
            return nn.ModuleList(
                nn.Embedding(num_buckets, self.num_heads) for _ in range(self.num_layers)
            )

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

    def relative_bias(self, index: int, buckets: Tensor) -> Tensor:
        """A layer's learned biases (1 or B, H, T, T') from one table: none (bucket 0), those of
        texts, those of images. Args: buckets: int64[1 or B, T, T']."""
        text = self.token_rel_pos_table_list[index].weight
        image = self.image_rel_pos_table_list[index].weight
        return bucket_bias(torch.cat([text.new_zeros(1, self.num_heads), text, image]), buckets)

    def prompts(self) -> list:
        """Keys and values that each layer sees before its own; None without a prompt."""
        if not self.prompt_length:
            return [None] * self.num_layers
        return getattr(self, f"{self.side}_prompt_encoder")()

    def skips_layer(self) -> bool:
        """Layer drop: in training each layer is left out with this chance (Fan et al. 2019)."""
        rate = self.setting("layerdrop")
        return self.training and rate > 0 and torch.rand((), device="cpu").item() < rate

    def run_layer(self, run: Callable, *inputs) -> Tensor:
        """``run(*inputs)``; with --checkpoint-activations recomputed in the backward pass."""
        offloads = self.config.offload_activations
        if not (self.config.checkpoint_activations or offloads) or not torch.is_grad_enabled():
            return run(*inputs)
        with save_on_cpu() if offloads else nullcontext():
            return checkpoint(run, *inputs, use_reentrant=False)
