"""What a training step costs on a GPU, worked out without one: FLOPs, bytes moved between chip and
memory, bytes kept for the backward pass, operators, and the least time these can take.

The step runs on meta tensors, which have shapes and no numbers. Every operator takes the longer of
FLOPs / rate and bytes / bandwidth of an H100, so images/s and MFU are upper bounds. Attention is
torch's memory-efficient kernel, the one that takes a bias: it reads the bias, and in the backward
pass writes the bias' gradient for every sample of the batch. OFA_ATTENTION=masked: a bias for each
sample of a padded batch, as before there was another way. OFA_ATTENTION=flex: a bias in parts, as
queries and keys of twice the width; the atomic additions to the table are not counted.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import frame
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ofa.models import attention, attention_trial, layers, recompute
from ofa.models.flex_attention import BiasParts, widen
from ofa.models.recompute import cheap

# H100 SXM in 16 bits: FLOP/s that cuBLAS, cuDNN and the attention kernel with a bias come near to,
# FLOP/s of the data sheet, and bytes/s of a copy.
RATES = {"attention": 150e12, "convolution": 300e12, "product": 550e12}
PEAK, BANDWIDTH = 989e12, 2.6e12
CASES = (("ofa_base", 8, 384), ("ofa_base", 32, 384), ("ofa_large", 16, 480))  # batch, pixels
KERNELS = {"masked": attention.masked_attention}
VIEWS = frozenset(
    "view _unsafe_view _reshape_alias expand slice select transpose permute t unsqueeze squeeze"
    " detach alias as_strided unbind split split_with_sizes unfold lift_fresh empty empty_like"
    " new_empty empty_strided new_empty_strided".split()
)


def by_operator() -> Any:
    return field(default_factory=lambda: defaultdict(float))


@dataclass
class Costs:
    """Of a training step, by operator, and the bytes kept from the forward to the backward pass."""

    flops: dict[str, float] = by_operator()
    moved: dict[str, float] = by_operator()  # bytes
    seconds: dict[str, float] = by_operator()
    operators: dict[str, float] = by_operator()
    kept: int = 0

    @property
    def total_flops(self) -> float:
        return sum(self.flops.values())

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


class Count(TorchDispatchMode):
    """Adds to ``costs`` what every operator costs; views are free."""

    def __init__(self, costs: Costs) -> None:
        super().__init__()
        self.costs = costs

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        name = packet.__name__
        if name in VIEWS:
            return out
        count = flop_registry.get(packet)
        flops = count(*args, **kwargs, out_val=out) if count else 0
        moved = sum(map(num_bytes, tree_leaves((args, kwargs, out))))
        kind = next((kind for kind in RATES if kind in name), "product")
        self.costs.flops[name] += flops
        self.costs.moved[name] += moved
        self.costs.seconds[name] += max(flops / RATES[kind], moved / BANDWIDTH)
        self.costs.operators[name] += 1
        return out


def num_bytes(leaf: Any) -> int:
    """Bytes of a tensor, those that it repeats counted once; 0 of anything else."""
    if not isinstance(leaf, Tensor):
        return 0
    sizes = (size for size, stride in zip(leaf.size(), leaf.stride()) if stride)
    return math.prod(sizes) * leaf.element_size()


def efficient_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """``scaled_dot_product_attention`` by the kernel that GPUs take for a bias. As there, rows of
    the bias are aligned by a copy, and then repeated by strides."""
    if attn_mask is not None:
        length = attn_mask.size(-1)
        if any(stride % 8 for stride in attn_mask.stride()[:-1]):
            attn_mask = F.pad(attn_mask, (0, -length % 8))[..., :length]
        attn_mask = attn_mask.expand(*query.shape[:3], length)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, keys, values, attn_mask, True, dropout_p, is_causal, scale=scale)[0]


def attention_by_parts(
    query: Tensor, keys: Tensor, values: Tensor, bias: BiasParts, scale: float
) -> Tensor:
    """Reads, keeps and writes what FlexAttention does."""
    query, keys = cheap(widen, query, bias.queries), cheap(widen, keys, bias.keys)
    looked_up = bias.table, bias.buckets, bias.padding_mask
    return ByParts.apply(query, keys, values, *looked_up, scale)


class ByParts(torch.autograd.Function):
    """The kernel without a bias, beside a table that gets a gradient."""

    @staticmethod
    def forward(ctx, query, keys, values, table, buckets, padding_mask, scale):
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        output, *rest = kernel(query, keys, values, None, True, 0.0, False, scale=scale)
        ctx.save_for_backward(query, keys, values, output, *rest, table, buckets, padding_mask)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx, grad_output):
        query, keys, values, output, *rest, table, _, _ = ctx.saved_tensors
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention_backward
        wanted = [True, True, True, False]
        inputs = query, keys, values, None, output, *rest
        *grads, _ = kernel(grad_output, *inputs, 0.0, wanted, False, scale=ctx.scale)
        return *grads, torch.zeros_like(table), None, None, None


def in_parts(x: Tensor, num_heads: int, num_keys: int, dropout: float, kind: Any) -> bool:
    """As ``takes_parts`` of a GPU with OFA_ATTENTION=flex, of large biases alone."""
    large = num_heads * x.size(1) * num_keys >= attention_trial.LARGE_BIAS
    return attention.CHOICE == "flex" and large and not dropout


def note_kept(model: torch.nn.Module, costs: Costs) -> Callable[[Tensor], Tensor]:
    """A hook for saved tensors that adds their storages, weights apart, to ``costs.kept``."""
    seen = {one.untyped_storage()._cdata for one in (*model.parameters(), *model.buffers())}
    alive = []  # a storage that ended would lend its number to the next one

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            alive.append(storage)
            costs.kept += storage.nbytes()
        return tensor

    return note


def step_costs(
    arch: str,
    batch: int,
    pixels: int,
    source: int = 12,
    target: int = 20,
    padded: bool = True,
    dtype: torch.dtype = torch.float16,
    **switches: Any,
) -> Costs:
    """Forward, label-smoothed cross-entropy and backward of a caption batch.

    Args: source, target: tokens. padded: some texts are shorter. switches: fields of ModelConfig.
    """
    costs = Costs()
    with torch.device("meta"):
        model = frame.random_model(arch, **frame.DROPOUT, **switches).to("meta", dtype)
        inputs = {
            "src_tokens": torch.ones(batch, source, dtype=torch.long),
            "prev_output_tokens": torch.ones(batch, target, dtype=torch.long),
            "patch_images": torch.empty(batch, 3, pixels, pixels, dtype=dtype),
            "patch_masks": torch.ones(batch, dtype=torch.bool),
            "facts": {"source_padding": padded, "target_padding": padded},
        }
        hook = note_kept(model, costs)
        kernel = KERNELS.get(attention.CHOICE, attention.shared_bias_attention)
        with ExitStack() as stack:
            for owner, name, replacement in (
                (F, "scaled_dot_product_attention", efficient_attention),
                (attention, "choose_kernel", lambda *inputs: kernel),
                (attention, "attend_by_parts", attention_by_parts),
                (layers, "takes_parts", in_parts),
                (layers, "recomputing_pays", lambda x: x.numel() >= recompute.LARGE),
                (recompute, "keep", hook),
            ):
                stack.enter_context(mock.patch.object(owner, name, replacement))
            stack.enter_context(Count(costs))
            with torch.autograd.graph.saved_tensors_hooks(hook, lambda tensor: tensor):
                logits = model(**inputs)[0].flatten(0, 1).float()
                expected = torch.empty(len(logits), dtype=torch.long)
                loss = F.cross_entropy(logits, expected, label_smoothing=0.1)
            loss.backward()
    return costs


@frame.program(
    arch=(str, "a size; else base and large"),
    batch=8,
    pixels=384,
    source=(12, "tokens of the text"),
    target=(20, "tokens of the target"),
)
def main(args: frame.Args) -> dict:
    figures = {}
    for arch, batch, pixels in [(args.arch, args.batch, args.pixels)] if args.arch else CASES:
        for padded in (True, False):
            costs = step_costs(arch, batch, pixels, args.source, args.target, padded)
            seconds, flops = costs.total_seconds, costs.total_flops
            moved, operators = sum(costs.moved.values()), sum(costs.operators.values())
            name = f"{arch} {batch} x {pixels} px, {'padded' if padded else 'no padding'}"
            print(
                f"{name}: {flops / 1e12:.2f} TFLOP, {moved / 1e9:.1f} GB moved,"
                f" {costs.kept / 2**30:.2f} GiB kept for backward, {operators:.0f} operators;"
                f" at least {seconds * 1e3:.1f} ms: {batch / seconds:.0f} images/s,"
                f" MFU {flops / seconds / PEAK:.2f}"
            )
            longest = sorted(costs.seconds.items(), key=lambda item: -item[1])[:8]
            print("  ms: " + ", ".join(f"{name} {value * 1e3:.1f}" for name, value in longest))
            figures[name] = dict(flops=flops, moved=moved, kept=costs.kept, seconds=seconds)
    return figures
