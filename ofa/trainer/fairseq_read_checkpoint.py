"""How checkpoints are read into fairseq: as data, complete, and in the form that it expects. A run
of upstream's trainer (OFA-Sys/OFA) continues here from its ``checkpoint_last.pt``, and one of ours
there."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ofa.checkpoints.adapt import CONSTANTS
from ofa.checkpoints.delta import load_complete
from ofa.errors import UserError
from ofa.io.pickles import DAMAGED
from ofa.io.stored_options import drop_from_checkpoint

# Path -> checkpoint that was read already: fairseq gets it in place of the file, once.
prefetched: dict[str, dict[str, Any]] = {}

# Class names in older checkpoints: of this project, and of upstream before it corrected a typo.
EARLIER_NAMES = {
    "LabelSmoothedCriterion": "AdjustLabelSmoothedCrossEntropyCriterion",
    "EncouragingCriterion": "AdjustLabelSmoothedEncouragingLossCriterion",
    "AjustLabelSmoothedCrossEntropyCriterion": "AdjustLabelSmoothedCrossEntropyCriterion",
    "AjustLabelSmoothedEncouragingLossCriterion": "AdjustLabelSmoothedEncouragingLossCriterion",
}


def load_checkpoint_to_cpu(path, arg_overrides=None, load_on_all_ranks=False) -> dict[str, Any]:
    """Since torch 2.6 fairseq cannot read its own checkpoints: they hold an argparse.Namespace.
    This reads plain data; no code of the file runs.

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
    if state.get("args") is not None:
        vars(state["args"]).update(overrides)
    if state.get("cfg") is not None:
        if state["cfg"].get("model") is not None:  # overrides may name options of newer files
            state["cfg"]["model"] = Namespace(**state["cfg"]["model"])
        state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
        checkpoint_utils.overwrite_args_by_name(state["cfg"], overrides)
    return checkpoint_utils._upgrade_state_dict(state)


def complete_history(state: dict[str, Any]) -> None:
    """Add the empty records of training that fairseq looks up in every checkpoint, and change those
    of other trainers to the form that is read here."""
    extra = state.setdefault("extra_state", {})
    if state.get("optimizer_history") or "best_loss" not in state:
        history = state["optimizer_history"] = state.get("optimizer_history") or [{}]
        if "best_loss" not in history[-1]:
            history[-1].setdefault("lr_scheduler_state", {})
        for name in ("criterion_name", "optimizer_name"):
            history[-1].setdefault(name, "")
        for record in history:
            if record.get("criterion_name") in EARLIER_NAMES:
                record["criterion_name"] = EARLIER_NAMES[record["criterion_name"]]
    # the tables are the model's own: image_position_idx is one entry shorter in some files
    for name in [name for name in extra.get("ema_fp32_params") or () if name.endswith(CONSTANTS)]:
        del extra["ema_fp32_params"][name]
    # those of a trainer replace those of this run, which asks for the time passed
    meters = extra.get("metrics")
    groups = meters.get("default", ()) if isinstance(meters, Mapping) else ()
    if not any(name == "wall" for _, name, *_ in groups):
        extra.pop("metrics", None)
