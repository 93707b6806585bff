"""The sizes of a network, read off the shapes of its tensors (upstream names)."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ofa.checkpoints.adapt import architecture
from ofa.errors import UserError
from ofa.models.config import IMAGE_SIZES, PRESETS
from ofa.models.positions import CODE_PADDING
from ofa.models.resnet import DEPTHS

# Switches that show in the names: field of ``ModelConfig`` -> end of a name in layer 0, or a whole
# name.
SWITCHES = {
    "scale_attn": "encoder.layers.0.attn_ln.weight",
    "scale_fc": "encoder.layers.0.ffn_layernorm.weight",
    "scale_heads": "encoder.layers.0.self_attn.c_attn",
    "scale_resids": "encoder.layers.0.w_resid",
    "encoder_normalize_before": "encoder.layer_norm.weight",
    "decoder_normalize_before": "decoder.layer_norm.weight",
    "layernorm_embedding": "encoder.layernorm_embedding.weight",
    "patch_layernorm_embedding": "encoder.patch_layernorm_embedding.weight",
    "code_layernorm_embedding": "decoder.code_layernorm_embedding.weight",
    "add_type_embedding": "encoder.type_embedding.weight",
}
EMBEDDING = "encoder.embed_tokens.weight"


def fields_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of ``ModelConfig`` that the tensors of a checkpoint decide: sizes, stem, and which
    parts there are.

    Raises: UserError if a tensor that every OFA model has is not there.
    """

    def rows(name: str) -> int:
        if name not in weights:
            raise UserError(
                f"expected the tensors of an OFA model, {name} is missing; is the file complete?"
            )
        return weights[name].size(0)

    found: dict[str, Any] = {name: tensor in weights for name, tensor in SWITCHES.items()}
    for side, longest in (("encoder", "source"), ("decoder", "target")):
        found[f"{side}_embed_dim"] = rows(f"{side}.pos_ln.weight")
        found[f"{side}_ffn_embed_dim"] = rows(f"{side}.layers.0.fc1.weight")
        found[f"{side}_layers"] = len(
            {key.split(".")[2] for key in weights if key.startswith(f"{side}.layers.")}
        )
        rows(f"{side}.token_rel_pos_table_list.0.weight")
        found[f"{side}_attention_heads"] = weights[
            f"{side}.token_rel_pos_table_list.0.weight"
        ].size(1)
        found[f"max_{longest}_positions"] = rows(f"{side}.embed_positions.weight") - 2
    found["token_bucket_size"] = (rows("encoder.token_rel_pos_table_list.0.weight") + 1) // 2
    found["image_bucket_size"] = math.isqrt(rows("encoder.embed_image_positions.weight") - 1)
    if found["add_type_embedding"]:
        found["num_image_types"] = rows("encoder.type_embedding.weight") - 1
    if "decoder.image_position_idx" in weights:
        # 1 + side * side + padding, which is one shorter in other projects
        found["code_image_size"] = 8 * math.isqrt(
            max(rows("decoder.image_position_idx") - CODE_PADDING, 0)
        )
    return found | stem_of(weights)


def image_size(weights: Mapping[str, Tensor]) -> tuple[int, str, bool]:
    """The image size that a network of these widths was pretrained with; no tensor tells it.

    Args: weights: upstream names.
    Returns: pixels, the architecture that they are of, and whether the network is of exactly that
        architecture; otherwise it is the largest one that is no wider (the smallest, if all are).
    """
    exact = architecture(weights)
    if exact in IMAGE_SIZES:
        return IMAGE_SIZES[exact], exact, True
    width = weights[EMBEDDING].size(1) if EMBEDDING in weights else 0
    narrower = [arch for arch in IMAGE_SIZES if PRESETS[arch]["encoder_embed_dim"] <= width]
    nearest = (narrower or list(IMAGE_SIZES)[:1])[-1]
    return IMAGE_SIZES[nearest], nearest, False


def stem_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Depth and width of a ResNet; of a vision transformer only its kind."""
    prefix = "encoder.embed_images."
    if f"{prefix}conv1.weight" not in weights or f"{prefix}bn1.weight" not in weights:
        return {"resnet_type": "ViT-B/16"}
    names = [key.removeprefix(prefix) for key in weights if key.startswith(f"{prefix}layer")]
    stages = tuple(
        len({name.split(".")[1] for name in names if name.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3)
    )
    kinds = [kind for kind, depths in DEPTHS.items() if depths == stages]
    if not kinds:
        raise UserError(
            f"expected an image stem of {', '.join(DEPTHS)}, found one of {stages} blocks; is the"
            " file complete?"
        )
    return {"resnet_type": kinds[-1], "resnet_width": weights[f"{prefix}conv1.weight"].size(0)}
