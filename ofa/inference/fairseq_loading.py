"""A checkpoint that answers for any task: its networks, and the tasks that share its vocabulary."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_type_hints

import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY, setup_task
from omegaconf import OmegaConf

from ofa.checkpoints.architecture import EMBEDDINGS, check_stored_sizes, image_size
from ofa.checkpoints.options import values_of
from ofa.checkpoints.read import Checkpoint
from ofa.errors import UserError, did_you_mean, naming
from ofa.io.checkpoint_files import CONVERT
from ofa.io.json_files import parse_json
from ofa.io.stored_options import MEMBERS
from ofa.io.values import read_decimal, read_integer, value_as
from ofa.models.config import ModelConfig
from ofa.models.generation.options import GenerationOptions
from ofa.task.task_spec import TaskOptions
from ofa.task.template import is_template, parse_template
from ofa.tasks.template import NAME as TEMPLATE

logger = logging.getLogger(__name__)

# options of every task that are of one task's files
NOT_SHARED = ("data", "selected_cols", "constraint_range")
SHARED = {"max_image_size", *(field.name for field in dataclasses.fields(TaskOptions))}
NO_IMAGE_SIZE = (
    "%s: stores no image size; %d pixels are taken, as %s was pretrained. Convert it again, or"
    " give another size by --overrides \"{'patch_image_size': N}\""
)


class LoadedCheckpoint:
    """The networks of a checkpoint, and tasks by name. Arguments as of ``Predictor.load``.

    Attributes:
        trained: task that the checkpoint was trained on -> its stored options.
        networks: of each file, on the CPU, in evaluation mode.
        valid_batch_size: rows of a validation batch; None: not stored.
    Raises: UserError if a file is no checkpoint, or its vocabulary folder is missing or another
    one.
    """

    def __init__(
        self,
        paths: Sequence[str],
        overrides: Mapping[str, Any],
        ema: bool = False,
        task: str | None = None,
    ):
        self.path, self.overrides = paths[0], dict(overrides)
        self.networks: list[Any] = []
        name = task_name(task)  # what is wrong with it is said before a file is read
        for path in paths:
            checkpoint = read_checkpoint(path, overrides, ema)
            if not self.networks:
                self._read_options(checkpoint)
                known = [task for task in (name, *self.trained) if task and has_rows(task)]
                first = self.set_up((known or ["caption"])[0])
                self.vocabulary, self.bpe = first.vocabulary, first.bpe
            self.networks.append(build_network(checkpoint, first))

    def _read_options(self, checkpoint: Checkpoint) -> None:
        """What the file says of the tasks that it was trained on."""
        state = checkpoint.content
        self.stored = group_to_builtins(state["cfg"]["task"])
        dataset = state["cfg"].get("dataset")
        self.valid_batch_size = dataset and group_to_builtins(dataset).get("batch_size_valid")
        own = {self.stored.get("_name") or self.stored.get("task"): self.stored}
        every = [
            {**self.stored, **options, "_name": TEMPLATE if options.get(TEMPLATE) else name}
            for name, options in ((state.get("task_state") or {}).get(MEMBERS) or own).items()
        ]
        self.first = every[0]
        self.derived: dict[str, Any] = {}
        if not {**self.first, **self.overrides}.get("patch_image_size"):  # a converted network
            self.derived["patch_image_size"], arch, _ = image_size(checkpoint.weights)
            logger.warning(NO_IMAGE_SIZE, self.path, self.derived["patch_image_size"], arch)
        drawn = group_to_builtins(state["cfg"]["model"]).get("code_image_size")
        if drawn:  # the size of the images that the decoder can draw
            self.derived["code_image_size"] = drawn
        self.trained = {
            stored_name(self.path, options): {**self.derived, **options}
            for options in every
            if options["_name"] in TASK_REGISTRY
        }

    @property
    def network(self) -> Any:
        return self.networks[0]

    def options(self, name: str) -> dict[str, Any]:
        """The stored options of a task, or of a task that was not trained those that it shares."""
        if name in self.trained:
            return self.trained[name]
        shared = {**self.derived, **options_for(name, self.first, self.path)}
        # pretraining never tells the decoder the question
        return {**shared, "prompt_type": "none"} if "unify_task" in self.trained else shared

    def config(self, name: str, **changes: Any):
        """The configuration of a task: its defaults, what the checkpoint stores, what the caller
        overrides, ``changes``. A task in one line is an option of ``template``."""
        own = {TEMPLATE: name} if is_template(name) else {}
        registered = TEMPLATE if own else name
        ours = sorted({task.spec.name for task in TASK_REGISTRY.values() if hasattr(task, "spec")})
        if registered not in ours:
            raise UserError(
                f"{self.path}: unknown task '{name}'; known: {', '.join(ours)}. Give one by"
                f" --task{did_you_mean(name, ours)}"
            )
        known = {field.name for field in dataclasses.fields(TASK_DATACLASS_REGISTRY[registered])}
        given = {**self.options(name), **self.overrides, **changes, **own}
        values = {key: value for key, value in given.items() if key in known}
        return OmegaConf.create({**values, "_name": registered})

    def task(self, name: str, **changes: Any):
        """A task with the checkpoint's vocabulary. Args: changes: of its options."""
        given = self.config(name, **changes)
        config = merge_with_parent(TASK_DATACLASS_REGISTRY[given._name](), given)
        return TASK_REGISTRY[given._name](config, self.vocabulary, self.bpe)

    def set_up(self, name: str, **changes: Any):
        """As ``task``, with all that a training of it prepares (files, negative samples)."""
        return setup_task(self.config(name, **changes))

    def evaluated(self, name: str | None) -> str:
        """The name of the task to evaluate: by default the one that was trained. Raises: UserError
        if several were trained, and not this one."""
        name = task_name(name)
        chosen = name or stored_name(self.path, self.first)
        if not has_rows(chosen):
            raise UserError(
                f"{self.path}: expected one task to evaluate, found '{chosen}', a mixture of"
                " several; choose one by --task caption, ..., or score a pretraining:"
                f" ofa pretraining score {self.path} --data FILE --out FILE"
            )
        if self.stored.get("_name") == "joint" and name not in self.trained:
            found = f"and not for '{name}'" if name else "and no task is chosen"
            raise UserError(
                f"{self.path}: one model for {', '.join(self.trained) or 'several tasks'}, {found};"
                " choose one by --task"
            )
        return chosen

    def generation(self, name: str) -> dict[str, Any]:
        """The generation options with which a task was validated; none if it was not trained."""
        stored = self.options(name).get("eval_args") or "{}"
        return parse_json(stored, self.path, "JSON in the stored --eval-args")


def check_overrides(path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Stored options to replace, numbers of the type that they should have. One of fairseq's
    trainings changes nothing: a warning. Raises: UserError for one that there is not, for one of
    generation, and for a number that is none."""
    ours = [TASK_DATACLASS_REGISTRY[name] for name in TASK_REGISTRY if is_ours(name)]
    known = names_of(ModelConfig, *ours) | {"arch"}
    groups: Iterable[Any] = (group.type for group in dataclasses.fields(FairseqConfig))
    foreign = names_of(*(group for group in groups if dataclasses.is_dataclass(group)))
    for name in sorted(set(given) - known):
        if name in names_of(GenerationOptions):
            raise UserError(
                f"{path}: expected stored options to replace, found '{name}' of generation; give it"
                f" to the call, as in caption(image, {name}=...), or as a flag"
            )
        if name not in foreign:
            raise UserError(
                f"{path}: expected options of a task or a network to replace, found"
                f" '{name}'{did_you_mean(name, known)}"
            )
        logger.warning("%s: '%s' is an option of trainings, it changes nothing", path, name)
    types = {name: kind for one in ours for name, kind in get_type_hints(one).items()}
    return {
        name: _number(f"{path}: option '{name}'", value, types[name])
        if types.get(name) in (int, float) and value is not None
        else value
        for name, value in given.items()
    }


def _number(where: str, value: Any, kind: type) -> int | float:
    """A number, also as a text. Raises: UserError beginning with ``where``."""
    with suppress(ValueError):
        if isinstance(value, str):
            return read_integer(value) if kind is int else read_decimal(value)
    return value_as(where, value, kind)


def names_of(*classes: Any) -> set[str]:
    """The names of the fields of dataclasses."""
    return {field.name for one in classes for field in dataclasses.fields(one)}


def read_checkpoint(path: str, overrides: Mapping[str, Any], ema: bool) -> Checkpoint:
    """The checkpoint with ``cfg`` as a configuration object, whichever of ``args`` and ``cfg`` the
    file holds. Raises: UserError if it is missing, damaged or of another program."""
    state = checkpoint_utils.load_checkpoint_to_cpu(path, dict(overrides))
    config = state.get("cfg") or {}
    if config.get("task") is None or config.get("model") is None or "model" not in state:
        raise UserError(
            f"{path}: expected a checkpoint with 'cfg' of 'task' and 'model' (or 'args') and"
            f" 'model', found {', '.join(sorted(map(str, state))) or 'nothing'}; is it a file that"
            f" training wrote? {CONVERT}"
        )
    checkpoint = Checkpoint(path, state, ema)
    weights = checkpoint.weights
    with naming(path):
        for group in ("task", "model"):
            check_stored_sizes(group_to_builtins(config[group]), weights)
    return checkpoint


def task_name(name: str | None, where: str = "--task") -> str | None:
    """The name of a task that may be called by an alias; of a task in one line the line. Raises:
    UserError beginning with ``where`` if it is a line that is none."""
    if name is not None and is_template(name):
        return parse_template(name, where).text
    task = TASK_REGISTRY.get(name)
    return task.spec.name if hasattr(task, "spec") else name


def is_ours(name: str) -> bool:
    """Whether a task of fairseq's registry is one of this project."""
    return hasattr(TASK_REGISTRY[name], "spec") and name in TASK_DATACLASS_REGISTRY


def has_rows(name: str) -> bool:
    """Whether a task has rows of its own, unlike a mixture, which is set up from its files."""
    spec = getattr(TASK_REGISTRY.get(name), "spec", None)
    return spec is None or bool(spec.columns)


def stored_name(path: str, stored: Mapping[str, Any]) -> str:
    """The name of the task whose options a checkpoint stores, "" if it stores none."""
    name = task_name(stored.get("_name") or stored.get("task"), f"{path}: stored task")
    if name != TEMPLATE:
        return name or ""
    return parse_template(stored.get(TEMPLATE), f"{path}: stored template").text


def options_for(name: str | None, stored: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """What a checkpoint's task options mean for a task: all for the task it was trained on, and for
    one whose options are derived from that one's; else those that all tasks share."""
    trained, name = stored_name(path, stored), task_name(name)
    if name in (None, trained):
        return dict(stored)
    tasks = [TASK_REGISTRY.get(name), TASK_REGISTRY.get(trained)]
    kinds = [task.spec.options for task in tasks if hasattr(task, "spec")]
    shared = stored.keys() - set(NOT_SHARED)
    if len(kinds) < 2 or not issubclass(*kinds):
        shared &= SHARED
    return {key: value for key, value in stored.items() if key in shared}


def group_to_builtins(group: Any) -> dict[str, Any]:
    """A group of the configuration as a dict of its values."""
    if OmegaConf.is_config(group):
        group = OmegaConf.to_container(group, resolve=True, enum_to_str=True)
    return values_of(group)


def build_network(checkpoint: Checkpoint, task) -> torch.nn.Module:
    """The network of a checkpoint with its weights."""
    path, weights = checkpoint.path, checkpoint.weights
    rows = len(weights.get(EMBEDDINGS[0], task.vocabulary))
    if rows != len(task.vocabulary):
        raise UserError(
            f"{path}: has {rows} vocabulary entries, the folder {task.cfg.bpe_dir} makes "
            f"{len(task.vocabulary)}; give the folder of its training by --bpe-dir"
        )
    config = checkpoint.content["cfg"]["model"]
    names = group_to_builtins(config)
    arch = names.get("_name") or names.get("arch")
    # fairseq's own networks give some of their options to eval()
    if ARCH_MODEL_NAME_REGISTRY.get(arch, arch) != "ofa":
        raise UserError(
            f"{path}: expected a model of this project, found the architecture {arch!r}; is it a"
            " checkpoint of another program?"
        )
    if getattr(config, "resnet_model_path", None):
        # an override of evaluation scripts; the checkpoint has its own weights
        config.resnet_model_path = None
    model = task.build_model(config, from_checkpoint=True)
    with naming(path):
        model.load_state_dict(weights)
    return model.eval()
