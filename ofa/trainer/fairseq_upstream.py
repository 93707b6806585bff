"""A run of upstream's trainer (OFA-Sys/OFA) continues here from its ``checkpoint_last.pt``, and one
of ours there.

Criterions have upstream's class names and parameters upstream's order, by which the optimizer's
state is stored (tests/parity/test_state_dict.py). What else differs between two runs of one model
is adapted here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq.optim import FairseqOptimizer
from torch import Tensor

from ofa.checkpoints.adapt import CONSTANTS
from ofa.errors import UserError

# Class names in older checkpoints: of this project, and of upstream before it corrected a typo.
EARLIER_NAMES = {
    "LabelSmoothedCriterion": "AdjustLabelSmoothedCrossEntropyCriterion",
    "EncouragingCriterion": "AdjustLabelSmoothedEncouragingLossCriterion",
    "AjustLabelSmoothedCrossEntropyCriterion": "AdjustLabelSmoothedCrossEntropyCriterion",
    "AjustLabelSmoothedEncouragingLossCriterion": "AdjustLabelSmoothedEncouragingLossCriterion",
}
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
REMEDY = "train with the flags of that run, or start the optimizer anew by --reset-optimizer"


def adapt(state: dict[str, Any]) -> None:
    """Change what a checkpoint stores of its training to the form that is read here, in place."""
    for record in state.get("optimizer_history") or []:
        if record.get("criterion_name") in EARLIER_NAMES:
            record["criterion_name"] = EARLIER_NAMES[record["criterion_name"]]
    extra = state["extra_state"]
    # the tables are the model's own: image_position_idx is one entry shorter in some files
    for name in [name for name in extra.get("ema_fp32_params") or () if name.endswith(CONSTANTS)]:
        del extra["ema_fp32_params"][name]
    if "metrics" in extra and not has_clock(extra["metrics"]):
        del extra["metrics"]


def has_clock(meters: Any) -> bool:
    """Whether stored meters are of a trainer: they replace those of this run, which asks for the
    time passed (``wall``)."""
    return isinstance(meters, Mapping) and any(
        name == "wall" for _, name, *_ in meters.get("default", ())
    )


def mismatch(filename: str, error: AssertionError) -> UserError | None:
    """What fairseq asserts of another criterion or optimizer, as one line that names the file."""
    what, _, names = str(error).partition(" does not match")
    if not names:
        return None
    found, expected = names.rsplit(". ", 1)[-1].split(" vs ")
    return UserError(f"{filename}: expected {what.lower()} {expected}, found {found}; {REMEDY}")


def load_fitting(optimizer: FairseqOptimizer, state_dict: dict, overrides=None) -> None:
    """``load_state_dict`` of an optimizer, checked against its parameters; torch counts them
    alone."""
    if isinstance(state_dict, dict) and "param_groups" in state_dict:
        params = [param for group in optimizer.param_groups for param in group["params"]]
        fit_state(state_dict, params, getattr(optimizer, "fp16_params", params))
    type(optimizer).load_state_dict(optimizer, state_dict, overrides)


def fit_state(
    state_dict: dict[str, Any], params: Sequence[Tensor], separate: Sequence[Tensor]
) -> None:
    """Change a stored optimizer state in place so that it fits the parameters of this run.

    ``--fp16`` on a GPU trains one flat tensor, on a CPU one per parameter; apex counts updates per
    group.

    Args: params: of this run's optimizer, in its order. separate: those of the model, where the
    optimizer's is flat.
    Raises: UserError if the state is that of other parameters.
    """
    groups, state = state_dict["param_groups"], state_dict["state"]
    for group in groups:
        for index in group["params"]:
            if "step" in group and index in state:
                state[index].setdefault("step", group["step"])
    indices = [index for group in groups for index in group["params"]]
    if len(groups) > 1 or len(indices) == len(params):
        check_shapes(indices, state, params)
        return
    if len(indices) == 1 and indices[0] in state:
        whole = torch.empty(sum(param.numel() for param in params), device="meta")
        check_shapes(indices, state, [whole])
        state = split_state(state[indices[0]], params)
    elif len(params) == 1 and len(indices) == len(separate):
        check_shapes(indices, state, separate)
        state = {0: joined_state([state.get(index, {}) for index in indices], separate)}
    else:
        raise UserError(
            f"the checkpoint's optimizer has {len(indices)} parameters, this run trains"
            f" {len(params)}; {REMEDY}"
        )
    indices = list(range(len(params)))
    check_shapes(indices, state, params)
    state_dict.update(state=state, param_groups=[{**groups[0], "params": indices}])


def check_shapes(
    indices: Sequence[int], state: Mapping[int, Mapping[str, Any]], params: Sequence[Tensor]
) -> None:
    """Raises: UserError if a moment is that of another parameter."""
    for index, param in zip(indices, params):
        for name in MOMENTS:
            moment = state.get(index, {}).get(name)
            if isinstance(moment, Tensor) and moment.shape != param.shape:
                raise UserError(
                    f"the checkpoint's optimizer has a parameter {index} of shape"
                    f" {list(moment.shape)}, this run one of {list(param.shape)}; {REMEDY}"
                )


def split_state(flat: Mapping[str, Any], params: Sequence[Tensor]) -> dict[int, dict[str, Any]]:
    """State of one flat tensor as that of each parameter, one behind the other."""
    parts = {
        name: flat[name].split([param.numel() for param in params])
        for name in MOMENTS
        if name in flat
    }
    rest = {name: value for name, value in flat.items() if name not in MOMENTS}
    return {
        index: {**rest, **{name: parts[name][index].view(param.shape) for name in parts}}
        for index, param in enumerate(params)
    }


def joined_state(states: Sequence[Mapping[str, Any]], params: Sequence[Tensor]) -> dict[str, Any]:
    """State of each parameter as that of one flat tensor; a parameter that never had a gradient
    has none."""
    first = next(filter(None, states), {})
    joined = {
        name: torch.cat(
            [
                state[name].flatten() if state else torch.zeros(param.numel())
                for state, param in zip(states, params)
            ]
        )
        for name in MOMENTS
        if name in first
    }
    return {**first, **joined}
