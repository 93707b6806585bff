"""A network for inference: the weights of another one; in float32 on a CPU in a faster form.

- Linear layers: a generation step multiplies a few rows (images x beams) by every decoder weight.
  torch's kernel takes four times as long for that as oneDNN's with weights that were reordered
  once, and twice as long for the many rows of the encoder (benchmarks/README.md).
- Convolutions take over the factor and shift per channel of a batch norm that no longer learns.
- LoRA: the two thin matrices are multiplied and added to the weight.

The network itself stays as it is, for training and for other threads. While it trains, one for
inference is made for each batch, so that changed weights are always seen; whoever knows that the
weights stay keeps one (``ofa.inference.predictor``).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.encoder import EncoderOutput
from ofa.models.image_stems import FrozenBatchNorm
from ofa.models.peft import LoraLinear

MIN_ROWS = 4  # fewer rows gain nothing from another order
# Rows that weights are reordered for, in all calls the same: sums round in the order of weights.
# From about 80 rows on oneDNN chooses one order, which is at least as fast for 5 rows as their own
# (one thread of a Xeon with AVX-512: 768 -> 3072 features in 0.39 ms instead of 0.72 ms).
PACKED_FOR_ROWS = 256
M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def inference_network(model: nn.Module) -> nn.Module:
    """A network in evaluation mode that computes what ``model`` does, faster and without gradients.

    It shares the weights that it does not reorder. A network for inference is returned as it is.
    """
    if getattr(model, "is_inference_network", False):
        return model
    found = copy_for_inference(model, {}, replaces=not torch.is_autocast_enabled("cpu"))
    found.__dict__.update(is_inference_network=True)
    return found


def inference_networks(models: Sequence[nn.Module]) -> list[Any]:
    """The network for inference of every model, without its wrappers."""
    return [inference_network(unwrapped(model)) for model in models]


def encode_all(models: Sequence[Any], sample: dict[str, Any]) -> list[EncoderOutput]:
    """The encoder's output of every model for a batch."""
    return [model.encode(**network_inputs(model, sample)) for model in models]


def network_inputs(model: Any, sample: dict[str, Any]) -> dict[str, Any]:
    """``net_input`` of a batch, for a model with ``reads_facts`` with the batch's facts."""
    if "facts" not in sample or not getattr(unwrapped(model), "reads_facts", False):
        return sample["net_input"]
    return {**sample["net_input"], "facts": sample["facts"]}


def unwrapped(model: Any) -> Any:
    """The network inside the wrappers of distributed training (fairseq puts two around it)."""
    while hasattr(model, "module"):
        model = model.module
    return model


def copy_for_inference(
    module: nn.Module, copies: dict[int, nn.Module], replaces: bool
) -> nn.Module:
    """Copy a tree of modules, not its tensors.

    Args: copies: by the module's id, as one may have several places. replaces: by faster layers.
    """
    if id(module) in copies:
        return copies[id(module)]
    layer = module
    if replaces and isinstance(module, LoraLinear) and on_cpu(module.weight):
        layer = module.merge_lora()
    if replaces and can_pack(layer):
        copy: nn.Module = PackedLinear(layer)
    else:
        copy = shallow_copy(module)
        copy._modules = {
            name: child if child is None else copy_for_inference(child, copies, replaces)
            for name, child in module._modules.items()
        }
        if replaces:
            fold_batch_norms(copy)
    copies[id(module)] = copy
    return copy


def shallow_copy(module: M) -> M:
    """The same class with attributes of its own; tensors and submodules are those of ``module``."""
    copy = object.__new__(type(module))  # that of FSDPModule would call __init__
    copy.__dict__.update(module.__dict__, training=False)
    return copy


class PackedLinear(nn.Module):
    """Stands for a linear layer; reorders its weight when there first are enough rows.

    Threads that meet at that moment reorder it twice, to the same.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # it cannot trace the packing
            return F.linear(x, self.weight, self.bias)
        if x[..., 0].numel() < MIN_ROWS or torch.is_autocast_enabled("cpu"):
            return F.linear(x, self.weight, self.bias)
        if self.packed is None:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, PACKED_FOR_ROWS)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


def slice_linear(layer: nn.Module, weight: Tensor) -> nn.Module:
    """A linear layer of some rows of another one's weight, as fast as that one is."""
    narrow = nn.Linear(weight.size(1), weight.size(0), bias=False, device="meta")
    narrow.weight = nn.Parameter(weight, requires_grad=False)
    return PackedLinear(narrow) if isinstance(layer, PackedLinear) else narrow


def can_pack(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Plain linear layers, where torch has oneDNN's operators."""
    return (
        type(layer) is nn.Linear
        and on_cpu(layer.weight)
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def fold_batch_norms(module: nn.Module) -> None:
    """In place among the children of a copy: a convolution and its norm become one convolution.

    They are ``conv1`` and ``bn1``, or neighbors in a Sequential.
    """
    children = module._modules
    pairs = [(name, name.replace("conv", "bn")) for name in children]
    for name, following in pairwise(children) if isinstance(module, nn.Sequential) else pairs:
        convolution, norm = children[name], children.get(following)
        if (
            type(convolution) is nn.Conv2d
            and on_cpu(convolution.weight)
            and isinstance(norm, (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm))
        ):
            children[name] = fold_batch_norm(convolution, norm)
            children[following] = nn.Identity()


def fold_batch_norm(convolution: nn.Conv2d, norm: Any) -> nn.Conv2d:
    """A convolution that includes the norm behind it."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    folded = shallow_copy(convolution)
    tensors = {"weight": convolution.weight * scale[:, None, None, None], "bias": shift}
    folded._parameters = {
        name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()
    }
    return folded


def version_of_weights(model: nn.Module) -> tuple[tuple[int, int], ...]:
    """Differs after a tensor of the network was replaced or changed in place (not through
    ``.data``, which torch does not count)."""
    return tuple(
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for tensor in (*model.parameters(), *model.buffers())
    )


def on_cpu(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32
