"""The sizes of a network, read off the shapes of its tensors (upstream names): its configuration,
what the options of its file may say, and which flags fit it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor

from ofa.checkpoints.header import TOKEN_TABLES
from ofa.errors import UserError
from ofa.models.config import IMAGE_SIZES, PRESETS, ModelConfig
from ofa.models.image_stems import DEPTHS
from ofa.models.positions import CODE_PADDING

EMBEDDINGS = (*TOKEN_TABLES, "decoder.output_projection.weight")
# tables that follow from the configuration; checkpoints of a training do without them
CONSTANT_TABLES = ("token_rp_bucket", "image_rp_bucket", "image_position_idx")
CONSTANTS = ("version", *CONSTANT_TABLES)
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
# Field -> the tensor that tells it, and its value for a number of rows.
ROWS: dict[str, tuple[str, Callable[[int], int]]] = {
    "encoder_embed_dim": ("encoder.pos_ln.weight", int),
    "decoder_embed_dim": ("decoder.pos_ln.weight", int),
    "encoder_ffn_embed_dim": ("encoder.layers.0.fc1.weight", int),
    "decoder_ffn_embed_dim": ("decoder.layers.0.fc1.weight", int),
    "max_source_positions": ("encoder.embed_positions.weight", lambda rows: rows - 2),
    "max_target_positions": ("decoder.embed_positions.weight", lambda rows: rows - 2),
    "token_bucket_size": (
        "encoder.token_rel_pos_table_list.0.weight",
        lambda rows: (rows + 1) // 2,
    ),
    "image_bucket_size": (
        "encoder.embed_image_positions.weight",
        lambda rows: math.isqrt(max(rows - 1, 0)),
    ),
    "num_image_types": ("encoder.type_embedding.weight", lambda rows: rows - 1),
    # 1 + side * side + padding, which is one shorter in other projects
    "code_image_size": (
        "decoder.image_position_idx",
        lambda rows: 8 * math.isqrt(max(rows - CODE_PADDING, 0)),
    ),
}
NOT_IN_ALL = ("num_image_types", "code_image_size")
HEADS = "{}.token_rel_pos_table_list.0.weight"  # of encoder and decoder; a column per head
OF_PRESETS = ("encoder_embed_dim", "encoder_layers", "decoder_layers", "resnet_type")


def sizes_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of ``ModelConfig`` that the tensors decide; one that is not there tells nothing."""
    found: dict[str, Any] = {name: tensor in weights for name, tensor in SWITCHES.items()}
    for name, (tensor, value) in ROWS.items():
        if tensor in weights:
            found[name] = value(weights[tensor].shape[:1].numel())
    for side in ("encoder", "decoder"):
        found[f"{side}_layers"] = _count(weights, f"{side}.layers.")
        if HEADS.format(side) in weights:
            columns = weights[HEADS.format(side)].shape[1:]
            found[f"{side}_attention_heads"] = columns.numel()
    return found | _stem_of(weights)


def _count(names: Iterable[str], prefix: str) -> int:
    """Of layers or blocks, which are numbered behind the prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})


def _stem_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Depth and width of a ResNet; of a vision transformer only its kind."""
    prefix = "encoder.embed_images."
    first = weights.get(f"{prefix}conv1.weight")
    if first is None or f"{prefix}bn1.weight" not in weights:
        there = any(name.startswith(prefix) for name in weights)
        return {"resnet_type": "ViT-B/16"} if there else {}
    stages = tuple(_count(weights, f"{prefix}layer{stage}.") for stage in (1, 2, 3))
    kinds = [kind for kind, depths in DEPTHS.items() if depths == stages]
    return {"resnet_type": kinds[-1], "resnet_width": first.shape[:1].numel()} if kinds else {}


def fields_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """``sizes_of`` a whole model. Raises: UserError if a tensor that every one has is not there."""
    needed = [tensor for name, (tensor, _) in ROWS.items() if name not in NOT_IN_ALL]
    missing = [name for name in (*needed, HEADS.format("decoder")) if name not in weights]
    if missing:
        raise UserError(
            f"expected the tensors of an OFA model, {missing[0]} is missing; is the file complete?"
        )
    found = sizes_of(weights)
    if "resnet_type" not in found:
        raise UserError(
            f"expected an image stem of {', '.join(DEPTHS)}, found another number of blocks; is"
            " the file complete?"
        )
    return found


def architecture(weights: Mapping[str, Tensor]) -> str | None:
    """Name of the preset with the widths and depths of a state dict, None if there is none."""
    found = sizes_of(weights)
    for name, preset in PRESETS.items():
        if all(found.get(field, preset[field]) == preset[field] for field in OF_PRESETS):
            return name
    return None


def image_size(weights: Mapping[str, Tensor]) -> tuple[int, str, bool]:
    """The image size that a network of these widths was pretrained with; no tensor tells it.

    Args: weights: upstream names.
    Returns: pixels, the architecture that they are of, and whether the network is of exactly that
        architecture; otherwise it is the largest one that is no wider (the smallest, if all are).
    """
    exact = architecture(weights) or ""
    if exact in IMAGE_SIZES:
        return IMAGE_SIZES[exact], exact, True
    width = weights[EMBEDDINGS[0]].size(1) if EMBEDDINGS[0] in weights else 0
    narrower = [arch for arch in IMAGE_SIZES if PRESETS[arch]["encoder_embed_dim"] <= width]
    nearest = (narrower or list(IMAGE_SIZES)[:1])[-1]
    return IMAGE_SIZES[nearest], nearest, False


# --- which flags fit ------------------------------------------------------------------------------

MODULES = {  # part of a name -> flag of the module
    ".adapter.": "--adapter",
    ".lora_": (
        "--lora-rank and --lora-targets of its training (or merge it first: ofa checkpoint merge)"
    ),
    "encoder_prompt_encoder.": "--encoder-prompt",
    "decoder_prompt_encoder.": "--decoder-prompt",
}


def remedy(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Flags that build a model of a checkpoint's shape. Args: own: of the model that is there."""
    here, there = sizes_of(own), sizes_of(weights)
    arch = architecture(weights)
    advice = [f"--arch={arch}"] if arch and arch != architecture(own) else []
    for field, value in there.items():
        follows = advice and field.endswith(("_dim", "_layers", "_heads", "_width", "_type"))
        if not follows and value != here.get(field, value):
            advice.append(_flag(field, value, here[field]))
    for part, flag in MODULES.items():
        needed = any(part in key for key in weights)
        if needed != any(part in key for key in own):
            advice.append(flag if needed else f"no {flag}")
    words, own_words = (len(x.get(EMBEDDINGS[0], ())) for x in (weights, own))
    if words > own_words:
        advice.append(
            f"the vocabulary it was trained with ({words} entries, here {own_words}: "
            "see --bpe-dir, --num-bins, --code-dict-size)"
        )
    if not advice:
        return "Use the model flags that the checkpoint was trained with."
    return f"The checkpoint needs {', '.join(advice)}."


def _flag(field: str, there: Any, here: Any) -> str:
    flag = f"--{field.replace('_', '-')}"
    if isinstance(there, bool):
        return flag if there else f"no {flag}"
    return f"{flag}={there} (here {here})"


# --- what a file's options may say ----------------------------------------------------------------

WIDER = 8  # times the width that the tensors have
MORE = 64  # more layers, heads, buckets, ... than the tensors have
ROOM = {
    "max_source_positions": 4096,
    "max_target_positions": 4096,
    "token_bucket_size": 4096,
    "code_image_size": 512,  # pixels
}
LARGEST = 1 << 16  # of sizes that no tensor tells
LARGEST_SIDE = 4096  # pixels of an image
COUNTS = ("code_dict_size", "num_bins", "patch_image_size")  # options of the task
NUMBERS = {field.name: field.type for field in fields(ModelConfig) if field.type in (int, float)}


def check_stored_sizes(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse numbers that are none, and sizes far beyond those of the tensors, before a network or
    a vocabulary is made of them: a small file may say ``encoder_ffn_embed_dim`` 10 000 000.

    What is a little too large passes: loading says then which flag does not fit.
    Args: options: of model and task, as the file stores them. Raises: UserError.
    """
    for name, tensor in weights.items():
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UserError(
                f"expected the tensors of a network, found {name}, which repeats the"
                " numbers of a smaller one; get the file from its authors"
            )
    shapes = fields_of(weights)
    for name, kind in {**NUMBERS, **dict.fromkeys(COUNTS, int)}.items():
        value = options.get(name)
        if value is None:
            continue
        most = _most(name, shapes, weights) if kind is int else math.inf
        numeric = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not numeric or not 0 <= value <= most or value == math.inf:
            raise UserError(
                f"its options say {name} {str(value)[:60]!r}, expected a number from 0 to "
                f"{most} as its tensors have; take both from one model"
            )


def _most(name: str, shapes: Mapping[str, Any], weights: Mapping[str, Tensor]) -> int:
    """The largest value of an option that is a size."""
    if name.endswith("patch_image_size"):
        return LARGEST_SIDE
    if name not in shapes:
        return max(LARGEST, *(max(tensor.shape, default=0) for tensor in weights.values()))
    if name.endswith(("_dim", "_width")):
        return WIDER * shapes[name]
    return shapes[name] + ROOM.get(name, MORE)
