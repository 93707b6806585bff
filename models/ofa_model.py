"""OFA: images and text in, text, boxes or image codes out."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Optional, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.attention import MultiheadAttention
from ofa.models.config import ModelConfig
from ofa.models.decoder import Decoder
from ofa.models.encoder import NOTHING_KNOWN, Encoder, EncoderOutput
from ofa.models.layers import activation
from ofa.models.peft import add_lora

logger = logging.getLogger(__name__)


class ClassificationHead(nn.Module):
    """A label from the decoder's last state, as an alternative to generating its name.

    Args: use_two_images: a label for a pair of samples, rows 2i and 2i + 1 of the batch.
    """

    def __init__(
        self, config: ModelConfig, num_classes: int, inner_dim: int, use_two_images: bool
    ) -> None:
        super().__init__()
        self.use_two_images = use_two_images
        width = config.decoder_embed_dim * (2 if use_two_images else 1)
        self.dropout = nn.Dropout(config.pooler_dropout)
        if config.pooler_classifier == "mlp":
            self.dense = nn.Linear(width, inner_dim)
            self.activation, width = activation(config.pooler_activation_fn), inner_dim
        self.out_proj = nn.Linear(width, num_classes)
        if config.spectral_norm_classification_head:
            self.out_proj = nn.utils.spectral_norm(self.out_proj)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Args: features: (B, T, C); lengths: int64[B], the last real position plus one.

        Returns: (B or B / 2, classes).
        """
        rows = features[range(features.size(0)), lengths - 1]  # (B, C)
        if self.use_two_images:
            rows = rows.reshape(-1, 2 * rows.size(1))
        if hasattr(self, "dense"):
            rows = self.activation(self.dense(self.dropout(rows)))
        return self.out_proj(self.dropout(rows))


class OFAModel(nn.Module):
    """The whole network. Batch first everywhere.

    Args:
        vocab_size: entries of the vocabulary (text, image codes, location bins).
        pad: id of the padding symbol.

    Attributes:
        shares_encoding: ``forward`` takes several targets per sample, see ``prev_output_tokens``.
        shares_images: ``forward`` looks at an image of several samples once, see ``image_rows``.
        chooses_outputs: ``forward`` makes the logits of some positions only, see
            ``output_positions``.
        reads_facts: ``forward`` and ``encode`` take what the host knows of a batch, see ``facts``.
        compiles_layers: encoder and decoder can run compiled, see ``compile_network``.
    """

    shares_encoding = True
    shares_images = True
    chooses_outputs = True
    reads_facts = True
    compiles_layers = True

    def __init__(self, config: ModelConfig, vocab_size: int, pad: int = 1) -> None:
        super().__init__()
        self.config, self.pad = config, pad
        width = config.encoder_embed_dim
        embed_tokens = nn.Embedding(vocab_size, width, padding_idx=pad)
        decoder_embed_tokens = embed_tokens
        if not config.share_all_embeddings:
            decoder_embed_tokens = nn.Embedding(vocab_size, width, padding_idx=pad)
        self.encoder = Encoder(config, embed_tokens, pad)
        self.decoder = Decoder(config, decoder_embed_tokens, pad)
        self.classification_heads = nn.ModuleDict()
        self.apply(partial(initialize, std=config.init_std))
        if config.lora_rank:  # last: the starting weights are those of a model without LoRA
            add_lora(self, config)

    def train(self, mode: bool = True) -> "OFAModel":
        """As torch's; the statistics of a frozen image stem stay as they are."""
        super().train(mode)
        if self.config.peft_methods:
            for module in self.encoder.embed_images.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Optional[Tensor] = None,
        prev_output_tokens: Optional[Tensor] = None,
        patch_images: Optional[Tensor] = None,
        patch_images_2: Optional[Tensor] = None,
        patch_masks: Optional[Tensor] = None,
        code_masks: Optional[Tensor] = None,
        sample_patch_num: Optional[int] = None,
        features_only: bool = False,
        classification_head_name: Optional[str] = None,
        return_all_hiddens: bool = False,
        return_attention: bool = False,
        image_rows: Optional[Tensor] = None,
        output_positions: Optional[Tensor] = None,
        facts: Mapping[str, Any] = NOTHING_KNOWN,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Images and text in, logits of the target's tokens out.

        Args:
            src_tokens: int64[B, S], padded on the right; src_lengths is not needed.
            prev_output_tokens: int64[B, T], the target shifted right, padded on the right; or
                int64[B * K, T], K targets of each sample, one after the other: it is encoded once.
            patch_images, patch_images_2: float[B, 3, height, width], normalized pixels.
            patch_masks: bool[B], False for samples without image.
            code_masks: bool[B], True for targets of image codes.
            sample_patch_num: look at that many random patches of each image only.
            image_rows: int64[B], per sample the row with its images, the same for equal images.
            features_only: return states (B, T, C) instead of logits.
            classification_head_name: return that head's (B, classes) instead of logits.
            output_positions: int64[N], positions of ``prev_output_tokens.view(-1)``; return the
                logits (N, V) or states (N, C) of these alone. Not for a classification head.
            facts: what the host knows of the batch, so that nobody has to wait for the GPU to tell
                it (``ofa.data.collate``); without them the result is the same.

        Returns: logits (B or B * K, T, V), and what else there is: ``encoder_output``,
        ``inner_states``, ``attn``.
        """
        assert prev_output_tokens is not None, "the decoder reads prev_output_tokens"
        images = patch_images, patch_images_2, patch_masks, sample_patch_num, image_rows
        encoder_output = self.encoder(src_tokens, *images, return_all_hiddens, facts)
        x, extra = self.decoder(
            prev_output_tokens,
            encoder_output,
            code_masks,
            features_only or classification_head_name is not None,
            return_all_hiddens,
            return_attention,
            output_positions,
            facts,
        )
        if classification_head_name is not None:
            head = self.classification_head(classification_head_name)
            x = head(x, prev_output_tokens.ne(self.pad).sum(1))
        return x, {**extra, "encoder_output": encoder_output}

    def encode(self, src_tokens: Tensor, **net_input: Any) -> EncoderOutput:
        """The first half of ``forward``; takes a batch's whole ``net_input``."""
        names = "patch_images", "patch_images_2", "patch_masks", "sample_patch_num"
        facts = net_input.get("facts", NOTHING_KNOWN)
        return self.encoder(src_tokens, *map(net_input.get, names), facts=facts)

    def get_normalized_probs(self, net_output, log_probs: bool, sample: Any = None) -> Tensor:
        """(Log-)probabilities in float32 from what ``forward`` returned."""
        logits = net_output[0].float()
        return F.log_softmax(logits, dim=-1) if log_probs else F.softmax(logits, dim=-1)

    def max_positions(self) -> tuple[int, int]:
        """Longest source text, longest target."""
        return self.config.max_source_positions, self.config.max_target_positions

    def register_classification_head(
        self,
        name: str,
        num_classes: int,
        inner_dim: Optional[int] = None,
        use_two_images: bool = False,
        **unused: Any,
    ) -> None:
        """Add a head; a head of that name is replaced, with a warning when its shape differs."""
        inner_dim = inner_dim or self.config.encoder_embed_dim
        if name in self.classification_heads:
            before = self.classification_head(name).out_proj
            if (before.out_features, before.in_features) != (num_classes, inner_dim):
                message = "classification head %r is replaced: it had %d classes, now %d"
                logger.warning(message, name, before.out_features, num_classes)
        head = ClassificationHead(self.config, num_classes, inner_dim, use_two_images)
        self.classification_heads[name] = head.to(self.encoder.embed_tokens.weight)

    def classification_head(self, name: str) -> ClassificationHead:
        if name not in self.classification_heads:
            known = ", ".join(self.classification_heads) or "none"
            raise UserError(f"the model has no classification head {name!r}; registered: {known}")
        return cast(ClassificationHead, self.classification_heads[name])


@torch.no_grad()
def initialize(module: nn.Module, std: float = 0.02) -> None:
    """Starting weights as BERT's: normal of deviation ``std``, biases and the padding row zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.normal_(0.0, std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.zero_()
    elif isinstance(module, nn.Embedding) and module.padding_idx is not None:
        module.weight[module.padding_idx].zero_()
    elif isinstance(module, MultiheadAttention):
        for projection in (module.q_proj, module.k_proj, module.v_proj):
            projection.weight.normal_(0.0, std)
