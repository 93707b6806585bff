"""How other projects name the tensors and write the configuration of OFA, and what their layouts
have no place for.

No tensor is reshaped. mmpretrain gives upstream names another meaning: ``attn_ln`` is the LayerNorm
*before* an attention there, *after* it in upstream; a mistake would load silently.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from ofa.checkpoints.architecture import NUMBERS, fields_of
from ofa.errors import UserError
from ofa.models.config import ModelConfig
from ofa.models.image_stems import DEPTHS

NAME = re.compile(r"((?:encoder|decoder)\.)(layers\.\d+\.)?([^.]+)(.*)")
# What upstream's scripts switch on beyond the defaults; other layouts know nothing else.
UPSTREAM_SWITCHES = dict.fromkeys(
    ("scale_attn", "scale_fc", "scale_heads", "disable_entangle"), True
)
# Name in the other configuration -> field of ModelConfig, or one that follows from a field. Hugging
# Face:
HUGGINGFACE_FIELDS = {
    "vocab_size": "vocab_size",
    "scale_embedding": "scale_embedding",
    "d_model": "encoder_embed_dim",
    "encoder_ffn_dim": "encoder_ffn_embed_dim",
    "decoder_ffn_dim": "decoder_ffn_embed_dim",
    "max_position_embeddings": "max_source_positions",
    "normformer": "scale_attn",
    "activation_function": "activation_fn",
    "classifier_dropout": "pooler_dropout",
    **{
        name: name
        for name in """
            encoder_layers decoder_layers encoder_attention_heads decoder_attention_heads
            resnet_type token_bucket_size image_bucket_size code_image_size add_type_embedding
            layernorm_embedding patch_layernorm_embedding code_layernorm_embedding
            encoder_normalize_before decoder_normalize_before share_decoder_input_output_embed
            attn_scale_factor entangle_position_embedding dropout attention_dropout
            activation_dropout encoder_layerdrop decoder_layerdrop encoder_drop_path_rate
            decoder_drop_path_rate resnet_drop_path_rate init_std
        """.split()
    },
}
# Fields that follow from the shapes of the tensors where a config.json lacks them; all others have
# the default of ModelConfig then, but for two.
HUGGINGFACE_SIZES = (
    "encoder_embed_dim encoder_ffn_embed_dim decoder_ffn_embed_dim encoder_layers decoder_layers"
    " encoder_attention_heads decoder_attention_heads resnet_type"
).split()
HUGGINGFACE_DEFAULTS = {
    name: getattr(ModelConfig, name)
    for name in HUGGINGFACE_FIELDS.values()
    if hasattr(ModelConfig, name) and name not in HUGGINGFACE_SIZES
} | {"dropout": 0.1, "scale_attn": True}
# values that are understood; any other counts as missing
KNOWN = {"resnet_type": tuple(DEPTHS), "activation_fn": ("gelu", "relu", "tanh", "linear")}
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
# mmpretrain, by path:
MMPRETRAIN_FIELDS = {
    "vocab_size": "vocab_size",
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
            "scale_embedding": "scale_embedding",
            "drop_path_rate": "{side}_drop_path_rate",
        }.items()
    },
    "encoder_cfg.embed_images.depth": "resnet_depth",
    "encoder_cfg.max_source_positions": "max_source_positions",
    "encoder_cfg.add_type_embed": "add_type_embedding",
    "encoder_cfg.add_image_embedding_ln": "patch_layernorm_embedding",
    "decoder_cfg.max_target_positions": "max_target_positions",
    "decoder_cfg.code_image_size": "code_image_size",
    "decoder_cfg.add_code_embedding_ln": "code_layernorm_embedding",
    "decoder_cfg.share_input_output_embed": "share_decoder_input_output_embed",
}
RESNET_DEPTHS = {"resnet50": 50, "resnet101": 101, "resnet152": 152}


@dataclass(frozen=True)
class StateDictFormat:
    """One way to name the tensors.

    Args:
        name: what ``--to`` calls it. title: in messages.
        sign: a segment that every decoder layer has in this layout and in no other.
        prefix: of all names.
        renamed: place, with ``N`` for the number of a layer -> upstream segment -> segment there.
        shorter_by: entries of ``image_position_idx`` that this layout does not have.
        fields: path in the configuration -> field of ``ModelConfig``.
        constants: path -> what it always says.
        defaults: of fields that a configuration leaves out.
    """

    name: str
    title: str
    sign: str
    prefix: str = ""
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shorter_by: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def upstream(self) -> dict[str, dict[str, str]]:
        """``renamed``, read backwards."""
        return {
            place: {there: here for here, there in names.items()}
            for place, names in self.renamed.items()
        }

    def from_upstream(self, key: str) -> str | None:
        """The name in this layout of an upstream name; None for ``version``, of upstream alone."""
        if self.renamed and key.endswith(".version"):
            return None
        place, head, segment, rest = _parts(key)
        return self.prefix + head + self.renamed.get(place, {}).get(segment, segment) + rest

    def to_upstream(self, key: str) -> str:
        """The upstream name of a name in this layout. Raises: UserError if only upstream has it."""
        key = without_prefix(key)
        place, head, segment, rest = _parts(key)
        names = self.upstream.get(place, {})
        if segment in self.renamed.get(place, {}) and segment not in names:
            raise UserError(
                f"{key}: expected a name of the {self.title} layout, found one of upstream; "
                "is the file mixed of both? Convert the file that it was made from"
            )
        return head + names.get(segment, segment) + rest

    def to_config(self, config: ModelConfig, num_entries: int) -> dict[str, Any]:
        """The configuration in this layout. Args: num_entries: of the vocabulary."""
        values = {
            **vars(config),
            "vocab_size": num_entries,
            "scale_embedding": not config.no_scale_embedding,
            "resnet_depth": RESNET_DEPTHS.get(config.resnet_type),
        }
        content: dict[str, Any] = {}
        written = {path: values[name] for path, name in self.fields.items()}
        for path, value in {**self.constants, **written}.items():
            *groups, last = path.split(".")
            part = content
            for group in groups:
                part = part.setdefault(group, {})
            part[last] = value
        return content

    def from_config(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of ``ModelConfig``, and ``vocab_size``, of a configuration in this layout.

        Raises: UserError if it is that of another model.
        """
        if content.get("model_type", "ofa") != "ofa":
            raise UserError(
                "expected a configuration of OFA (model_type 'ofa'), found"
                f" '{content['model_type']}'"
            )
        if content.get("use_ofasys"):
            raise UserError(
                "use_ofasys is true: that network has another structure, which this project does"
                " not have"
            )
        found = dict(self.defaults)
        for path, name in self.fields.items():
            value: Any = content
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None and value in KNOWN.get(name, (value,)):
                found[name] = value
        found["no_scale_embedding"] = not found.pop("scale_embedding", False)
        if depth := found.pop("resnet_depth", None):
            found["resnet_type"] = f"resnet{depth}"
        if self is HUGGINGFACE:  # which has one name for both
            found["scale_fc"] = found["scale_attn"]
            found["max_target_positions"] = found["max_source_positions"]
        return UPSTREAM_SWITCHES | found


def _parts(key: str) -> tuple[str, str, str, str]:
    """Of ``encoder.layers.3.attn_ln.weight`` the place ``encoder.layers.N``, and its three parts
    ``encoder.layers.3.``, ``attn_ln`` and ``.weight``."""
    found = NAME.fullmatch(key)
    if found is None:
        return "", "", key, ""
    side, layer, segment, rest = found.groups(default="")
    return (f"{side}layers.N" if layer else side[:-1]), side + layer, segment, rest


def without_prefix(key: str) -> str:
    """A name without what wrappers put before it."""
    return key.removeprefix("module.").removeprefix("model.")


FAIRSEQ = StateDictFormat("fairseq", "upstream fairseq", sign="encoder_attn")
NATIVE = StateDictFormat("ofa", "this project's", sign="encoder_attn")
HUGGINGFACE = StateDictFormat(
    "huggingface",
    "Hugging Face",
    sign="cross_attn_layer_norm",
    shorter_by=1,
    fields=HUGGINGFACE_FIELDS,
    constants=HUGGINGFACE_CONSTANTS,
    defaults=HUGGINGFACE_DEFAULTS,
    renamed={
        "encoder.layers.N": {
            "attn_ln": "self_attn_mid_layer_norm",
            "ffn_layernorm": "ffn_layer_norm",
        },
        "decoder.layers.N": {
            "self_attn_ln": "self_attn_mid_layer_norm",
            "cross_attn_ln": "cross_attn_mid_layer_norm",
            "encoder_attn": "cross_attn",
            "encoder_attn_layer_norm": "cross_attn_layer_norm",
            "ffn_layernorm": "ffn_layer_norm",
        },
    },
)
MMPRETRAIN = StateDictFormat(
    "mmpretrain",
    "mmpretrain",
    sign="ffn_mid_ln",
    prefix="model.",
    shorter_by=1,
    fields=MMPRETRAIN_FIELDS,
    constants={"encoder_cfg.embed_images.type": "OFAResNet"},
    renamed={
        "encoder": {
            "type_embedding": "embed_type",
            "layernorm_embedding": "embedding_ln",
            "patch_layernorm_embedding": "image_embedding_ln",
            "layer_norm": "final_ln",
        },
        "decoder": {
            "layernorm_embedding": "embedding_ln",
            "code_layernorm_embedding": "code_embedding_ln",
            "layer_norm": "final_ln",
        },
        "encoder.layers.N": {
            "self_attn": "attn",
            "self_attn_layer_norm": "attn_ln",
            "attn_ln": "attn_mid_ln",
            "ffn_layernorm": "ffn_mid_ln",
            "final_layer_norm": "ffn_ln",
        },
        "decoder.layers.N": {
            "self_attn_layer_norm": "self_attn_ln",
            "self_attn_ln": "self_attn_mid_ln",
            "encoder_attn_layer_norm": "cross_attn_ln",
            "cross_attn_ln": "cross_attn_mid_ln",
            "encoder_attn": "cross_attn",
            "ffn_layernorm": "ffn_mid_ln",
            "final_layer_norm": "ffn_ln",
        },
    },
)
LAYOUTS = {layout.name: layout for layout in (FAIRSEQ, NATIVE, HUGGINGFACE, MMPRETRAIN)}


def recognize(keys: Iterable[str]) -> StateDictFormat:
    """The layout by the names of the tensors; upstream's, which are ours, if it is no other."""
    parts = [_parts(without_prefix(key)) for key in keys]
    segments = {segment for place, _, segment, _ in parts if place == "decoder.layers.N"}
    return next((layout for layout in LAYOUTS.values() if layout.sign in segments), FAIRSEQ)


# What a program of that layout has fixed, whatever a configuration says.
FIXED: dict[str, dict[str, Any]] = {
    FAIRSEQ.name: {"resnet_width": 64, "num_image_types": 1},
    HUGGINGFACE.name: {"attn_scale_factor": 2.0, "entangle_position_embedding": False},
    MMPRETRAIN.name: {"entangle_position_embedding": False},
}
# Fields of ModelConfig that change what a network computes, besides those that its tensors tell.
COMPUTED = (
    "activation_fn attn_scale_factor disable_entangle entangle_position_embedding"
    " interpolate_position no_scale_embedding share_all_embeddings sync_bn"
).split()


def unsupported_features(
    layout: StateDictFormat, config: ModelConfig, weights: Mapping[str, Tensor]
) -> list[str]:
    """What a layout has no place for, in words. Args: weights: of the network, upstream names."""
    if layout is NATIVE:
        return []
    parts = {"lora": "LoRA factors (merge them first: ofa checkpoint merge)"}
    if layout is FAIRSEQ:
        given = vars(config)
    else:
        parts |= {
            ".adapter.": "adapters (--adapter)",
            "_prompt_encoder.": "prompts (--encoder-prompt, --decoder-prompt)",
        }
        heads = {key.split(".")[1] for key in weights if key.startswith("classification_heads.")}
        for head in sorted(heads):
            parts[f"classification_heads.{head}."] = f"the classification head {head}"
        given = layout.from_config(layout.to_config(config, 0))
    there = ModelConfig.from_namespace({**given, **FIXED[layout.name]}, "ofa_large")
    found = [what for part, what in parts.items() if any(part in key for key in weights)]
    for name in (*fields_of(weights), *COMPUTED):
        value, other = getattr(config, name), getattr(there, name)
        flag = f"--{name.replace('_', '-')}"
        if value == other:
            continue
        if isinstance(value, bool):
            found.append(flag if value else f"no {flag}")
        else:
            found.append(f"{flag} {value}" + (f" ({other} there)" if name in NUMBERS else ""))
    return found
