"""``--optimizer adam`` in one pass over all parameters; fairseq's loop makes eight, one after the
other.

Same update, same state in checkpoints. torch's kernel adds ``eps`` to the corrected second moment
and fairseq to the uncorrected one, so it gets ``eps / sqrt(1 - beta2^t)``.
"""

import math
from collections import defaultdict

import torch
from fairseq.optim.adam import Adam
from torch import Tensor


class OnePassAdam(Adam):
    """Adam by torch's kernel; 16-bit parameters and ``amsgrad`` are left to fairseq's own loop. On
    GPUs an installed apex goes first, as in fairseq."""

    def step(self, closure=None):
        if not all(map(is_plain, self.param_groups)):
            return super().step(closure)
        loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                update_group(group, self.state)
        return loss


def is_plain(group: dict) -> bool:
    """Whether torch has its kernel, and the group dense fp32 gradients."""
    grads = [param.grad for param in group["params"] if param.grad is not None]
    dense = all(grad.dtype == torch.float32 and not grad.is_sparse for grad in grads)
    return dense and hasattr(torch, "_fused_adamw_") and not group["amsgrad"]


def update_group(group: dict, state: dict[Tensor, dict]) -> None:
    """One update of the parameters that have a gradient, those of equal age together."""
    by_age: dict[tuple[int, torch.device], list[Tensor]] = defaultdict(list)
    for param in group["params"]:
        if param.grad is not None:
            by_age[advance(param, state[param]), param.device].append(param)
    beta1, beta2 = group["betas"]
    for (age, device), params in by_age.items():
        states = [state[param] for param in params]
        torch._fused_adamw_(
            params,
            [param.grad for param in params if param.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [torch.tensor(float(age), device=device)] * len(params),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"] / math.sqrt(1 - beta2**age),
            amsgrad=False,
            maximize=False,
        )


def advance(param: Tensor, state: dict) -> int:
    """Count an update of a parameter. Returns: how many it had."""
    if not state:
        state.update(step=0, exp_avg=torch.zeros_like(param), exp_avg_sq=torch.zeros_like(param))
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = state[name].to(param)  # a checkpoint may have it in another type
    state["step"] += 1
    return state["step"]
