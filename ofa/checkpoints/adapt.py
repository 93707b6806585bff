"""Fitting a checkpoint's weights to a model: what may grow, what may be absent, what does not
fit at all."""

import logging
import math
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Optional

import torch
from torch import Tensor, nn

from ofa.errors import UserError
from ofa.models.config import PRESETS
from ofa.models.ofa_model import OFAModel
from ofa.models.resnet import DEPTHS

logger = logging.getLogger(__name__)

StateDict = MutableMapping[str, Tensor]
CONSTANTS = ("version", "token_rp_bucket", "image_rp_bucket", "image_position_idx")
EMBEDDINGS = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
)
POSITIONS = ("encoder.embed_positions.weight", "decoder.embed_positions.weight")
# may be absent: what fine-tuning adds, counters
ADDED = (".adapter.", "_prompt_encoder.", ".lora_", "num_batches_tracked")
SWITCHES = {
    ".c_attn": "--scale-heads",
    "attn_ln.": "--scale-attn",
    ".ffn_layernorm.": "--scale-fc",
    ".w_resid": "--scale-resids",
    ".adapter.": "--adapter",
    ".lora_": (
        "--lora-rank and --lora-targets of its training (or merge it first: ofa checkpoint merge)"
    ),
    "encoder_prompt_encoder.": "--encoder-prompt",
    "decoder_prompt_encoder.": "--decoder-prompt",
}

# tensors whose number of rows follows from a flag: flag -> tensor, rows -> value of the flag
SIZES = {
    "--image-bucket-size": (
        "encoder.embed_image_positions.weight",
        lambda rows: math.isqrt(rows - 1),
    ),
    "--token-bucket-size": (
        "encoder.token_rel_pos_table_list.0.weight",
        lambda rows: (rows + 1) // 2,
    ),
    "--max-source-positions": ("encoder.embed_positions.weight", lambda rows: rows - 2),
    "--max-target-positions": ("decoder.embed_positions.weight", lambda rows: rows - 2),
    "--num-image-types": ("encoder.type_embedding.weight", lambda rows: rows - 1),
}


def load_into(model: OFAModel, state_dict: StateDict, strict: bool = True) -> OFAModel:
    """Load the weights of any OFA checkpoint of the model's size.

    Args: strict: every tensor of the model must be found; otherwise what is missing keeps its
    value.
    Raises: UserError that names the first tensors that do not fit, and the architecture that would.
    """
    state_dict = dict(state_dict)
    adapt_state_dict(model, state_dict)
    check_fit(model, state_dict, strict)
    nn.Module.load_state_dict(model, state_dict, strict)
    return model


def adapt_state_dict(model: OFAModel, state_dict: StateDict) -> None:
    """Change ``state_dict`` in place so that older, smaller or plainer checkpoints fit the model.

    Constant tables are the model's own (``image_position_idx`` has 1025 entries in some files, 1026
    in others); vocabulary and positions may grow; heads, adapters and prompts that the file lacks
    keep their starting values.
    """
    own = nn.Module.state_dict(model)
    for side in ("encoder", "decoder"):
        kept = getattr(model.config, f"{side}_layers_to_keep")
        if kept:
            keep_layers(state_dict, side, sorted(map(int, kept.split(","))))
    share_embeddings(model, state_dict)
    for key in (*EMBEDDINGS, *POSITIONS):
        grow(state_dict, key, own.get(key))
    grow(
        state_dict,
        "encoder.type_embedding.weight",
        own.get("encoder.type_embedding.weight"),
        like_row=1,
    )
    if state_dict:
        for key, value in own.items():
            if key.endswith(CONSTANTS) or (
                key not in state_dict and any(part in key for part in ADDED)
            ):
                state_dict[key] = value
    frozen = (
        "encoder.embed_images.bn1.weight" in own
        and "encoder.embed_images.bn1.num_batches_tracked" not in own
    )
    for key in [key for key in state_dict if frozen and key.endswith("num_batches_tracked")]:
        del state_dict[key]
    fit_heads(model, state_dict)


def keep_layers(state_dict: StateDict, side: str, kept: list[int]) -> None:
    """--encoder-layers-to-keep: these layers (and their relative biases) become 0, 1, ...; the
    others go."""
    pattern = re.compile(
        rf"({side}\.(?:layers|token_rel_pos_table_list|image_rel_pos_table_list)\.)(\d+)(\..*)"
    )
    found = {key: match for key in state_dict if (match := pattern.fullmatch(key))}
    if len({match[2] for match in found.values()}) <= len(kept):
        return  # pruned before
    values = {key: state_dict.pop(key) for key in found}
    for key, match in found.items():
        if int(match[2]) in kept:
            state_dict[f"{match[1]}{kept.index(int(match[2]))}{match[3]}"] = values[key]


def share_embeddings(model: OFAModel, state_dict: StateDict) -> None:
    """Some writers store a shared table once."""
    first = state_dict.get(EMBEDDINGS[0], state_dict.get(EMBEDDINGS[1]))
    if first is not None and model.config.share_all_embeddings:
        for key in EMBEDDINGS:
            state_dict.setdefault(key, first)
    elif model.config.share_decoder_input_output_embed and EMBEDDINGS[1] in state_dict:
        state_dict.setdefault(EMBEDDINGS[2], state_dict[EMBEDDINGS[1]])


def grow(
    state_dict: StateDict, key: str, own: Optional[Tensor], like_row: Optional[int] = None
) -> None:
    """Rows that the file lacks: the model's own starting values, or copies of row ``like_row``."""
    old = state_dict.get(key)
    if old is None or own is None or old.shape[1:] != own.shape[1:] or old.size(0) >= own.size(0):
        return
    logger.info("%s grows from %d to %d rows", key, old.size(0), own.size(0))
    new = (
        own[old.size(0) :].detach().to(old)
        if like_row is None
        else old[like_row].expand(own.size(0) - old.size(0), -1)
    )
    state_dict[key] = torch.cat([old, new])


def fit_heads(model: OFAModel, state_dict: StateDict) -> None:
    """Classification heads may differ between file and model.

    Those that the model lacks are added (--load-checkpoint-heads) or left out with a warning; those
    that the file lacks, or has in another shape, keep their starting values.
    """
    names = sorted(
        {key.split(".")[1] for key in state_dict if key.startswith("classification_heads.")}
    )
    for name in names:
        prefix = f"classification_heads.{name}."
        tensors = {key: state_dict[key] for key in state_dict if key.startswith(prefix)}
        if name not in model.classification_heads and model.config.load_checkpoint_heads:
            classes, inner = tensors[prefix + "out_proj.weight"].shape
            dense = tensors.get(prefix + "dense.weight")
            width = inner if dense is None else dense.size(1)
            model.register_classification_head(
                name, classes, inner, use_two_images=width == 2 * model.config.decoder_embed_dim
            )
        own = (
            model.classification_heads[name].state_dict(prefix=prefix)
            if name in model.classification_heads
            else {}
        )
        if {key: value.shape for key, value in own.items()} != {
            key: value.shape for key, value in tensors.items()
        }:
            logger.warning(
                "classification head %r of the checkpoint is left out: %s",
                name,
                "the model's has another shape" if own else "the model has none of that name",
            )
            for key in tensors:
                del state_dict[key]
    if state_dict:
        for key, value in model.classification_heads.state_dict(
            prefix="classification_heads."
        ).items():
            state_dict.setdefault(key, value)


def check_fit(model: OFAModel, state_dict: StateDict, strict: bool = True) -> None:
    """Raises: UserError that names up to three tensors of each kind of misfit, and a remedy."""
    own = nn.Module.state_dict(model)
    differing = [
        f"{key} is {list(state_dict[key].shape)}, the model has {list(value.shape)}"
        for key, value in own.items()
        if key in state_dict and state_dict[key].shape != value.shape
    ]
    missing = [key for key in own if key not in state_dict] if strict else []
    unknown = [key for key in state_dict if key not in own] if strict else []
    if not (differing or missing or unknown):
        return
    parts = [
        f"{len(found)} {kind} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for kind, found in (
            ("tensors of another shape", differing),
            ("tensors missing from the checkpoint", missing),
            ("tensors unknown to the model", unknown),
        )
        if found
    ]
    raise UserError(
        f"the checkpoint does not fit the model: {'; '.join(parts)}. {remedy(own, state_dict)}"
    )


def remedy(own: StateDict, state_dict: StateDict) -> str:
    """Which flags would build a model of the checkpoint's shape."""
    arch, own_arch = architecture(state_dict), architecture(own)
    advice = [f"--arch={arch}"] if arch and arch != own_arch else []
    for part, flag in SWITCHES.items():
        there = any(part in key for key in state_dict)
        if there != any(part in key for key in own):
            advice.append(flag if there else f"no {flag}")
    for flag, (key, value) in SIZES.items():
        rows, own_rows = (len(x.get(key, ())) for x in (state_dict, own))
        if rows and own_rows and rows != own_rows:
            advice.append(f"{flag}={value(rows)} (here {value(own_rows)})")
    words, own_words = (len(x.get(EMBEDDINGS[0], ())) for x in (state_dict, own))
    if words > own_words:
        advice.append(
            f"the vocabulary it was trained with ({words} entries, here {own_words}: "
            "see --bpe-dir, --num-bins, --code-dict-size)"
        )
    if not advice:
        return "Use the model flags that the checkpoint was trained with."
    return "The checkpoint needs " + ", ".join(advice) + "."


def architecture(state_dict: Mapping[str, Any]) -> Optional[str]:
    """Name of the preset with the widths and depths of a state dict, None if there is none."""

    def depth(side: str) -> int:
        return len({key.split(".")[2] for key in state_dict if key.startswith(f"{side}.layers.")})

    stages = tuple(
        len(
            {
                key.split(".")[3]
                for key in state_dict
                if key.startswith(f"encoder.embed_images.layer{stage}.")
            }
        )
        for stage in (1, 2, 3)
    )
    width = state_dict[EMBEDDINGS[0]].size(1) if EMBEDDINGS[0] in state_dict else None
    for name, preset in PRESETS.items():
        if (width, depth("encoder"), depth("decoder")) == (
            preset["encoder_embed_dim"],
            preset["encoder_layers"],
            preset["decoder_layers"],
        ):
            if stages in ((0, 0, 0), DEPTHS[preset["resnet_type"]]):
                return name
    return None
