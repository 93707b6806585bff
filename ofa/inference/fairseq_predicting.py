"""A checkpoint that answers for any task: one network, and the tasks that share its vocabulary."""

from collections.abc import Mapping
from typing import Any

from fairseq.dataclass.utils import merge_with_parent
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY, setup_task

from ofa.errors import UserError
from ofa.inference.fairseq_loading import (
    SHARED,
    build_network,
    drawn_by,
    group_to_builtins,
    image_size_unless_known,
    read_checkpoint,
    registered,
    stored_name,
    task_config,
)
from ofa.io.json_files import load_json
from ofa.io.stored_options import MEMBERS
from ofa.tasks.template import NAME as TEMPLATE


class LoadedCheckpoint:
    """The network of a checkpoint, and tasks by name.

    Args:
        overrides: values of options that replace the stored ones, for every task.
        ema: take the averaged weights.
    Attributes:
        trained: task that the checkpoint was trained on -> its stored options.
        network: on the CPU, in evaluation mode.
    Raises: UserError if the file is no checkpoint, or its vocabulary folder is missing or another
    one.
    """

    def __init__(self, path: str, overrides: Mapping[str, Any], ema: bool = False):
        self.path, self.overrides = path, dict(overrides)
        state = read_checkpoint(path, overrides)
        stored = group_to_builtins(state["cfg"]["task"])
        members = (state.get("task_state") or {}).get(MEMBERS) or {
            stored.get("_name") or stored.get("task"): stored
        }
        known = [
            {**stored, **options, "_name": TEMPLATE if options.get(TEMPLATE) else name}
            for name, options in members.items()
            if name in TASK_REGISTRY or options.get(TEMPLATE)
        ]
        self.trained = {stored_name(path, options): options for options in known}
        self.shared = {
            key: value
            for key, value in next(iter(members.values()), stored).items()
            if key in SHARED
        }
        self.shared |= drawn_by(state)
        size = image_size_unless_known(path, state, {**self.shared, **overrides})
        self.shared |= size
        self.trained = {name: {**size, **options} for name, options in self.trained.items()}
        if "unify_task" in self.trained:
            self.shared["prompt_type"] = "none"  # pretraining never tells the decoder the question
        first = setup_task(self.config(next(iter(self.trained), "caption")))
        self.vocabulary, self.bpe = first.vocabulary, first.bpe
        self.network = build_network(path, state, first, ema)

    def config(self, name: str, **changes: Any):
        """The stored options of a task, or of a task that was not trained those that all tasks
        share."""
        return task_config(
            self.path, name, self.trained.get(name, self.shared), {**self.overrides, **changes}
        )

    def task(self, name: str, **changes: Any):
        """A task with the checkpoint's vocabulary. Args: changes: of its options."""
        known, _ = registered(name)
        config = merge_with_parent(TASK_DATACLASS_REGISTRY[known](), self.config(name, **changes))
        return TASK_REGISTRY[known](config, self.vocabulary, self.bpe)

    def set_up(self, name: str, **changes: Any):
        """As ``task``, with all that a training of it prepares (files, negative samples). Args:
        changes: of its options."""
        return setup_task(self.config(name, **changes))

    def generation(self, name: str) -> dict[str, Any]:
        """The generation options with which a task was validated; none if it was not trained."""
        try:
            return load_json(self.trained.get(name, {}).get("eval_args") or "{}")
        except ValueError as error:
            raise UserError(
                f"{self.path}: expected JSON in the stored --eval-args, found {error}"
            ) from None
