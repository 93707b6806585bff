"""A checkpoint file of any layout, read as data: weights, options, configuration, and its base.

One of parameter-efficient tuning holds the tuned weights only, and names the file with the others::

    {"light_tuning": {"base": {"path": "/models/ofa_base.pt", "sha256": "3f0c...", "ema": False},
                      "methods": ["lora"]}}

``ema``: the base's averages are meant. It is taken only if its bytes are the same.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ofa.checkpoints.architecture import (
    CONSTANTS,
    EMBEDDINGS,
    architecture,
    check_stored_sizes,
    fields_of,
)
from ofa.checkpoints.formats import (
    FAIRSEQ,
    HUGGINGFACE,
    UPSTREAM_SWITCHES,
    StateDictFormat,
    recognize,
)
from ofa.checkpoints.options import comparable, options_of, values_of
from ofa.errors import UserError, naming
from ofa.io.fingerprint import sha256_of
from ofa.io.json_files import read_json
from ofa.io.paths import path_below
from ofa.io.safe_load import load_checkpoint
from ofa.io.stored_options import (
    drop_from_checkpoint,
    drop_unfollowed,
    is_readable_path,
    option_groups,
)
from ofa.models.config import ModelConfig
from ofa.models.image_stems import DEPTHS

logger = logging.getLogger(__name__)

ENTRY = "light_tuning"
TUNED = "tuned"  # in the entry of a completed checkpoint: the names that the file itself holds
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder; the first that is there
# in the configuration of other layouts: the options of this project's task, as this project wrote
# them
TASK = "ofa_task"
JSON_OBJECT = "a JSON object"
FIELDS = {field.name for field in fields(ModelConfig)}


class BaseNotFound(UserError):
    """The file that a delta checkpoint needs is missing, or is another one."""


@dataclass
class Checkpoint:
    """What a file holds. Properties raise a UserError that names it if they are not in it.

    Args: content: as ``load_checkpoint`` gives it. ema: the moving averages are its weights.
    """

    path: str
    content: dict[str, Any]
    ema: bool = False

    @property
    def state(self) -> Mapping[str, Any]:
        """The tensors, under the names of the file."""
        return self.content.get("model") or self.content.get("state_dict") or self.content

    @cached_property
    def layout(self) -> StateDictFormat:
        """By the names; upstream's if they are none of a whole model."""
        return recognize(key for key, value in self.state.items() if isinstance(value, Tensor))

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Upstream's names, those that the file has."""
        state = self.state
        with naming(self.path):
            if self.ema and self.layout is not FAIRSEQ:
                title = self.layout.title
                raise UserError(
                    f"a file of the {title} layout has no moving averages; leave --ema out"
                )
            if self.ema:
                if not self.averages:
                    raise UserError(
                        "the checkpoint has no EMA weights (extra_state.ema); leave ema (--ema)"
                        " out, or train with --store-ema"
                    )
                state = {**state, **self.averages}
            weights = {
                self.layout.to_upstream(key): value
                for key, value in state.items()
                if isinstance(value, Tensor)
            }
            parts = ["encoder."]
            if ENTRY in self.content:  # perhaps only the decoder was tuned
                parts += ["decoder.", "classification_heads."]
            if not any(key.startswith(tuple(parts)) for key in weights):
                raise UserError(
                    "expected an OFA model (upstream, Hugging Face or mmpretrain names), found"
                    f" {first_five(weights or self.content)}; name the model's own file"
                )
        return weights

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """``weights`` with all three names of the token table, without constant tables."""
        found = next((self.weights[key] for key in EMBEDDINGS if key in self.weights), None)
        if found is None:
            raise UserError(
                f"{self.path}: expected a table of token embeddings, found none of"
                f" {', '.join(EMBEDDINGS)}; is the file complete?"
            )
        weights = {**dict.fromkeys(EMBEDDINGS, found), **self.weights}
        return {key: value for key, value in weights.items() if not key.endswith(CONSTANTS)}

    @cached_property
    def averages(self) -> dict[str, Tensor]:
        """The moving averages, in float32 where it has them so; often none."""
        extra = self.content.get("extra_state") or {}
        return {**(extra.get("ema") or {}), **(extra.get("ema_fp32_params") or {})}

    @cached_property
    def options(self) -> dict[str, Any]:
        """Those of its training, whichever way it stores them."""
        return options_of(self.content)

    @property
    def settings(self) -> dict[str, Any]:
        """``options`` in a form in which those of two checkpoints can be compared."""
        return comparable(self.options)

    @property
    def num_updates(self) -> int | None:
        """After how many updates it was saved, if it says so."""
        return (self.content.get("optimizer_history") or [{}])[-1].get("num_updates")

    @property
    def base(self) -> Mapping[str, Any]:
        """``path``, ``sha256`` and ``ema`` of the file that it needs; empty if it is complete."""
        base = (self.content.get(ENTRY) or {}).get("base") or {}
        if base and not (
            isinstance(base, Mapping)
            and all(isinstance(base.get(name), str) for name in ("path", "sha256"))
        ):
            raise UserError(
                f"{self.path}: expected path and sha256 of the base in the checkpoint's '{ENTRY}',"
                f" found {base!r}"
            )
        return base

    @property
    def lacks_base(self) -> bool:
        """Whether the weights of its base are not in ``content``."""
        return bool(self.base) and TUNED not in self.content[ENTRY]

    def find_base(self, given: str | Path | None = None) -> Path:
        """Args: given: where the user says it is; then nowhere else.
        Raises: BaseNotFound if there is no file, or another one."""
        recorded, sha256 = Path(self.base["path"]), self.base["sha256"]
        beside = Path(self.path).absolute().parent / recorded.name
        places = [Path(given)] if given else [recorded, beside]
        others = []
        for place in places:
            if (given or is_readable_path(str(place))) and place.is_file():
                found = sha256_of(place)
                if found == sha256:
                    return place
                others.append(f"{place} (sha256 {found[:12]}...)")
        needs = (
            f"{self.path}: holds only tuned weights and needs its base {recorded.name} (sha256"
            f" {sha256[:12]}...)"
        )
        if others:
            raise BaseNotFound(
                f"{needs}, found another file in its place: {others[0]}; give the one that the"
                " training started from by --base FILE"
            )
        nowhere = ", nor ".join(dict.fromkeys(map(str, places)))
        raise BaseNotFound(f"{needs}, found no file {nowhere}; give it by --base FILE")

    # --- its network

    @cached_property
    def foreign(self) -> dict[str, Any]:
        """The configuration that another project stores: in the file, or beside it."""
        if self.layout is not HUGGINGFACE:
            return self.content.get("meta") or {}
        folder = Path(self.path) if Path(self.path).is_dir() else Path(self.path).parent
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"{self.path}: expected {CONFIG} beside the weights, found none in {folder};"
                " download or copy it as well"
            )
        return read_json(folder / CONFIG, JSON_OBJECT, kind=dict)

    @cached_property
    def task(self) -> dict[str, Any]:
        """Options of its task; empty if the file knows none."""
        if self.layout is FAIRSEQ:
            return values_of(
                (self.content.get("cfg") or {}).get("task") or self.content.get("args")
            )
        task = dict(self.foreign.get(TASK) or {})
        drop_unfollowed(task, self.path)
        return task

    @property
    def num_entries(self) -> int:
        """Of the vocabulary."""
        return len(self.parameters[EMBEDDINGS[0]])

    @property
    def arch(self) -> str:
        """The name that goes with its sizes; else the name among its options, or ofa_large."""
        return architecture(self.weights) or self.options.get("arch") or "ofa_large"

    @cached_property
    def config(self) -> ModelConfig:
        """As stored, checked against the shapes; what is not stored follows from these."""
        weights = {**self.parameters, **self.weights}
        stored = self.foreign
        with naming(self.path):
            if self.layout is FAIRSEQ:
                for options in option_groups(self.content):
                    check_stored_sizes(options, weights)
                given = {key: value for key, value in self.options.items() if key in FIELDS}
            else:
                given = self.layout.from_config(
                    stored if self.layout is HUGGINGFACE else stored.get("model") or {}
                )
            config = config_of(weights, given, self.layout)
            if config.share_all_embeddings:
                check_tables(weights)
        return config


def read(
    path: str | Path, base: str | Path | None = None, ema: bool = False, whole: bool = True
) -> Checkpoint:
    """A checkpoint of a training.

    Args: base: where the base of a delta checkpoint is now; default: as recorded. whole: with the
    weights of its base.
    Raises: UserError if the file is missing, damaged or more than data; BaseNotFound.
    """
    checkpoint = Checkpoint(str(path), load_checkpoint(path), ema)
    content = checkpoint.content
    if whole and base is not None and not checkpoint.base:
        logger.warning("%s: is no delta checkpoint, base (--base) changes nothing", path)
    if whole and checkpoint.lacks_base:
        held = read(checkpoint.find_base(base), ema=checkpoint.base.get("ema", False), whole=False)
        tuned = content["model"]
        content["model"] = {**held.weights, **tuned}
        content[ENTRY] = {**content[ENTRY], TUNED: list(tuned)}
    return checkpoint


def read_source(path: str | Path, ema: bool = False) -> Checkpoint:
    """A model of any layout, to convert; its tensors stay in the file.

    Args: path: a file, or a folder with config.json. Raises: UserError if it is no OFA model, is
    damaged, or if its configuration is not that of its weights.
    """
    path = Path(path)
    content = read_folder(path) if path.is_dir() else load_checkpoint(path, mapped=True)
    drop_from_checkpoint(content, path)
    source = Checkpoint(str(path), content, ema)
    if (content.get(ENTRY) or {}).get("base"):
        raise UserError(
            f"{path}: expected all weights of a model, found those alone that a"
            " parameter-efficient tuning trained; make it whole first: ofa checkpoint merge"
            f" {path} --out FILE"
        )
    source.config.load_checkpoint_heads = True
    return source


def named_base(path: str | Path, ema: bool = False) -> dict[str, Any]:
    """How a checkpoint names the file ``path`` as its base."""
    return {"path": str(Path(path).absolute()), "sha256": sha256_of(path), "ema": ema}


def first_five(content: Iterable[Any]) -> str:
    return ", ".join(list(map(str, content))[:5]) or "nothing"


def read_folder(folder: Path) -> dict[str, Any]:
    """The tensors of a folder in one or several files, under ``state_dict``."""
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            parts = [folder / name]
        elif index.is_file():
            names = read_json(index, JSON_OBJECT, kind=dict).get("weight_map")
            if not isinstance(names, dict) or not names:
                raise UserError(
                    f"{index}: expected 'weight_map' with the file of each tensor, found none;"
                    " download the folder again"
                )
            # links may lead on: the Hub's cache is made of them
            parts = [
                path_below(folder, part, str(index), follow_links=True)
                for part in sorted(set(map(str, names.values())))
            ]
        else:
            continue
        state: dict[str, Any] = {}
        for part in parts:
            state |= Checkpoint(str(part), load_checkpoint(part, mapped=True)).state
        return {"state_dict": state}
    raise UserError(
        f"{folder}: expected a Hugging Face folder with {CONFIG} and {' or '.join(WEIGHTS)}, found"
        f" {first_five(sorted(entry.name for entry in folder.iterdir()))}; name the"
        " file, or download it all"
    )


def config_of(
    weights: Mapping[str, Tensor], given: Mapping[str, Any], layout: StateDictFormat
) -> ModelConfig:
    """Args: given: fields that the file stores, or None.
    Raises: UserError if they contradict the shapes."""
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
