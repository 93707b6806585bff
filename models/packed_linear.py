"""Linear layers with weights in the order the processor likes best, for as long as a generation lasts.

A generation step multiplies a few rows (images x beams) by every weight of the decoder. On a CPU torch's
ordinary kernel takes about four times as long for that as oneDNN's with weights that were reordered once, and
twice as long for the many rows of the encoder (benchmarks/README.md). Weights are reordered anew for each
batch, so changed weights are always seen, and the copies are gone afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_ROWS = 4  # fewer rows gain nothing from another order


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


def can_pack(layer: nn.Module) -> bool:
    """Plain float32 linear layers on a CPU, outside autocast, where torch has oneDNN's operators."""
    return (
        type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


@contextmanager
def packed_linears(models: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the linear layers of ``models`` use reordered weights; only for use without gradients."""
    with ExitStack() as stack:
        for layer in (layer for model in models for layer in model.modules() if can_pack(layer)):
            layer.forward = PackedLinear(layer)
            stack.callback(delattr, layer, "forward")
        yield
