"""The image stems, both of stride 16: the first three stages of a ResNet, or the lower layers of a
CLIP vision transformer without class token.

As upstream, every depth of ResNet (18 and 34 too) is built of bottleneck blocks.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.layers import DropPath, rising_rates
from ofa.models.positions import split_heads

DEPTHS = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}
VITS = {"ViT-B/16": dict(image_size=224, patch_size=16, width=768, num_layers=9, num_heads=12)}
EXPANSION = 4  # of a bottleneck
# From this many pixels on, channels_last pays (a fifth of the stem's time on CPU). Smaller images
# keep the memory order of upstream, so that sums round as they did there.
LARGE = 192 * 192


class Float32Statistics(nn.Module):
    """A norm whose statistics stay float32 in a 16-bit network: a running mean of 8 bits stops
    following the batches once they change it by less than its last bit."""

    running_mean: Any  # Tensor; torch's own norms may have none
    running_var: Any

    def _apply(self, fn, recurse=True):
        before = {name: getattr(self, name) for name in ("running_mean", "running_var")}
        super()._apply(fn, recurse)
        for name, exact in before.items():
            moved = getattr(self, name)
            if moved.element_size() < exact.element_size():
                setattr(self, name, exact.to(moved.device))
        return self


class FrozenBatchNorm(Float32Statistics):
    """BatchNorm whose statistics, weight and bias never change: all four are buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        scale, shift = scale.to(x.dtype), shift.to(x.dtype)
        return x * scale[:, None, None] + shift[:, None, None]

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # an ordinary BatchNorm has it
        super()._load_from_state_dict(state_dict, prefix, *args)


class BatchNorm(Float32Statistics, nn.BatchNorm2d):
    """BatchNorm; kernels want weight, bias and statistics of one type, so in a 16-bit network the
    first two are used as float32."""

    float32: Optional[tuple[Tensor, Tensor]] = None  # weight and bias, see share_float32

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(self, x)


class SyncedBatchNorm(Float32Statistics, nn.SyncBatchNorm):
    """SyncBatchNorm; ordinary BatchNorm on CPU, where torch offers none. eps as upstream."""

    float32 = None

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        synced = self.training and x.device.type != "cpu"
        return nn.SyncBatchNorm.forward(self, x) if synced else batch_norm(self, x)


def batch_norm(norm: Any, x: Tensor) -> Tensor:
    """float[B, C, height, width] -> the same. Args: norm: BatchNorm or SyncedBatchNorm."""
    if norm.training:
        norm.num_batches_tracked.add_(1)
    mean, variance = norm.running_mean, norm.running_var
    weight, bias = norm.float32 or (norm.weight.to(mean.dtype), norm.bias.to(mean.dtype))
    return F.batch_norm(x, mean, variance, weight, bias, norm.training, norm.momentum, norm.eps)


def share_float32(stem: nn.Module) -> list[BatchNorm]:
    """Give the norms of a 16-bit stem their weights and biases as float32, all from one copy:
    hundreds of small ones would take a GPU's host longer than the stem's convolutions.

    Returns: the norms, whose ``float32`` is to be cleared after the pass.
    """
    norms = [norm for norm in stem.modules() if isinstance(norm, BatchNorm)]
    numbers: list[Tensor] = [number for norm in norms for number in (norm.weight, norm.bias)]
    if numbers:
        copies = torch.cat(numbers).float().split([number.numel() for number in numbers])
        for norm, *pair in zip(norms, copies[::2], copies[1::2]):
            norm.float32 = pair[0], pair[1]
    return norms


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided), 1x1 convolution with a shortcut."""

    def __init__(
        self, channels_in: int, planes: int, stride: int, norm: Callable, drop_path: float
    ) -> None:
        super().__init__()
        channels_out = planes * EXPANSION
        self.conv1 = nn.Conv2d(channels_in, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = nn.Conv2d(planes, channels_out, 1, bias=False)
        self.bn3 = norm(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            shortcut = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm(channels_out))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.drop_path(self.bn3(self.conv3(y)))
        return F.relu_(y.add_(self.downsample(x)))


class ResNet(nn.Module):
    """Args: kind: a key of DEPTHS; width: channels of the first stage (64 upstream)."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self,
        kind: str,
        width: int = 64,
        drop_path_rate: float = 0.0,
        frozen_bn: bool = False,
        sync_bn: bool = False,
    ) -> None:
        super().__init__()
        if kind not in DEPTHS:
            raise UserError(f"unknown image stem {kind!r}; known: {', '.join(DEPTHS)}, ViT-B/16")
        norm = FrozenBatchNorm if frozen_bn else SyncedBatchNorm if sync_bn else BatchNorm
        depths = DEPTHS[kind]
        drop_path = iter(rising_rates(drop_path_rate, sum(depths)))
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        channels = width
        for stage, depth in enumerate(depths):
            planes = width * 2**stage
            blocks = []
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Bottleneck(channels, planes, stride, norm, next(drop_path)))
                channels = planes * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """float[B, 3, height, width] -> float[B, channels, height / 16, width / 16]."""
        if images.is_cuda or images.size(2) * images.size(3) >= LARGE:
            images = images.contiguous(memory_format=torch.channels_last)
        shares = self.conv1.weight.element_size() == 2 and not torch.compiler.is_compiling()
        norms = share_float32(self) if shares else []
        try:
            x = F.relu(self.bn1(self.conv1(images)), inplace=True)
            x = F.max_pool2d(x, 3, stride=2, padding=1)
            return self.layer3(self.layer2(self.layer1(x)))
        finally:
            for norm in norms:
                norm.float32 = None


def load_imagenet_weights(stem: nn.Module, weights: dict[str, Any], path: str) -> None:
    """Start from torchvision's ImageNet weights; its fourth stage and classifier are not used.

    Raises: UserError if the file is of another network.
    """
    weights = weights.get("state_dict", weights)
    weights = {
        name: value for name, value in weights.items() if not name.startswith(("layer4.", "fc."))
    }
    own = {(name, value.shape) for name, value in stem.state_dict().items()}
    given = {(name, getattr(value, "shape", None)) for name, value in weights.items()}
    differing = {name for name, _ in own ^ given if not name.endswith("num_batches_tracked")}
    if differing:
        raise UserError(
            f"--resnet-model-path {path}: expected ImageNet weights of this image stem,"
            f" {len(differing)} tensors differ ({', '.join(sorted(differing)[:3])}); choose the"
            " file that belongs to --resnet-type (50, 101 or 152)"
        )
    stem.load_state_dict(weights, strict=False)


class QuickGELU(nn.Module):
    """CLIP's activation."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class PackedAttention(nn.Module):
    """Self-attention with all projections in one matrix (CLIP's parameter names)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.num_heads) for part in packed)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """A pre-norm layer of CLIP's image encoder: attention, then the feed-forward network.

    Shapes: float[B, P, width] -> the same.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = PackedAttention(width, num_heads)
        self.ln_1 = nn.LayerNorm(width)
        c_fc, c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=c_fc, gelu=QuickGELU(), c_proj=c_proj))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    """Args: image_size: side in pixels of the position table, which other sizes interpolate."""

    def __init__(
        self, image_size: int, patch_size: int, width: int, num_layers: int, num_heads: int
    ) -> None:
        super().__init__()
        self.channels = width
        self.grid = image_size // patch_size
        self.positional_embedding = nn.Parameter(torch.randn(self.grid**2 + 1, width) * width**-0.5)
        self.conv1 = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        blocks = nn.ModuleList(TransformerBlock(width, num_heads) for _ in range(num_layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})

    def forward(self, images: Tensor) -> Tensor:
        """float[B, 3, height, width] -> float[B, channels, height / 16, width / 16]."""
        x = self.conv1(images)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + self.positions(height, width).to(x.dtype)  # (B, P, C)
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"].children():
            x = block(x)
        return x.transpose(1, 2).unflatten(2, (height, width))

    def positions(self, height: int, width: int) -> Tensor:
        """(height * width, C)."""
        table = self.positional_embedding[1:]  # row 0 belonged to CLIP's class token
        if (height, width) == (self.grid, self.grid):
            return table
        table = table.T.unflatten(1, (self.grid, self.grid))[None]
        return F.interpolate(table, size=(height, width), mode="bilinear")[0].flatten(1).T
