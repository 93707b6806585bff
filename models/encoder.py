"""The encoder: patches of up to two images, then text, in one sequence.

Letters: B batch, S positions (patches, then text), P patches, T text tokens, C width, H heads.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.attention import Bias, pad_for_prompt
from ofa.models.config import ModelConfig
from ofa.models.image_stems import VITS, ResNet, VisionTransformer
from ofa.models.layers import EncoderLayer, TransformerStack, norm_if
from ofa.models.positions import grid_positions

NOTHING_KNOWN: Mapping[str, Any] = {}  # see ``facts`` of ``OFAModel.forward``


def select_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a batch; what all samples share, a batch of one, stays."""
    return x[rows] if x.size(0) > 1 else x


def distinct_rows(rows: Tensor, count: Optional[int]) -> tuple[Tensor, Tensor]:
    """The rows that occur, in order, and which of them each is.

    Args: rows: int64[B] below B. count: how many occur, if the host knows it.
    Returns: int64[count], int64[B].
    """
    if count is None:
        return rows.unique(return_inverse=True)
    occurs = torch.zeros_like(rows).index_fill_(0, rows, 1)
    places = (occurs.cumsum(0) - 1)[rows]
    return rows.new_zeros(count).scatter_(0, places, rows), places


@dataclass
class EncoderOutput:
    """What the decoder needs to know of the input."""

    states: Tensor  # (B, S, C)
    padding_mask: Tensor  # bool[B, S], True is padding
    positions: Tensor  # (B, S, C), or (1, S, C) when all samples have the same positions
    # input of the first layer, then each layer's output
    hidden: list[Tensor] = field(default_factory=list)
    has_padding: Optional[bool] = None  # whether any is; None: nobody has looked

    def select(self, rows: Tensor) -> "EncoderOutput":
        """The same for some samples, in any order and number. Args: rows: int64[B']."""
        positions, hidden = select_rows(self.positions, rows), [x[rows] for x in self.hidden]
        padding = self.has_padding and None  # of these samples none may have any
        return EncoderOutput(self.states[rows], self.padding_mask[rows], positions, hidden, padding)


@dataclass
class Patches:
    """One image per sample, cut into patches."""

    features: Tensor  # (B, P, channels of the stem)
    cells: Tensor  # int64[1 or B, P], where each patch is in the grid
    positions: Tensor  # (1 or B, P, C), before the position LayerNorm
    padding_mask: Tensor  # bool[B, P]


class Encoder(TransformerStack):
    """Patches of images and tokens of a text in, their states out."""

    def __init__(self, config: ModelConfig, embed_tokens: nn.Embedding, pad: int) -> None:
        super().__init__("encoder", config, pad)
        width = self.width
        self.make_embeddings(embed_tokens)
        self.type_embedding = (
            nn.Embedding(config.num_image_types + 1, width) if config.add_type_embedding else None
        )
        self.embed_images = build_stem(config)
        self.image_proj = nn.Linear(self.embed_images.channels, width)
        self.patch_layernorm_embedding = norm_if(config.patch_layernorm_embedding, width)
        self.make_positions(config.max_source_positions)
        self.pos_q_linear = nn.Linear(width, width)
        self.pos_k_linear = nn.Linear(width, width)
        self.make_layers(EncoderLayer)
        self.make_biases()

    def forward(
        self,
        src_tokens: Tensor,
        patch_images: Optional[Tensor] = None,
        patch_images_2: Optional[Tensor] = None,
        patch_masks: Optional[Tensor] = None,
        sample_patch_num: Optional[int] = None,
        image_rows: Optional[Tensor] = None,
        return_hidden: bool = False,
        facts: Mapping[str, Any] = NOTHING_KNOWN,
    ) -> EncoderOutput:
        """Arguments as those of ``OFAModel.forward``; the grid must have room for the images."""
        images = [
            self.cut(image, patch_masks, sample_patch_num, image_rows, facts.get("num_images"))
            for image in (patch_images, patch_images_2)
            if image is not None
        ]
        padding = [*(p.padding_mask for p in images[::-1]), src_tokens.eq(self.pad)]
        padding_mask = torch.cat(padding, dim=1)
        text_positions = self.text_positions(src_tokens)
        x = self.embed(src_tokens, text_positions, images) * ~padding_mask.unsqueeze(-1)
        positions = self.join_positions(text_positions, images)
        queries = self.heads(self.pos_q_linear, positions)
        keys = self.heads(self.pos_k_linear, positions)
        buckets = self.pair_buckets(src_tokens.size(1), images)
        prompts = self.prompts()
        has_padding = self.needs_mask(padding_mask, facts.get("source_padding"))
        key_padding = pad_for_prompt(padding_mask, self.prompt_length) if has_padding else None
        absolute: Bias
        if self.takes_parts(x, buckets):
            absolute, key_padding = self.absolute_parts(queries, keys, buckets, key_padding), None
        else:
            absolute = queries * self.position_scale @ keys.mT  # (1 or B, H, S, S)
        hidden, run = [x] if return_hidden else [], self.compiled(run_whole)
        for index, layer in enumerate(self.layers):
            if self.skips_layer():
                continue
            bias = self.bias(index, absolute, buckets)
            x = self.run_layer(partial(run, layer), x, bias, key_padding, prompts[index])
            if return_hidden:
                hidden.append(x)
        return EncoderOutput(self.layer_norm(x), padding_mask, positions, hidden, has_padding)

    def cut(
        self,
        images: Tensor,
        patch_masks: Optional[Tensor],
        sample_patch_num: Optional[int],
        image_rows: Optional[Tensor],
        num_images: Optional[int],
    ) -> Patches:
        """Stem features and grid positions of one image per sample."""
        features = self.stem_features(images, image_rows, num_images)
        batch, _, height, width = features.shape
        features = features.flatten(2).transpose(1, 2)  # (B, P, channels)
        cells = grid_positions(height, width, self.config.image_bucket_size, images.device)[None]
        positions = self.image_positions(height, width, cells)
        if sample_patch_num is not None and sample_patch_num <= height * width:
            # Python's generator, one draw per row in batch order: as upstream.
            draws = [random.sample(range(height * width), k=sample_patch_num) for _ in range(batch)]
            chosen = torch.tensor(draws).to(images.device, non_blocking=True)  # (B, P')
            features = features.gather(1, chosen.unsqueeze(-1).expand(-1, -1, features.size(-1)))
            cells, positions = cells[0][chosen], positions[0][chosen]
        padding_mask = torch.zeros(features.shape[:2], dtype=torch.bool, device=images.device)
        if patch_masks is not None:
            padding_mask = padding_mask | ~patch_masks[:, None]
        return Patches(features, cells, positions, padding_mask)

    def stem_features(
        self, images: Tensor, image_rows: Optional[Tensor], num_images: Optional[int]
    ) -> Tensor:
        """(B, channels, height / 16, width / 16). An image of several samples goes through the stem
        (and BatchNorm's statistics) once, unless paths are dropped, which is per sample."""
        if (
            image_rows is None
            or num_images == len(images)
            or (self.training and self.config.resnet_drop_path_rate > 0)
        ):
            return self.embed_images(images)
        shown, places = distinct_rows(image_rows, num_images)
        if len(shown) == len(images):
            return self.embed_images(images)
        return self.embed_images(images[shown]).index_select(0, places)

    def image_positions(self, height: int, width: int, cells: Tensor) -> Tensor:
        """Position vectors (1, P, C); --interpolate-position stretches the original grid."""
        side = self.config.orig_patch_image_size // 16
        if not self.config.interpolate_position or height * width <= side * side:
            return self.embed_image_positions(cells)
        original = self.embed_image_positions(
            grid_positions(side, side, self.config.image_bucket_size, cells.device)
        )
        original = original.T.unflatten(1, (side, side))[None]  # (1, C, side, side)
        stretched = F.interpolate(original, size=(height, width), mode="bilinear")
        return stretched.flatten(2).transpose(1, 2)

    def text_positions(self, src_tokens: Tensor) -> Tensor:
        """Position vectors (1, T, C)."""
        length = src_tokens.size(1)
        if length > self.config.max_source_positions:
            raise UserError(
                f"a source text of {length} tokens is longer than --max-source-positions "
                f"{self.config.max_source_positions}; shorten it with --max-src-length"
            )
        return self.embed_positions.weight[None, :length]

    def embed(self, src_tokens: Tensor, text_positions: Tensor, images: list[Patches]) -> Tensor:
        """Input of the first layer (B, S, C): image 2, image 1, text."""
        text, norm = self.embed_tokens(src_tokens), self.layernorm_embedding
        parts = [self.finish_embedding(text, text_positions, 0, norm)]
        for kind, patches in enumerate(images, start=1):
            image, norm = self.image_proj(patches.features), self.patch_layernorm_embedding
            parts.insert(0, self.finish_embedding(image, patches.positions, kind, norm))
        return torch.cat(parts, dim=1)

    def finish_embedding(self, x: Tensor, positions: Tensor, kind: int, norm: nn.Module) -> Tensor:
        """Adds positions (if wanted) and the type vector: 0 text, 1 image, 2 second image."""
        if self.embed_scale != 1:
            x = x * self.embed_scale
        if self.config.entangle_position_embedding:
            x = x + positions
        if self.type_embedding is not None:
            if kind >= self.type_embedding.num_embeddings:
                raise UserError(
                    "two images per sample need a third row in the type embedding: pass"
                    " --num-image-types 2"
                )
            x = x + self.type_embedding.weight[kind]
        return self.dropout(norm(x))

    def join_positions(self, text_positions: Tensor, images: list[Patches]) -> Tensor:
        """Normalized positions of the sequence, (1, S, C), or (B, S, C) if patches were sampled."""
        parts = [self.image_pos_ln(p.positions) for p in images[::-1]]
        parts.append(self.pos_ln(text_positions))
        batch = max(part.size(0) for part in parts)
        return torch.cat([part.expand(batch, -1, -1) for part in parts], dim=1)

    def pair_buckets(self, length: int, images: list[Patches]) -> Tensor:
        """int64[1 or B, S, S]: buckets inside each image, inside the text, none between them."""
        blocks = [self.image_pair_buckets(p.cells, p.cells) for p in images[::-1]]
        blocks.append(self.text_pair_buckets(0, length)[None])
        size = sum(block.size(-1) for block in blocks)
        buckets = blocks[0].new_zeros(max(block.size(0) for block in blocks), size, size)
        start = 0
        for block in blocks:
            end = start + block.size(-1)
            buckets[:, start:end, start:end] = block
            start = end
        return buckets


def run_whole(layer: EncoderLayer, *inputs) -> Tensor:
    """One layer for all positions."""
    return layer(*inputs)


def build_stem(config: ModelConfig) -> ResNet | VisionTransformer:
    """The network that turns pixels into patches: a ResNet or a vision transformer."""
    if config.resnet_type in VITS:
        return VisionTransformer(**VITS[config.resnet_type])
    return ResNet(
        config.resnet_type,
        config.resnet_width,
        config.resnet_drop_path_rate,
        frozen_bn=config.freeze_resnet,
        sync_bn=config.sync_bn,
    )
