"""A checkpoint that answers for any task: one network, and the tasks that share its vocabulary."""

from collections.abc import Mapping, Sequence
from typing import Any

from fairseq.dataclass.utils import merge_with_parent
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY, setup_task

from ofa.inference.fairseq_loading import (
    build_network,
    drawn_by,
    group_to_builtins,
    image_size_unless_known,
    options_for,
    read_checkpoint,
    registered,
    stored_name,
    task_config,
    task_name,
)
from ofa.io.json_files import parse_json
from ofa.io.stored_options import MEMBERS
from ofa.tasks.fairseq_mixture import options_of
from ofa.tasks.template import NAME as TEMPLATE


class LoadedCheckpoint:
    """The network of a checkpoint, and tasks by name.

    Args:
        paths: files of one vocabulary; several are an ensemble.
        overrides: values of options that replace the stored ones, for every task.
        ema: take the averaged weights.
        task: what will be asked; default: what the checkpoint was trained on.
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
            state = read_checkpoint(path, overrides)
            if not self.networks:
                self._read_options(state)
                first = setup_task(self.config(name or next(iter(self.trained), "caption")))
                self.vocabulary, self.bpe = first.vocabulary, first.bpe
            self.networks.append(build_network(path, state, first, ema))

    def _read_options(self, state: Mapping[str, Any]) -> None:
        """What the file says of the tasks that it was trained on."""
        self.stored = group_to_builtins(state["cfg"]["task"])
        dataset = state["cfg"].get("dataset")
        self.valid_batch_size = dataset and group_to_builtins(dataset).get("batch_size_valid")
        self.task_state = state.get("task_state") or {}
        own = {self.stored.get("_name") or self.stored.get("task"): self.stored}
        members = self.task_state.get(MEMBERS) or own
        every = [
            {**self.stored, **options, "_name": TEMPLATE if options.get(TEMPLATE) else name}
            for name, options in members.items()
        ]
        self.first = every[0]
        known = {**self.first, **self.overrides}
        self.derived = drawn_by(state) | image_size_unless_known(self.path, state, known)
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
        """The configuration of a task. Args: changes: of its options."""
        return task_config(self.path, name, self.options(name), {**self.overrides, **changes})

    def task(self, name: str, **changes: Any):
        """A task with the checkpoint's vocabulary. Args: changes: of its options."""
        given, (known, _) = self.config(name, **changes), registered(name)
        config = merge_with_parent(TASK_DATACLASS_REGISTRY[known](), given)
        return TASK_REGISTRY[known](config, self.vocabulary, self.bpe)

    def set_up(self, name: str, **changes: Any):
        """As ``task``, with all that a training of it prepares (files, negative samples). Args:
        changes: of its options."""
        return setup_task(self.config(name, **changes))

    def evaluated(self, name: str | None) -> str:
        """The name of the task to evaluate: by default the one that was trained.

        Raises: UserError if several were trained, and not this one.
        """
        name = task_name(name)
        if self.stored.get("_name") == "joint":
            options_of(name, self.path, {"task_state": self.task_state})
        return name or stored_name(self.path, self.first)

    def generation(self, name: str) -> dict[str, Any]:
        """The generation options with which a task was validated; none if it was not trained."""
        stored = self.options(name).get("eval_args") or "{}"
        return parse_json(stored, self.path, "JSON in the stored --eval-args")
