"""The decoder: whole targets at once in training, token by token for all beams in generation.

A target is text (boxes and answers too) or image codes, which live in a grid: they have image
positions and image relative biases. Letters: B batch (images), K beams, T target positions,
S encoder positions, C width, H heads, L prompt length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Optional, Union, cast

import torch
from torch import Tensor, nn

from ofa.errors import UserError
from ofa.models.attention import Bias, mask_bias, pad_for_prompt, with_prompt
from ofa.models.cache import DecoderCache, PositionRows
from ofa.models.config import ModelConfig
from ofa.models.encoder import NOTHING_KNOWN, EncoderOutput
from ofa.models.fused_layers import FusedLayers
from ofa.models.layers import DecoderLayer, TransformerStack
from ofa.models.positions import code_positions
from ofa.models.static_cache import StaticCache

Cache = Union[DecoderCache, StaticCache]
IsImageCode = Union[bool, Tensor]  # are the targets image codes? bool[B] when some are


class Decoder(TransformerStack):
    """Tokens of a target and the encoder's output in, logits of the next tokens out."""

    layers: Sequence[DecoderLayer]
    image_position_idx: Tensor

    def __init__(self, config: ModelConfig, embed_tokens: nn.Embedding, pad: int) -> None:
        super().__init__("decoder", config, pad)
        width = self.width
        with torch.device("cpu"):
            codes = code_positions(config.code_image_size, config.image_bucket_size)
        self.register_buffer("image_position_idx", codes)
        self.make_embeddings(embed_tokens)
        self.make_positions(config.max_target_positions)
        self.self_pos_q_linear = nn.Linear(width, width)
        self.self_pos_k_linear = nn.Linear(width, width)
        self.cross_pos_q_linear = nn.Linear(width, width)
        self.cross_pos_k_linear = nn.Linear(width, width)
        self.code_layernorm_embedding = (
            nn.LayerNorm(width) if config.code_layernorm_embedding else None
        )
        self.make_layers(DecoderLayer)
        self.output_projection = nn.Linear(width, embed_tokens.num_embeddings, bias=False)
        if config.share_decoder_input_output_embed:
            self.output_projection.weight = embed_tokens.weight
        self.make_biases()

    # ------------------------------------------------------------------ the whole target at once

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_output: EncoderOutput,
        code_masks: Optional[Tensor] = None,
        features_only: bool = False,
        return_hidden: bool = False,
        return_attention: bool = False,
        output_positions: Optional[Tensor] = None,
        facts: Mapping[str, Any] = NOTHING_KNOWN,
    ) -> tuple[Tensor, dict]:
        """Arguments as those of ``OFAModel.forward``; N targets, B or B * K.

        Returns: logits or states, and a dict: ``inner_states``, the first layer's input and each
            layer's output; ``attn``, the last layer's attention to the input, (N, T, S).
        """
        targets, length = prev_output_tokens.shape
        per_sample, rest = divmod(targets, encoder_output.states.size(0))
        assert rest == 0, "prev_output_tokens needs the same number of targets for each sample"
        of_samples = is_image_code(code_masks, facts)
        is_code = repeat_rows(of_samples, per_sample)
        self.check_length(length, is_code)
        padding = prev_output_tokens.eq(self.pad)
        has_padding = self.needs_mask(padding, facts.get("target_padding"))
        source_bias = self.source_bias(of_samples, 0, length, encoder_output)
        if per_sample > 1:  # the targets of a sample stand side by side, as beams do
            source_bias = source_bias.repeat(1, 1, per_sample, 1)
        prompts = self.prompts()
        x = self.embed(prev_output_tokens, is_code, self.positions(is_code, 0, length))
        biases = self.self_biases(is_code, 0, length, padding if has_padding else None, x)
        extra: dict = {"attn": [None], "inner_states": [x] if return_hidden else []}
        looking = self.watch_last_attention() if return_attention else None
        run = run_in_full if looking else self.compiled(run_in_full)  # programs take no hooks
        for layer, bias, prompt in zip(self.layers, biases, prompts):
            if self.skips_layer():
                continue
            inputs = x, prompt, bias, encoder_output.states, source_bias
            x = self.run_layer(partial(run, layer), *inputs)
            if return_hidden:
                extra["inner_states"].append(x)
        if looking is not None:
            extra["attn"] = [weights.view(targets, length, -1) for weights in looking()]
        if output_positions is not None:  # the vocabulary is wide, padding and prompts have no loss
            x = x.flatten(0, 1)[output_positions]
        x = self.layer_norm(x)
        return x if features_only else self.output_projection(x), extra

    def watch_last_attention(self) -> Callable[[], list[Tensor]]:
        """Note the call of the last cross-attention. Returns: function that gives its weights."""
        attention = self.layers[-1].encoder_attn
        calls: list = []
        handle = attention.register_forward_pre_hook(lambda module, inputs: calls.append(inputs))

        def weights() -> list[Tensor]:
            handle.remove()
            return [attention.weights(x, source[0], bias) for x, source, bias in calls]

        return weights

    # ------------------------------------------------------------------ token by token

    def start(
        self,
        encoder_output: EncoderOutput,
        beam: int,
        max_len: int,
        code_masks: Union[bool, Tensor, None] = None,
        static: bool = False,
        kept: Optional[StaticCache] = None,
    ) -> Cache:
        """A cache for targets of up to ``max_len`` tokens with up to ``beam`` beams per image.

        Args:
            code_masks: bool[B], True for targets of image codes; or a bool for all of them.
            static: one of fixed shapes, whose steps become CUDA graphs; targets of one kind.
            kept: an earlier one, which is used again if it serves this batch.
        """
        is_code = code_masks if isinstance(code_masks, bool) else is_image_code(code_masks)
        sources = [layer.encoder_attn.keys_values(encoder_output.states) for layer in self.layers]
        prompts = self.prompts() if self.config.decoder_prompt else None

        def bias_rows(first: int, last: int) -> PositionRows:
            source_bias = self.source_bias(is_code, first, last, encoder_output)
            biases = cast(list[Tensor], list(self.self_biases(is_code, first, last)))
            return PositionRows(biases, source_bias, self.positions(is_code, first, last))

        if not static:
            return DecoderCache(sources, prompts, beam, max_len, is_code, bias_rows)
        assert isinstance(is_code, bool)
        shape = beam, max_len, is_code
        weights = [*self.parameters(), *self.buffers()]
        if kept is not None and kept.serves(sources[0][0], *shape, weights):
            kept.restart(sources, prompts, bias_rows)
            return kept
        return StaticCache(sources, prompts, *shape, bias_rows, weights, FusedLayers(self.layers))

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Feed the next token(s) of every beam. Args: tokens: int64[B, K] or [B, K, T].

        Returns: logits (B, K, V) after the last token fed.
        """
        return self.output_projection(self.states(tokens, cache))

    def states(self, tokens: Tensor, cache: Cache) -> Tensor:
        """As ``step``, but the states (B, K, C) that the logits are made of."""
        tokens = tokens if tokens.dim() == 3 else tokens[..., None]
        self.check_length(cache.length + tokens.size(2), cache.is_code)
        return cache.run(self.next_states, tokens)

    def next_states(self, tokens: Tensor, cache: Cache) -> Tensor:
        """The computation of ``states``. Args: tokens: int64[B, K, T]."""
        images, beams, num_tokens = tokens.shape
        biases, source_bias, positions = cache.begin(num_tokens, beams)
        tokens = tokens.reshape(images * beams, num_tokens)
        x = self.embed(tokens, repeat_rows(cache.is_code, beams), positions)
        layers = cache.layers if isinstance(cache, StaticCache) else self.layers
        for index, layer in enumerate(layers):
            extend, source = partial(cache.extend, index), cache.sources[index]
            x = layer(x, extend, biases[index], source, source_bias)
        return self.layer_norm(x[:, -1:]).view(images, beams, -1)

    def branches(
        self, tokens: Tensor, depths: Tensor, sees: Tensor, cache: DecoderCache, deepest: int
    ) -> Tensor:
        """Many continuations of a text at once, as nodes of a tree. The cache, with one beam per
        image, stays as it is.

        Args:
            tokens: int64[N]. depths: int64[N], 1 directly behind what the cache holds.
            sees: bool[N, N]: node i looks at node j, its ancestor or itself.
            deepest: the largest of the depths.

        Returns: states (B, N, C).
        """
        self.check_length(cache.length + deepest, False)
        # of one path of that depth
        biases, source_bias, positions = cache.begin(deepest, 1)
        rows, before = depths - 1, cache.end
        positions = None if positions is None else positions[:, rows]
        x = self.embed(tokens[None], False, positions).expand(cache.images, -1, -1)
        source_bias = source_bias[:, :, rows]
        for index, layer in enumerate(self.layers):
            bias = biases[index][:, :, rows]  # (1, H, N, before + depth)
            among = bias[..., before + rows].masked_fill(~sees, torch.finfo(bias.dtype).min)
            bias = torch.cat([bias[..., :before], among], -1)
            x = layer(x, partial(cache.followed_by, index), bias, cache.sources[index], source_bias)
        return self.layer_norm(x)

    # ------------------------------------------------------------------ parts of both

    def embed(self, tokens: Tensor, is_code: IsImageCode, positions: Optional[Tensor]) -> Tensor:
        """Input of the first layer (N, T, C). Args: positions: what ``self.positions`` made."""
        x = self.embed_tokens(tokens)
        if self.embed_scale != 1:
            x = x * self.embed_scale
        if positions is not None:
            x = x + positions

        def norm(code: bool) -> Tensor:
            layer_norm = self.code_layernorm_embedding if code else None
            return (layer_norm or self.layernorm_embedding)(x)

        return self.dropout(select_per_row(is_code, norm))

    def positions(self, is_code: IsImageCode, first: int, last: int) -> Optional[Tensor]:
        """What is added to embeddings at positions first..last-1, (1 or N, T, C), if anything."""
        if self.config.disable_entangle:
            return None
        return select_per_row(is_code, lambda code: self.position_vectors(code, first, last))

    def position_vectors(self, code: bool, first: int, last: int) -> Tensor:
        """Position vectors before their LayerNorm: (1, last - first, C)."""
        if code:
            return self.embed_image_positions(self.code_cells(first, last)[None])
        rows = torch.arange(first, last, device=self.version.device)
        return self.embed_positions(rows.clamp(max=self.embed_positions.num_embeddings - 1))[None]

    def code_cells(self, first: int, last: int) -> Tensor:
        """Grid cells of positions first..last-1 of image codes; of padding any cell: the last one
        in grids below 32 x 32, which do not have that of upstream."""
        return self.image_position_idx[first:last].clamp(max=self.image_rp_bucket.size(0) - 1)

    def normed_positions(self, code: bool, first: int, last: int) -> Tensor:
        norm = self.image_pos_ln if code else self.pos_ln
        return norm(self.position_vectors(code, first, last))

    def self_biases(
        self,
        is_code: IsImageCode,
        first: int,
        last: int,
        padding_mask: Optional[Tensor] = None,
        x: Optional[Tensor] = None,
    ) -> Iterator[Bias]:
        """Of each layer: positions first..last-1 against 0..last-1, (1 or B, H, last - first, L +
        last), causal mask and padding mask included; prompts are always visible.

        Args: x: the layers' input, if they may take parts of a bias; all positions then.
        """
        kinds = [is_code] if isinstance(is_code, bool) else [False, True]
        vectors = {code: self.queries_keys(code, first, last) for code in kinds}

        def buckets(code: bool) -> Tensor:
            if not code:
                return self.text_pair_buckets(first, last)[None]
            cells = self.code_cells(0, last)
            return self.image_pair_buckets(cells[first:], cells)[None]

        def product(code: bool) -> Tensor:
            queries, keys = vectors[code]
            return queries * self.position_scale @ keys.mT

        found = select_per_row(is_code, buckets)
        base: Bias
        if x is not None and self.takes_parts(x, found):
            queries = select_per_row(is_code, lambda code: vectors[code][0])
            keys = select_per_row(is_code, lambda code: vectors[code][1])
            if padding_mask is not None:
                padding_mask = pad_for_prompt(padding_mask, self.prompt_length)
            base = self.absolute_parts(queries, keys, found, padding_mask)
        else:
            rows = torch.arange(first, last, device=self.version.device)
            forbidden = rows[:, None] < torch.arange(last, device=rows.device)
            if padding_mask is not None:
                forbidden = forbidden | padding_mask[:, None, None, :]
            base = select_per_row(is_code, product)
            base = base.masked_fill(forbidden, torch.finfo(base.dtype).min)
        for index in range(self.num_layers):
            yield self.bias(index, base, found)

    def queries_keys(self, code: bool, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Of positions first..last-1 and 0..last-1, for self-attention: (1, H, T, D)."""
        positions = self.normed_positions(code, 0, last)
        queries = self.heads(self.self_pos_q_linear, positions[:, first:])
        return queries, self.heads(self.self_pos_k_linear, positions)

    def source_bias(
        self, is_code: IsImageCode, first: int, last: int, encoder_output: EncoderOutput
    ) -> Tensor:
        """Positions first..last-1 against the input, of all layers: (1 or B, H, T, S)."""
        keys = self.heads(self.cross_pos_k_linear, encoder_output.positions)

        def bias(code: bool) -> Tensor:
            positions = self.normed_positions(code, first, last)
            return self.heads(self.cross_pos_q_linear, positions) * self.position_scale @ keys.mT

        padding_mask = encoder_output.padding_mask
        has_padding = self.needs_mask(padding_mask, encoder_output.has_padding)
        return mask_bias(select_per_row(is_code, bias), padding_mask if has_padding else None)

    def check_length(self, length: int, is_code: IsImageCode) -> None:
        if is_code is True and length > self.image_position_idx.numel():
            raise UserError(
                f"a target of {length} image codes does not fit --code-image-size "
                f"{self.config.code_image_size}"
            )
        if is_code is False and length > self.config.max_target_positions:
            raise UserError(
                f"a target of {length} tokens is longer than --max-target-positions "
                f"{self.config.max_target_positions}; shorten it with --max-tgt-length"
            )


def run_in_full(
    layer: DecoderLayer, x: Tensor, prompt, bias: Bias, states: Tensor, source_bias: Tensor
) -> Tensor:
    """One layer of a whole target; makes keys and values of the input (and remakes them)."""
    return layer(x, partial(with_prompt, prompt=prompt), bias, states, source_bias)


def is_image_code(
    code_masks: Optional[Tensor], facts: Mapping[str, Any] = NOTHING_KNOWN
) -> IsImageCode:
    """False: all targets are text; True: all are image codes; bool[B] otherwise, and where a
    program that is being compiled cannot know."""
    if code_masks is None:
        return False
    if "image_codes" in facts:
        return code_masks if facts["image_codes"] is None else facts["image_codes"]
    if torch.compiler.is_compiling():
        return code_masks
    if not bool(code_masks.any()):
        return False
    return True if bool(code_masks.all()) else code_masks


def repeat_rows(is_code: IsImageCode, times: int) -> IsImageCode:
    return is_code if isinstance(is_code, bool) else is_code.repeat_interleave(times)


def select_per_row(is_code: IsImageCode, make: Callable[[bool], Tensor]) -> Tensor:
    """``make(True)`` for image codes, ``make(False)`` for text, row by row where both occur."""
    if isinstance(is_code, bool):
        return make(is_code)
    text, code = make(False), make(True)
    return torch.where(is_code.view(-1, *(1,) * (text.dim() - 1)), code, text)
