"""A model from a file of any layout: weights under upstream's names, and the configuration
that they belong to."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa.checkpoints.adapt import CONSTANTS, EMBEDDINGS, architecture
from ofa.checkpoints.architecture import fields_of
from ofa.checkpoints.contents import arguments, upstream_state_dict
from ofa.checkpoints.foreign_config import UPSTREAM_SWITCHES, from_huggingface, from_mmpretrain
from ofa.checkpoints.formats import FAIRSEQ, HUGGINGFACE, MMPRETRAIN, StateDictFormat, recognize
from ofa.checkpoints.stored_sizes import check_stored_sizes
from ofa.errors import UserError
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
        num_entries: of the vocabulary.
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
    if (content.get("light_tuning") or {}).get("base"):
        raise UserError(
            f"{path}: expected all weights of a model, found those alone that a"
            f" parameter-efficient tuning trained; make it whole first: ofa checkpoint merge {path}"
            " --out FILE"
        )
    layout = recognize(tensors)
    if layout is None:
        raise UserError(
            f"{path}: expected an OFA model (upstream, Hugging Face or mmpretrain names), found "
            f"{describe(tensors or content)}; name the model's own file"
        )
    try:
        if layout is FAIRSEQ:
            weights = upstream_state_dict(content, ema)
            for options in option_groups(content):
                check_stored_sizes(path, options, weights)
            given = {
                key: value
                for key, value in arguments(content).items()
                if key in FIELDS and value is not None
            }
        elif ema:
            raise UserError(
                f"a file of the {layout.title} layout has no moving averages; leave --ema out"
            )
        else:
            weights = {layout.to_upstream(key): value for key, value in tensors.items()}
            given = foreign_config(layout, content, folder)
        weights = complete_tables(weights)
        if given.get("vocab_size", len(weights[EMBEDDINGS[0]])) != len(weights[EMBEDDINGS[0]]):
            raise UserError(
                f"its configuration says vocab_size {given['vocab_size']}, its tensors have "
                f"{len(weights[EMBEDDINGS[0]])} entries; take both from one model"
            )
        config = config_of(weights, given, layout)
        if config.share_all_embeddings:
            check_tables(weights)
            # averages have a copy for each name
            weights |= dict.fromkeys(EMBEDDINGS, weights[EMBEDDINGS[0]])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    rest = {
        key: value
        for key, value in content.items()
        if value is not state and not isinstance(value, Tensor)
    }
    named = {key: value for key, value in weights.items() if not key.endswith(CONSTANTS)}
    return Source(
        str(path),
        layout,
        named,
        config,
        rest,
        task_options(rest, folder if layout is HUGGINGFACE else None),
    )


def describe(content: Mapping[str, Any]) -> str:
    return ", ".join(list(map(str, content))[:5]) or "nothing"


def read_folder(folder: Path) -> dict[str, Any]:
    """The tensors of a folder in one or several files, under ``state_dict``."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            content = load_checkpoint(folder / name, mapped=True)
            return {"state_dict": content.get("model") or content.get("state_dict") or content}
        index = folder / f"{name}.index.json"
        if index.is_file():
            state: dict[str, Any] = {}
            for part in _parts(index):
                content = load_checkpoint(
                    path_below(folder, part, str(index), follow_links=True), mapped=True
                )
                state |= content.get("model") or content
            return {"state_dict": state}
    raise UserError(
        f"{folder}: expected a Hugging Face folder with {CONFIG} and {' or '.join(WEIGHTS)}, found"
        f" {describe(dict.fromkeys(sorted(entry.name for entry in folder.iterdir())))}; name the"
        " file, or download it all"
    )


def _parts(index: Path) -> list[str]:
    """Names of the files that hold the tensors of a folder. Links may lead on: the Hub's cache
    is made of them."""
    names = read_json(index, JSON_OBJECT, kind=dict).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise UserError(
            f"{index}: expected 'weight_map' with the file of each tensor, found none; download the"
            " folder again"
        )
    return sorted(set(map(str, names.values())))


def foreign_config(
    layout: StateDictFormat, content: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Fields of ``ModelConfig`` as the other project's configuration has them."""
    if layout is MMPRETRAIN:
        return from_mmpretrain((content.get("meta") or {}).get("model") or {})
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"expected {CONFIG} beside the weights, found none in {folder}; download or copy it as"
            " well"
        )
    return from_huggingface(read_json(folder / CONFIG, JSON_OBJECT, kind=dict))


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
    return {**weights, **{key: weights.get(key, found) for key in EMBEDDINGS}}


def config_of(
    weights: Mapping[str, Tensor], given: Mapping[str, Any], layout: StateDictFormat
) -> ModelConfig:
    """The configuration that a file stores, checked against the shapes; what it does not store
    follows from the shapes.

    Raises: UserError if the two contradict each other.
    """
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


def task_options(content: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Options of the task as the file stores them."""
    elsewhere = (
        read_json(folder / CONFIG, JSON_OBJECT, kind=dict)
        if folder is not None
        else content.get("meta")
    )
    if elsewhere:
        options = dict(elsewhere.get(TASK) or {})
        drop_unfollowed(options, folder or CONFIG)
        return options
    group = (content.get("cfg") or {}).get("task") or content.get("args")
    return {} if group is None else dict(group if isinstance(group, Mapping) else vars(group))
