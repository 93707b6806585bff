"""Fitting the weights of a checkpoint to a model: what may grow, what may be absent."""

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from ofa.checkpoints.architecture import CONSTANT_TABLES, CONSTANTS, EMBEDDINGS, remedy
from ofa.checkpoints.read import Checkpoint
from ofa.errors import UserError, naming
from ofa.models.ofa_model import OFAModel

logger = logging.getLogger(__name__)

StateDict = MutableMapping[str, Tensor]
POSITIONS = ("encoder.embed_positions.weight", "decoder.embed_positions.weight")
IMAGE_TYPES = "encoder.type_embedding.weight"
# may be absent: what fine-tuning adds, counters
ADDED = (".adapter.", "_prompt_encoder.", ".lora_", "num_batches_tracked")


def load_into(
    model: OFAModel, state_dict: StateDict, strict: bool = True, assign: bool = False
) -> OFAModel:
    """Load the weights of any OFA checkpoint of the model's size.

    Args: strict: every tensor of the model must be found; otherwise what is missing keeps its
    value. assign: the tensors become those of the model, which may be one of the device meta.
    Raises: UserError that names the first tensors that do not fit, and the architecture that would.
    """
    state_dict = dict(state_dict)
    adapt_state_dict(model, state_dict)
    check_fit(model, state_dict, strict)
    nn.Module.load_state_dict(model, state_dict, strict, assign)
    return model


def network_of(source: Checkpoint) -> OFAModel:
    """The network around the tensors of a file, not copied; its constant tables are made anew.

    Raises: UserError that names the file if they are not all of the network's, or do not fit it.
    """
    state = dict(source.parameters)
    if source.config.share_all_embeddings:  # averages have a copy for each name
        state |= dict.fromkeys(EMBEDDINGS, state[EMBEDDINGS[0]])
    with naming(source.path):
        with torch.device("meta"):
            model = load_into(OFAModel(source.config, source.num_entries), state, assign=True)
        for norm in model.modules():
            counter = getattr(norm, "num_batches_tracked", None)
            if counter is not None and counter.is_meta:
                norm.num_batches_tracked = torch.zeros((), dtype=torch.long)
        absent = [key for key, value in model.state_dict().items() if value.is_meta]
        if absent:
            raise UserError(
                f"{len(absent)} tensors missing from the checkpoint ({', '.join(absent[:3])}, ...);"
                " is the file complete?"
            )
    return model.eval()


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
    grow(state_dict, IMAGE_TYPES, own.get(IMAGE_TYPES), like_row=1)
    if state_dict:
        for key, value in own.items():
            if key.endswith(CONSTANTS):
                state_dict[key] = value
            elif any(part in key for part in ADDED):
                state_dict.setdefault(key, value)
    counts = any(key.endswith("num_batches_tracked") for key in own)
    for key in [key for key in state_dict if key.endswith("num_batches_tracked") and not counts]:
        del state_dict[key]  # of a stem that trained, for one that is frozen
    fit_heads(model, state_dict)


def keep_layers(state_dict: StateDict, side: str, kept: list[int]) -> None:
    """--encoder-layers-to-keep: these layers and their biases become 0, 1, ...; the others go."""
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


def store_once(state: Mapping[str, Any]) -> None:
    """Drop the constant tables of a training's checkpoint, and let equal tables of tokens be one
    tensor, in place: a file holds it once.

    Names of one parameter are copies as soon as a network was on a GPU, and in averages of float32.
    Readers, upstream's too, make constant tables anew, and copy averages into their own; networks
    of fairseq need ``version``.
    """
    extra = state["extra_state"]
    tables: list[Tensor] = []
    for weights in (
        state["model"],
        *(extra.get(name) or {} for name in ("ema", "ema_fp32_params")),
    ):
        for name in [name for name in weights if name.endswith(CONSTANT_TABLES)]:
            del weights[name]
        for name in filter(weights.__contains__, EMBEDDINGS):
            tensor = weights[name]
            same = (table for table in tables if table.dtype == tensor.dtype)
            weights[name] = next((table for table in same if table.equal(tensor)), tensor)
            tables.append(weights[name])


def grow(state_dict: StateDict, key: str, own: Tensor | None, like_row: int | None = None) -> None:
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
    heads, prefix = model.classification_heads, "classification_heads."
    for name in sorted({key.split(".")[1] for key in state_dict if key.startswith(prefix)}):
        start = f"{prefix}{name}."
        tensors = {key: state_dict[key] for key in state_dict if key.startswith(start)}
        last = tensors.get(f"{start}out_proj.weight")
        if name not in heads and model.config.load_checkpoint_heads and last is not None:
            dense = tensors.get(f"{start}dense.weight", last)
            two_images = dense.size(1) == 2 * model.config.decoder_embed_dim
            classes, inner = last.shape
            model.register_classification_head(name, classes, inner, two_images)
        own = heads[name].state_dict(prefix=start) if name in heads else {}
        if _shapes(own) != _shapes(tensors):
            logger.warning(
                "classification head %r of the checkpoint is left out: %s",
                name,
                "the model's has another shape" if own else "the model has none of that name",
            )
            for key in tensors:
                del state_dict[key]
    if state_dict:
        for key, value in heads.state_dict(prefix=prefix).items():
            state_dict.setdefault(key, value)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def check_fit(model: OFAModel, state_dict: StateDict, strict: bool = True) -> None:
    """Raises: UserError that names up to three tensors of each kind of misfit, and a remedy."""
    own = nn.Module.state_dict(model)
    misfits = {
        "tensors of another shape": [
            f"{key} is {list(state_dict[key].shape)}, the model has {list(value.shape)}"
            for key, value in own.items()
            if key in state_dict and state_dict[key].shape != value.shape
        ],
        "tensors missing from the checkpoint": [key for key in own if key not in state_dict],
        "tensors unknown to the model": [key for key in state_dict if key not in own],
    }
    parts = [
        f"{len(found)} {kind} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})"
        for kind, found in misfits.items()
        if found and (strict or kind == "tensors of another shape")
    ]
    if parts:
        raise UserError(
            f"the checkpoint does not fit the model: {'; '.join(parts)}. {remedy(own, state_dict)}"
        )
