"""How checkpoints are read into fairseq: as data, complete, and in the form that it expects."""

from argparse import Namespace
from collections.abc import MutableMapping
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ofa.checkpoints.delta import load_complete
from ofa.errors import UserError
from ofa.io.pickles import DAMAGED
from ofa.io.stored_options import drop_from_checkpoint
from ofa.trainer import fairseq_upstream

# Path -> checkpoint that was read already: fairseq gets it in place of the file, once.
prefetched: dict[str, dict[str, Any]] = {}


def load_checkpoint_to_cpu(path, arg_overrides=None, load_on_all_ranks=False) -> dict[str, Any]:
    """The checkpoint as plain data; no code of the file runs.

    Args:
        arg_overrides: values of options that replace the stored ones; ``base`` is no option but the
            place of the base of a checkpoint that holds tuned weights only.
    Raises: UserError if the file is damaged or no checkpoint of a training.
    """
    if str(path) in prefetched:
        return prefetched.pop(str(path))
    overrides = dict(arg_overrides or {})
    state = load_complete(PathManager.get_local_path(path), overrides.pop("base", None))
    drop_from_checkpoint(state, path)
    try:
        return as_fairseq_reads(state, overrides)
    except (*DAMAGED, SyntaxError, OmegaConfBaseException) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: expected the options of a training in 'cfg' or 'args', found others "
            f"({reason[0][:200]}); is it a checkpoint that training wrote?"
        ) from error


def as_fairseq_reads(state: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint as fairseq's own function returns it. Args: overrides: of stored options."""
    complete_history(state)
    fairseq_upstream.adapt(state)
    if state.get("args") is not None:
        for name, value in overrides.items():
            setattr(state["args"], name, value)
    if state.get("cfg") is not None:
        if state["cfg"].get("model") is not None:  # overrides may name options of newer files
            state["cfg"]["model"] = Namespace(**state["cfg"]["model"])
        state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
        checkpoint_utils.overwrite_args_by_name(state["cfg"], overrides)
    return checkpoint_utils._upgrade_state_dict(state)


def complete_history(state: MutableMapping[str, Any]) -> None:
    """Add the empty records of training that fairseq looks up in every checkpoint."""
    state.setdefault("extra_state", {})
    if state.get("optimizer_history") or "best_loss" not in state:
        history = state["optimizer_history"] = state.get("optimizer_history") or [{}]
        if "best_loss" not in history[-1]:
            history[-1].setdefault("lr_scheduler_state", {})
        for name in ("criterion_name", "optimizer_name"):
            history[-1].setdefault(name, "")
