"""How other projects name the tensors of OFA: upstream name <-> name there, by rules that hold for
every size.

A name is a place, one segment and the rest: ``encoder.layers.3.`` ``attn_ln`` ``.weight``. Only the
segment differs, and no tensor is reshaped. mmpretrain gives upstream names another meaning:
``attn_ln``, ``self_attn_ln`` and ``cross_attn_ln`` are the LayerNorms *before* an attention there,
and *after* it in upstream. The shapes agree, so a mistake would load silently.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ofa.errors import UserError

NAME = re.compile(r"((?:encoder|decoder)\.)(layers\.\d+\.)?([^.]+)(.*)")
NUMBER = re.compile(r"\.\d+\.")


@dataclass(frozen=True)
class StateDictFormat:
    """One way to name the tensors.

    Args:
        name: what ``--to`` calls it. title: in messages.
        sign: a segment that every decoder layer has in this layout and in no other.
        prefix: of all names.
        renamed: place, with ``N`` for the number of a layer -> upstream segment -> segment there.
        shorter_by: entries of ``image_position_idx`` that this layout does not have.
    """

    name: str
    title: str
    sign: str
    prefix: str = ""
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shorter_by: int = 0

    @cached_property
    def upstream(self) -> dict[str, dict[str, str]]:
        """``renamed``, read backwards."""
        return {
            place: {there: here for here, there in names.items()}
            for place, names in self.renamed.items()
        }

    def from_upstream(self, key: str) -> str | None:
        """The name there of an upstream one; None for what has no place there (the ``version``
        of upstream's stacks)."""
        if self.renamed and key.endswith(".version"):
            return None
        return self.prefix + _replaced(key, self.renamed)

    def to_upstream(self, key: str) -> str:
        """Upstream's name of one there, with or without prefix.

        Raises: UserError if it is a name of upstream that this layout does not use.
        """
        key = without_prefix(key)
        place, segment = _place_and_segment(key)
        if segment in self.renamed.get(place, {}) and segment not in self.upstream[place]:
            raise UserError(
                f"{key}: expected a name of the {self.title} layout, found one of upstream; "
                "is the file mixed of both? Convert the file that it was made from"
            )
        return _replaced(key, self.upstream)


def _place_and_segment(key: str) -> tuple[str, str]:
    found = NAME.fullmatch(key)
    if found is None:
        return "", ""
    side, layer, segment, _ = found.groups()
    return NUMBER.sub(".N.", side + (layer or "")).removesuffix("."), segment


def _replaced(key: str, renamed: Mapping[str, Mapping[str, str]]) -> str:
    place, segment = _place_and_segment(key)
    found = NAME.fullmatch(key)
    if found is None or segment not in renamed.get(place, {}):
        return key
    side, layer, _, rest = found.groups()
    return f"{side}{layer or ''}{renamed[place][segment]}{rest}"


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


def recognize(keys: Iterable[str]) -> StateDictFormat | None:
    """The layout of a file by the names of its tensors; None if it is no OFA model. This project
    has upstream's names."""
    segments = {
        segment
        for place, segment in map(_place_and_segment, map(without_prefix, keys))
        if place == "decoder.layers.N"
    }
    return next((layout for layout in LAYOUTS.values() if layout.sign in segments), None)
