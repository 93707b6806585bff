"""A model from a file of any layout: weights under upstream's names, and the configuration
that they belong to."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa.checkpoints.adapt import CONSTANTS
from ofa.checkpoints.architecture import EMBEDDINGS, architecture, check_stored_sizes, fields_of
from ofa.checkpoints.contents import arguments, upstream_state_dict, values_of
from ofa.checkpoints.formats import (
    FAIRSEQ,
    HUGGINGFACE,
    UPSTREAM_SWITCHES,
    StateDictFormat,
    from_huggingface,
    from_mmpretrain,
    recognize,
)
from ofa.errors import UserError, naming
from ofa.io.json_files import read_json
from ofa.io.paths import path_below
from ofa.io.safe_load import load_checkpoint
from ofa.io.stored_options import drop_from_checkpoint, drop_unfollowed, option_groups
from ofa.models.config import ModelConfig
from ofa.models.resnet import DEPTHS

logger = logging.getLogger(__name__)

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder; the first that is there
# in the configuration of other layouts: the options of this project's task, as this project wrote
# them
TASK = "ofa_task"
JSON_OBJECT = "a JSON object"
FIELDS = {field.name for field in fields(ModelConfig)}


@dataclass
class Source:
    """What a file holds.

    Attributes:
        weights: upstream names; the constant tables are not among them.
        content: all else that the file stores: ``args``, ``cfg``, ... of a checkpoint.
        task: options of its task; empty if the file knows none.
    """

    path: str
    layout: StateDictFormat
    weights: dict[str, Tensor]
    config: ModelConfig
    content: dict[str, Any]
    task: dict[str, Any]

    @property
    def num_entries(self) -> int:
        """Of the vocabulary."""
        return len(self.weights[EMBEDDINGS[0]])

    @property
    def arch(self) -> str:
        """The architecture of these sizes; of other sizes the one whose name the file has, or
        ofa_large, which is changed in all."""
        return architecture(self.weights) or arguments(self.content).get("arch") or "ofa_large"


def read_source(path: str | Path, ema: bool = False) -> Source:
    """Args: path: a file, or a folder with config.json. ema: the moving averages as the weights (of
    a training's checkpoint).

    Raises: UserError if it is no OFA model, is damaged, or if its configuration is not that of its
    weights.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    content = read_folder(path) if path.is_dir() else load_checkpoint(path, mapped=True)
    drop_from_checkpoint(content, path)
    state = content.get("model") or content.get("state_dict") or content
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    layout = recognize(tensors)
    with naming(path):
        if (content.get("light_tuning") or {}).get("base"):
            raise UserError(
                "expected all weights of a model, found those alone that a parameter-efficient"
                f" tuning trained; make it whole first: ofa checkpoint merge {path} --out FILE"
            )
        if layout is None:
            raise UserError(
                "expected an OFA model (upstream, Hugging Face or mmpretrain names), found "
                f"{describe(tensors or content)}; name the model's own file"
            )
        if layout is FAIRSEQ:
            weights = upstream_state_dict(content, ema)
            for options in option_groups(content):
                check_stored_sizes(options, weights)
            given = {key: value for key, value in arguments(content).items() if key in FIELDS}
            group = (content.get("cfg") or {}).get("task") or content.get("args")
            task = values_of(group or {})
        elif ema:
            raise UserError(
                f"a file of the {layout.title} layout has no moving averages; leave --ema out"
            )
        else:
            weights = {layout.to_upstream(key): value for key, value in tensors.items()}
            given, task = foreign_options(layout, content, folder)
            drop_unfollowed(task, folder)
        weights = complete_tables(weights)
        config = config_of(weights, given, layout)
        if config.share_all_embeddings:
            check_tables(weights)
            # averages have a copy for each name
            weights |= dict.fromkeys(EMBEDDINGS, weights[EMBEDDINGS[0]])
    weights = {key: value for key, value in weights.items() if not key.endswith(CONSTANTS)}
    rest = {name: part for name, part in content.items() if part is not state}
    rest = {name: part for name, part in rest.items() if not isinstance(part, Tensor)}
    return Source(str(path), layout, weights, config, rest, task)


def describe(content: Mapping[str, Any]) -> str:
    return ", ".join(list(map(str, content))[:5]) or "nothing"


def read_folder(folder: Path) -> dict[str, Any]:
    """The tensors of a folder in one or several files, under ``state_dict``."""
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            parts = [folder / name]
        elif index.is_file():
            parts = _parts(index)
        else:
            continue
        state: dict[str, Any] = {}
        for part in parts:
            content = load_checkpoint(part, mapped=True)
            state |= content.get("model") or content.get("state_dict") or content
        return {"state_dict": state}
    raise UserError(
        f"{folder}: expected a Hugging Face folder with {CONFIG} and {' or '.join(WEIGHTS)}, found"
        f" {describe(dict.fromkeys(sorted(entry.name for entry in folder.iterdir())))}; name the"
        " file, or download it all"
    )


def _parts(index: Path) -> list[Path]:
    """The files that hold the tensors of a folder. Links may lead on: the Hub's cache is made of
    them."""
    names = read_json(index, JSON_OBJECT, kind=dict).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(
            f"{index}: expected 'weight_map' with the file of each tensor, found none; download the"
            " folder again"
        )
    return [
        path_below(index.parent, name, str(index), follow_links=True)
        for name in sorted(set(map(str, names.values())))
    ]


def foreign_options(
    layout: StateDictFormat, content: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of ``ModelConfig`` as the other project's configuration has them, and the options of
    the task that it carries along."""
    if layout is HUGGINGFACE:
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"expected {CONFIG} beside the weights, found none in {folder}; download or copy it"
                " as well"
            )
        stored = read_json(folder / CONFIG, JSON_OBJECT, kind=dict)
        given = from_huggingface(stored)
    else:
        stored = content.get("meta") or {}
        given = from_mmpretrain(stored.get("model") or {})
    return given, dict(stored.get(TASK) or {})


def complete_tables(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """All three names of the table of token embeddings, where a file holds one or two of them.

    Raises: UserError if it holds none.
    """
    found = next((weights[key] for key in EMBEDDINGS if key in weights), None)
    if found is None:
        raise UserError(
            f"expected a table of token embeddings, found none of {', '.join(EMBEDDINGS)}; is the"
            " file complete?"
        )
    return {**dict.fromkeys(EMBEDDINGS, found), **weights}


def config_of(
    weights: Mapping[str, Tensor], given: Mapping[str, Any], layout: StateDictFormat
) -> ModelConfig:
    """The configuration that a file stores, checked against the shapes; what it does not store
    follows from the shapes.

    Raises: UserError if the two contradict each other.
    """
    given = {name: value for name, value in given.items() if value is not None}
    entries = len(weights[EMBEDDINGS[0]])
    if given.get("vocab_size", entries) != entries:
        raise UserError(
            f"its configuration says vocab_size {given['vocab_size']}, its tensors have {entries}"
            " entries; take both from one model"
        )
    shapes = fields_of(weights)
    if not given:
        logger.warning(
            "the file stores no options: those that no shape tells are taken as in the upstream"
            " scripts (%s)",
            ", ".join(f"--{name.replace('_', '-')}" for name in UPSTREAM_SWITCHES),
        )
    if layout is not FAIRSEQ or not given:
        given = {**UPSTREAM_SWITCHES, **given}
    for name, value in shapes.items():
        stored = given.get(name, value)
        same = DEPTHS.get(stored) == DEPTHS.get(value) if name == "resnet_type" else stored == value
        if layout is not FAIRSEQ and not same:
            raise UserError(
                f"its configuration says {name} {stored}, its tensors say {value}; take both from"
                " one model"
            )
    return ModelConfig.from_namespace({**shapes, **given}, "ofa_large")


def check_tables(weights: Mapping[str, Tensor]) -> None:
    """Raises: UserError if the three names of one table of token embeddings hold different ones."""
    first = weights[EMBEDDINGS[0]]
    for key in EMBEDDINGS[1:]:
        if weights[key].data_ptr() != first.data_ptr() and not weights[key].equal(first):
            raise UserError(
                f"{EMBEDDINGS[0]} and {key} are one table in this network, found different values; "
                "which of them is right cannot be told: make the file again"
            )
