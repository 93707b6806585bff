"""The configuration of a network as other projects write it, and what their layouts have no
place for."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ofa.checkpoints.formats import HUGGINGFACE, LAYOUTS, MMPRETRAIN, StateDictFormat
from ofa.errors import UserError
from ofa.models.config import ModelConfig

# Hugging Face: field of config.json -> field of ModelConfig, and the value of a config.json that
# lacks it (None: then the shapes of the tensors tell).
HUGGINGFACE_FIELDS = {
    "d_model": ("encoder_embed_dim", None),
    "encoder_layers": ("encoder_layers", None),
    "decoder_layers": ("decoder_layers", None),
    "encoder_ffn_dim": ("encoder_ffn_embed_dim", None),
    "decoder_ffn_dim": ("decoder_ffn_embed_dim", None),
    "encoder_attention_heads": ("encoder_attention_heads", None),
    "decoder_attention_heads": ("decoder_attention_heads", None),
    "resnet_type": ("resnet_type", None),
    "max_position_embeddings": ("max_source_positions", 1024),
    "token_bucket_size": ("token_bucket_size", 256),
    "image_bucket_size": ("image_bucket_size", 42),
    "code_image_size": ("code_image_size", 128),
    "add_type_embedding": ("add_type_embedding", True),
    "layernorm_embedding": ("layernorm_embedding", True),
    "patch_layernorm_embedding": ("patch_layernorm_embedding", True),
    "code_layernorm_embedding": ("code_layernorm_embedding", True),
    "normformer": ("scale_attn", True),
    "encoder_normalize_before": ("encoder_normalize_before", True),
    "decoder_normalize_before": ("decoder_normalize_before", True),
    "share_decoder_input_output_embed": ("share_decoder_input_output_embed", True),
    "attn_scale_factor": ("attn_scale_factor", 2.0),
    "activation_function": ("activation_fn", "gelu"),
    "entangle_position_embedding": ("entangle_position_embedding", False),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.0),
    "activation_dropout": ("activation_dropout", 0.0),
    "classifier_dropout": ("pooler_dropout", 0.0),
    "encoder_layerdrop": ("encoder_layerdrop", 0.0),
    "decoder_layerdrop": ("decoder_layerdrop", 0.0),
    "encoder_drop_path_rate": ("encoder_drop_path_rate", 0.0),
    "decoder_drop_path_rate": ("decoder_drop_path_rate", 0.0),
    "resnet_drop_path_rate": ("resnet_drop_path_rate", 0.0),
    "init_std": ("init_std", 0.02),
}
HUGGINGFACE_CONSTANTS = {
    "model_type": "ofa",
    "architectures": ["OFAModel"],
    "is_encoder_decoder": True,
    "use_cache": True,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": 2,
    "resnet_model_path": None,
}
# mmpretrain: path in the configuration -> field of ModelConfig.
MMPRETRAIN_FIELDS = {
    "embedding_dim": "encoder_embed_dim",
    **{
        f"{side}_cfg.{name}": ours.format(side=side)
        for side in ("encoder", "decoder")
        for name, ours in {
            "num_layers": "{side}_layers",
            "num_heads": "{side}_attention_heads",
            "token_bucket_size": "token_bucket_size",
            "image_bucket_size": "image_bucket_size",
            "attn_scale_factor": "attn_scale_factor",
            "add_embedding_ln": "layernorm_embedding",
            "pre_norm": "{side}_normalize_before",
            "entangle_position_embedding": "entangle_position_embedding",
            "dropout_rate": "dropout",
            "drop_path_rate": "{side}_drop_path_rate",
        }.items()
    },
    "encoder_cfg.max_source_positions": "max_source_positions",
    "encoder_cfg.add_type_embed": "add_type_embedding",
    "encoder_cfg.add_image_embedding_ln": "patch_layernorm_embedding",
    "decoder_cfg.max_target_positions": "max_target_positions",
    "decoder_cfg.code_image_size": "code_image_size",
    "decoder_cfg.add_code_embedding_ln": "code_layernorm_embedding",
    "decoder_cfg.share_input_output_embed": "share_decoder_input_output_embed",
}
MMPRETRAIN_DEPTHS = {"resnet50": 50, "resnet101": 101, "resnet152": 152}
# What upstream's scripts switch on beyond the defaults; other layouts know nothing else.
UPSTREAM_SWITCHES = {
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "disable_entangle": True,
}


def huggingface_config(config: ModelConfig, num_entries: int, dtype: str) -> dict[str, Any]:
    """The content of config.json. Args: num_entries: of the vocabulary. dtype: of the weights,
    as in ``float16``."""
    fields = {name: getattr(config, ours) for name, (ours, _) in HUGGINGFACE_FIELDS.items()}
    scale = {"scale_embedding": not config.no_scale_embedding}
    return {
        **HUGGINGFACE_CONSTANTS,
        "vocab_size": num_entries,
        "torch_dtype": dtype,
        **fields,
        **scale,
    }


def from_huggingface(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``ModelConfig`` that a config.json decides, and ``vocab_size``. Raises:
    UserError if it is of another model."""
    if content.get("model_type", "ofa") != "ofa":
        raise UserError(
            f"expected a configuration of OFA (model_type 'ofa'), found '{content['model_type']}'"
        )
    if content.get("use_ofasys"):
        raise UserError(
            "use_ofasys is true: that network has another structure, which this project does not"
            " have"
        )
    fields = {ours: content.get(name, usual) for name, (ours, usual) in HUGGINGFACE_FIELDS.items()}
    fields["scale_fc"], fields["max_target_positions"] = (
        fields["scale_attn"],
        fields["max_source_positions"],
    )
    fields["no_scale_embedding"] = not content.get("scale_embedding", False)
    fields["vocab_size"] = content.get("vocab_size")
    return {
        **UPSTREAM_SWITCHES,
        **{name: value for name, value in fields.items() if value is not None},
    }


def mmpretrain_config(config: ModelConfig, num_entries: int) -> dict[str, Any]:
    """What an mmpretrain configuration has to say under ``model`` besides type, task and
    tokenizer."""
    content: dict[str, Any] = {"vocab_size": num_entries, "encoder_cfg": {}, "decoder_cfg": {}}
    for path, ours in MMPRETRAIN_FIELDS.items():
        group, _, name = path.rpartition(".")
        (content[group] if group else content)[name] = getattr(config, ours)
    depth = {"type": "OFAResNet", "depth": MMPRETRAIN_DEPTHS[config.resnet_type]}
    content["encoder_cfg"]["embed_images"] = depth
    for group in ("encoder_cfg", "decoder_cfg"):
        content[group]["scale_embedding"] = not config.no_scale_embedding
    return content


def from_mmpretrain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``ModelConfig`` that such a configuration decides, and ``vocab_size``; what it
    leaves out is as in mmpretrain's defaults."""
    fields: dict[str, Any] = dict(UPSTREAM_SWITCHES)
    for path, ours in {**MMPRETRAIN_FIELDS, "vocab_size": "vocab_size"}.items():
        group, _, name = path.rpartition(".")
        part = content.get(group, {}) if group else content
        if name in part:
            fields[ours] = part[name]
    depth = content.get("encoder_cfg", {}).get("embed_images", {}).get("depth")
    if depth:
        fields["resnet_type"] = f"resnet{depth}"
    fields["no_scale_embedding"] = not content.get("encoder_cfg", {}).get("scale_embedding", False)
    return fields


def unsupported_features(
    layout: StateDictFormat, config: ModelConfig, weights: Mapping[str, Tensor]
) -> list[str]:
    """What of a network a layout has no place for, in words; empty if it holds it all. Args:
    weights: upstream names."""
    heads = sorted(
        {key.split(".")[1] for key in weights if key.startswith("classification_heads.")}
    )
    names = "classification heads (" + ", ".join(heads) + ")"
    anywhere = {  # upstream has these two numbers fixed as well
        f"an image stem of width {config.resnet_width} (--resnet-width; 64 there)": (
            config.resnet_width != 64
        ),
        f"{config.num_image_types} kinds of images (--num-image-types)": (
            config.num_image_types != 1
        ),
    }
    other = {
        "adapters (--adapter)": any(".adapter." in key for key in weights),
        "prompts (--encoder-prompt, --decoder-prompt)": any(
            "_prompt_encoder." in key for key in weights
        ),
        names: bool(heads),
        "w_resid (--scale-resids)": config.scale_resids,
        "a vision transformer as image stem (--resnet-type ViT-B/16)": (
            config.resnet_type not in ("resnet18", "resnet34", *MMPRETRAIN_DEPTHS)
        ),
        "batch norms with the epsilon of --sync-bn": config.sync_bn,
        "positions stretched for larger images (--interpolate-position)": (
            config.interpolate_position
        ),
        "position vectors added to the input (--entangle-position-embedding"
        ", or no --disable-entangle)": (
            config.entangle_position_embedding or not config.disable_entangle
        ),
        "separate tables of token embeddings (no --share-all-embeddings)": (
            not config.share_all_embeddings
        ),
        "attention without factors of the heads (no --scale-heads)": not config.scale_heads,
    }
    particular = {
        HUGGINGFACE.name: {
            "one of --scale-attn and --scale-fc without the other": (
                config.scale_attn != config.scale_fc
            ),
            f"--attn-scale-factor {config.attn_scale_factor} (2 there)": (
                config.attn_scale_factor != 2
            ),
            "different --max-source-positions and --max-target-positions": (
                config.max_source_positions != config.max_target_positions
            ),
            f"the activation {config.activation_fn}": (
                config.activation_fn not in ("gelu", "relu", "tanh", "linear")
            ),
        },
        MMPRETRAIN.name: {
            "a network without --scale-attn and --scale-fc": not (
                config.scale_attn and config.scale_fc
            ),
            f"the image stem {config.resnet_type}": config.resnet_type in ("resnet18", "resnet34"),
            "feed-forward layers of another width than 4 x --encoder-embed-dim": (
                {config.encoder_ffn_embed_dim, config.decoder_ffn_embed_dim}
                != {4 * config.encoder_embed_dim}
            ),
            f"the activation {config.activation_fn}": config.activation_fn != "gelu",
        },
    }
    if layout is LAYOUTS["ofa"]:
        return []
    found = {
        "LoRA factors (merge them first: ofa checkpoint merge)": any(
            "lora" in key for key in weights
        ),
        **anywhere,
    }
    if layout.name in particular:
        found |= {**other, **particular[layout.name]}
    return [what for what, there in found.items() if there]
