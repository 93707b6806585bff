"""The smallest network with every part of OFA, for tests of the network's own behavior."""

import torch

from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel

SMALL = dict(
    encoder_embed_dim=16,
    encoder_ffn_embed_dim=16,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    resnet_type="resnet18",
    resnet_width=4,
    image_bucket_size=8,
    token_bucket_size=8,
    code_image_size=32,
)


def build_small(vocab: int, **switches) -> OFAModel:
    """The same weights every time. Args: switches: fields of ``ModelConfig`` that differ from
    ``SMALL``."""
    torch.manual_seed(0)
    return OFAModel(ModelConfig(**{**SMALL, **switches}), vocab)


def build_awake(vocab: int, **switches) -> OFAModel:
    """A wider one, far from its starting weights, where biases hardly matter and all logits are
    alike."""
    sizes = dict(encoder_embed_dim=32, encoder_ffn_embed_dim=48, encoder_layers=1, resnet_width=8)
    heads = dict(encoder_attention_heads=4, decoder_attention_heads=4)
    model = build_small(
        vocab, **{**sizes, **heads, "image_bucket_size": 12, "code_image_size": 64, **switches}
    )
    for name, parameter in model.named_parameters():
        if "embed_images" not in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()
