"""Weights in the form the processor likes best, for as long as a generation lasts (float32 on a CPU only).

Linear layers: a generation step multiplies a few rows (images x beams) by every decoder weight. torch's
ordinary kernel takes about four times as long for that as oneDNN's with weights that were reordered once, and
twice as long for the many rows of the encoder (benchmarks/README.md).

Convolutions: a batch norm that no longer learns is a factor and a shift per channel, which the convolution
before it takes over.

LoRA: the two thin matrices are multiplied and added to the weight.

All are made anew for each batch, so changed weights are always seen, and are gone afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.lora import LoraLinear
from ofa.models.resnet import FrozenBatchNorm

MIN_ROWS = 4  # fewer rows gain nothing from another order


@contextmanager
def inference_weights(models: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, ``models`` compute the same faster; they must be in evaluation mode, gradients off."""
    with ExitStack() as stack:

        def replace(layer: nn.Module, forward) -> None:
            layer.forward = forward
            stack.callback(delattr, layer, "forward")

        if not torch.is_autocast_enabled("cpu"):
            for module in (module for model in models for module in model.modules()):
                plain = module.merged() if isinstance(module, LoraLinear) and on_cpu(module.weight) else module
                if can_pack(plain):
                    replace(module, PackedLinear(plain))
                for convolution, norm in norms_behind_convolutions(module):
                    replace(convolution, folded(convolution, norm))
                    replace(norm, identity)
        yield


class PackedLinear:
    """Stands for the ``forward`` of a linear layer; reorders the weight once there are enough rows."""

    def __init__(self, layer: nn.Linear):
        self.weight, self.bias = layer.weight, layer.bias
        self.packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            rows = x[..., 0].numel()
            if rows < MIN_ROWS:
                return F.linear(x, self.weight, self.bias)
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def narrowed(layer: nn.Linear, weight: Tensor) -> nn.Linear | PackedLinear:
    """A linear layer of some rows of another one's weight; as fast as ``inference_weights`` makes that one."""
    narrow = nn.utils.skip_init(nn.Linear, weight.size(1), weight.size(0), bias=False, device=weight.device, dtype=weight.dtype)
    narrow.weight = nn.Parameter(weight, requires_grad=False)
    return PackedLinear(narrow) if can_pack(narrow) and "forward" in vars(layer) else narrow


def can_pack(layer: nn.Module) -> bool:
    """Plain linear layers, where torch has oneDNN's operators."""
    return (
        type(layer) is nn.Linear
        and on_cpu(layer.weight)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def norms_behind_convolutions(module: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Pairs among the children of a module: ``conv1`` and ``bn1``, or neighbours in a Sequential."""
    children = dict(module.named_children())
    if isinstance(module, nn.Sequential):
        pairs = list(pairwise(children.values()))
    else:
        pairs = [(child, children.get(name.replace("conv", "bn"))) for name, child in children.items()]
    norms = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm)
    return [
        (convolution, norm)
        for convolution, norm in pairs
        if type(convolution) is nn.Conv2d
        and isinstance(norm, norms)
        and not norm.training
        and on_cpu(convolution.weight)
    ]


def folded(convolution: nn.Conv2d, norm: nn.Module):
    """The ``forward`` of a convolution with the norm behind it."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    return partial(
        convolution._conv_forward, weight=convolution.weight * scale[:, None, None, None], bias=shift
    )


def identity(x: Tensor) -> Tensor:
    return x


def on_cpu(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
