"""Adam, the norm of the gradients and the copies of 16-bit training, each in a few operators for
all parameters. fairseq launches several for each of the thousand tensors of ofa_base, which takes a
GPU longer than the arithmetic."""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fairseq import optim
from fairseq.optim import FairseqOptimizer
from fairseq.optim.adam import Adam
from torch import Tensor

from ofa.trainer.float32_copies import Float32Copies, by_type
from ofa.trainer.patch import specialize

FLOAT = torch.float32
KINDS = (FLOAT, torch.float16, torch.bfloat16)


class OnePassAdam(Adam):
    """Adam by torch's kernel, where fairseq's loop makes eight passes: the same update, the same
    state. ``amsgrad`` is left to that loop. On GPUs an installed apex goes first, as in fairseq."""

    # of 16-bit weights and gradients, by the ids of the parameters
    copies: dict[tuple[int, ...], tuple[Float32Copies, Float32Copies]]

    def step(self, closure=None):
        if not all(map(is_plain, self.param_groups)):
            return super().step(closure)
        loss = None if closure is None else closure()
        known, self.copies = getattr(self, "copies", {}), {}
        with torch.no_grad():
            for group in self.param_groups:
                self.update_group(group, known)
        return loss

    def update_group(self, group: dict, known: dict) -> None:
        """One update of the parameters that have a gradient, those of equal age together. Args:
        known: copies of the last update, whose memory and views serve the same parameters again."""
        alike: dict[tuple, list[Tensor]] = defaultdict(list)
        for param in group["params"]:
            if param.grad is not None:
                kind = param.device, param.dtype, param.grad.dtype
                alike[advance(param, self.state[param]), *kind].append(param)
        for (age, _, *types), params in alike.items():
            grads = [param.grad for param in params if param.grad is not None]
            first = [self.state[param]["exp_avg"] for param in params]
            second = [self.state[param]["exp_avg_sq"] for param in params]
            if types == [FLOAT] * 2:
                update(params, grads, first, second, age, group)
                continue
            # by float32 copies of weights and gradients, a chunk after the other
            key = tuple(map(id, params))
            own, theirs = known.get(key) or (Float32Copies(params), Float32Copies(params))
            self.copies[key] = own, theirs
            for (part, weights), (_, gradients) in zip(own.of(params), theirs.of(grads)):
                update(weights, gradients, first[part], second[part], age, group)
                torch._foreach_copy_(params[part], weights)


def is_plain(group: dict) -> bool:
    """Whether torch has its kernel, and the group dense gradients of usual types."""
    grads = [param.grad for param in group["params"] if param.grad is not None]
    known = all(grad.dtype in KINDS and not grad.is_sparse for grad in grads)
    return known and hasattr(torch, "_fused_adamw_") and not group["amsgrad"]


def update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    age: int,
    group: dict,
) -> None:
    """One update of float32 tensors in place. torch adds ``eps`` to the corrected second moment and
    fairseq to the uncorrected one. Args: age: how many updates they had, with this one."""
    beta1, beta2 = group["betas"]
    # made on the device: a copy from the host would wait
    step = torch.full((), float(age), device=params[0].device)
    torch._fused_adamw_(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        [],
        [step] * len(params),
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
        zeros = functools.partial(torch.zeros_like, param, dtype=torch.float32)
        state.update(step=0, exp_avg=zeros(), exp_avg_sq=zeros())
    for name in ("exp_avg", "exp_avg_sq"):
        # a checkpoint may have it in another type
        state[name] = state[name].to(param.device, torch.float32)
    state["step"] += 1
    return state["step"]


# --- what is around it


def use_few_operators(optimizer: FairseqOptimizer) -> None:
    """Let an optimizer that fairseq made work on all tensors at once."""
    specialize(optimizer, FP16Optimizer)
    specialize(optimizer.optimizer, OnePassAdam)
    inner = innermost(optimizer)
    inner.clip_grad_norm = functools.partial(norm_of_grads, inner)


def innermost(optimizer: FairseqOptimizer) -> Any:
    """What fairseq's wrappers of 16 bits hold."""
    for name in ("fp32_optimizer", "wrapped_optimizer"):
        optimizer = getattr(optimizer, name, optimizer)
    return optimizer


def norm_of_grads(
    optimizer: FairseqOptimizer,
    max_norm: float,
    aggregate_norm_fn: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``clip_grad_norm`` of an optimizer: the norm of all gradients, float32[], which are scaled to
    at most ``max_norm`` if it is positive. fairseq's takes a norm of each gradient by itself."""
    grads = [param.grad.detach() for param in optimizer.params if param.grad is not None]
    if not grads:
        return next(iter(optimizer.params)).new_tensor(0.0)
    norms = [
        norm for (some,) in by_type(grads) for norm in torch._foreach_norm(some, 2, dtype=FLOAT)
    ]
    total = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
    if aggregate_norm_fn is not None:
        total = aggregate_norm_fn(total)
    if max_norm > 0:
        torch._foreach_mul_(grads, (float(max_norm) / (total + 1e-6)).clamp_(max=1))
    return total


class FP16Optimizer(optim.FP16Optimizer):
    """fairseq's optimizer of 16-bit models, by whose name checkpoints know it, with copies of all
    gradients and weights at once."""

    _needs_sync: bool  # set by a backward pass

    def copies(self) -> list[tuple[list[Tensor], ...]]:
        """(parameters, their float32 weights, the gradients of these) of each type, of all that
        train; views of the flat tensor where there is one. Made once."""
        if not hasattr(self, "_copies"):
            trained = [param for param in self.fp16_params if param.requires_grad]
            if self.has_flat_params:
                (flat,) = self.fp32_params.values()
                weights, grads = views(flat.data, trained), views(flat.grad, trained)
            else:
                both = zip(self.fp16_params, self.fp32_params)
                weights = [own for param, own in both if param.requires_grad]
                grads = [own.grad for own in weights if own.grad is not None]
            self._copies = by_type(trained, weights, grads)
        return self._copies

    @torch.no_grad()
    def _sync_fp16_grads_to_fp32(self) -> None:
        if not self._needs_sync:
            return
        for params, _, grads in self.copies():
            found = [
                (own, param.grad) for param, own in zip(params, grads) if param.grad is not None
            ]
            missing = [own for param, own in zip(params, grads) if param.grad is None]
            if found:
                torch._foreach_copy_([own for own, _ in found], [grad for _, grad in found])
            if missing:
                torch._foreach_zero_(missing)
        self._needs_sync = False

    @torch.no_grad()
    def _sync_fp32_params_to_fp16(self) -> None:
        for params, weights, _ in self.copies():
            torch._foreach_copy_(params, weights)

    def zero_grad(self) -> None:
        for param in self.fp16_params:
            param.grad = None
        for _, _, grads in self.copies():
            torch._foreach_zero_(grads)
        self._needs_sync = False
        if self.scaler is not None:
            self._multiply_factor = 1.0 / float(self.scaler.loss_scale)


def views(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Parts of a flat tensor, one behind the other, in the shapes of others."""
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]
