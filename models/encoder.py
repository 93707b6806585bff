"""The encoder: patches of up to two images, then text, in one sequence.

Letters: B batch, S positions of the sequence (patches, then text), P patches, T text tokens, C
width, H heads.
"""

import random
from dataclasses import dataclass, field
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.attention import pad_for_prompt
from ofa.models.config import ModelConfig
from ofa.models.layers import EncoderLayer
from ofa.models.positions import bias_product, grid_positions, split_heads
from ofa.models.resnet import ResNet
from ofa.models.transformer_stack import TransformerStack, run_layer, skip_layer
from ofa.models.vit import VITS, VisionTransformer


@dataclass
class EncoderOutput:
    """What the decoder needs to know of the input."""

    states: Tensor  # (B, S, C)
    padding_mask: Tensor  # bool[B, S], True is padding
    positions: Tensor  # (B, S, C), or (1, S, C) when all samples have the same positions
    # input of the first layer, then each layer's output
    hidden: list[Tensor] = field(default_factory=list)

    def select(self, rows: Tensor) -> "EncoderOutput":
        """The same for some samples, in any order and number. Args: rows: int64[B']."""
        positions = self.positions if self.positions.size(0) == 1 else self.positions[rows]
        return EncoderOutput(
            self.states[rows], self.padding_mask[rows], positions, [x[rows] for x in self.hidden]
        )


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
        self.patch_layernorm_embedding = (
            nn.LayerNorm(width) if config.patch_layernorm_embedding else None
        )
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
    ) -> EncoderOutput:
        """Args:

        src_tokens: int64[B, T], padded on the right.
        patch_images, patch_images_2: float[B, 3, height, width], any size the image grid has room
        for.
        patch_masks: bool[B], False for samples without an image (theirs is masked).
        sample_patch_num: keep that many random patches of each image (training).
        image_rows: int64[B], for each sample the row with its images: one for all that have the
        same.
        """
        images = [
            self.cut(image, patch_masks, sample_patch_num, image_rows)
            for image in (patch_images, patch_images_2)
            if image is not None
        ]
        padding_mask = torch.cat(
            [*(p.padding_mask for p in images[::-1]), src_tokens.eq(self.pad)], dim=1
        )
        text_positions = self.text_positions(src_tokens)
        x = self.embed(src_tokens, text_positions, images)
        x = x * ~padding_mask.unsqueeze(-1)
        positions = self.join_positions(text_positions, images)
        absolute_bias = self.absolute_bias(positions)
        buckets = self.pair_buckets(src_tokens.size(1), images)
        prompts = self.prompts()
        prompt_length = self.config.encoder_prompt_length if self.config.encoder_prompt else 0
        key_padding = (
            pad_for_prompt(padding_mask, prompt_length) if bool(padding_mask.any()) else None
        )
        hidden = [x] if return_hidden else []
        for index, layer in enumerate(self.layers):
            if skip_layer(self.training, self.config.encoder_layerdrop):
                continue
            bias = pad_for_prompt(absolute_bias + self.relative_bias(index, buckets), prompt_length)
            x = run_layer(self.config, layer, x, bias, key_padding, prompts[index])
            if return_hidden:
                hidden.append(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        return EncoderOutput(x, padding_mask, positions, hidden)

    def cut(
        self,
        images: Tensor,
        patch_masks: Optional[Tensor],
        sample_patch_num: Optional[int],
        image_rows: Optional[Tensor],
    ) -> Patches:
        """Stem features and grid positions of one image per sample."""
        features = self.stem_features(images, image_rows)
        batch, _, height, width = features.shape
        features = features.flatten(2).transpose(1, 2)  # (B, P, channels)
        cells = grid_positions(height, width, self.config.image_bucket_size, images.device)[None]
        positions = self.image_positions(height, width, cells)
        if sample_patch_num is not None and sample_patch_num <= height * width:
            # Python's generator, one draw per row in batch order: as upstream.
            draws = [random.sample(range(height * width), k=sample_patch_num) for _ in range(batch)]
            chosen = torch.tensor(draws, device=images.device)  # (B, P')
            features = features.gather(1, chosen.unsqueeze(-1).expand(-1, -1, features.size(-1)))
            cells, positions = cells[0][chosen], positions[0][chosen]
        padding_mask = torch.zeros(features.shape[:2], dtype=torch.bool, device=images.device)
        if patch_masks is not None:
            padding_mask = padding_mask | ~patch_masks[:, None]
        return Patches(features, cells, positions, padding_mask)

    def stem_features(self, images: Tensor, image_rows: Optional[Tensor]) -> Tensor:
        """(B, channels, height / 16, width / 16); an image of several samples goes through the stem
        once.

        BatchNorm's statistics count it once, too. Paths are dropped per sample, so with them each
        sample has its own.
        """
        if image_rows is None or (self.training and self.config.resnet_drop_path_rate > 0):
            return self.embed_images(images)
        shown, places = image_rows.unique(return_inverse=True)
        if len(shown) == len(images):
            return self.embed_images(images)
        return self.embed_images(images[shown]).index_select(0, places)

    def image_positions(self, height: int, width: int, cells: Tensor) -> Tensor:
        """Position vectors (1, P, C); with --interpolate-position those of the original grid,
        stretched."""
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
        entangle = self.config.entangle_position_embedding
        x = self.embed_tokens(src_tokens) * self.embed_scale
        parts = [
            self.finish_embedding(
                x, text_positions if entangle else None, 0, self.layernorm_embedding
            )
        ]
        for kind, patches in enumerate(images, start=1):
            y = self.image_proj(patches.features) * self.embed_scale
            positions = patches.positions if entangle else None
            parts.insert(
                0, self.finish_embedding(y, positions, kind, self.patch_layernorm_embedding)
            )
        return torch.cat(parts, dim=1)

    def finish_embedding(
        self, x: Tensor, positions: Optional[Tensor], kind: int, norm: Optional[nn.LayerNorm]
    ) -> Tensor:
        """Adds positions (if any) and the type vector: 0 text, 1 image, 2 second image."""
        if positions is not None:
            x = x + positions
        if self.type_embedding is not None:
            if kind >= self.type_embedding.num_embeddings:
                raise UserError(
                    "two images per sample need a third row in the type embedding: pass"
                    " --num-image-types 2"
                )
            x = x + self.type_embedding.weight[kind]
        return self.dropout(norm(x) if norm is not None else x)

    def join_positions(self, text_positions: Tensor, images: list[Patches]) -> Tensor:
        """Normalized positions of the whole sequence: (1, S, C), or (B, S, C) when patches were
        sampled."""
        parts = [
            *(self.image_pos_ln(p.positions) for p in images[::-1]),
            self.pos_ln(text_positions),
        ]
        batch = max(part.size(0) for part in parts)
        return torch.cat([part.expand(batch, -1, -1) for part in parts], dim=1)

    def absolute_bias(self, positions: Tensor) -> Tensor:
        """(1 or B, H, S, S), the same for all layers."""
        queries = split_heads(self.pos_q_linear(positions), self.num_heads) * self.position_scale
        return bias_product(queries, split_heads(self.pos_k_linear(positions), self.num_heads))

    def pair_buckets(self, length: int, images: list[Patches]) -> Tensor:
        """Buckets of ``relative_bias``: inside each image, inside the text, and none between
        them: int64[1 or B, S, S]."""
        blocks = [self.image_pair_buckets(p.cells, p.cells) for p in images[::-1]] + [
            self.text_pair_buckets(0, length)[None]
        ]
        size = sum(block.size(-1) for block in blocks)
        buckets = blocks[0].new_zeros(max(block.size(0) for block in blocks), size, size)
        start = 0
        for block in blocks:
            end = start + block.size(-1)
            buckets[:, start:end, start:end] = block
            start = end
        return buckets


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
