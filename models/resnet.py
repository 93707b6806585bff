"""The image stem: the first three stages of a ResNet, stride 16.

As upstream, every depth (18 and 34 too) is built of bottleneck blocks.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.models.layers import DropPath

DEPTHS = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}
EXPANSION = 4
# From this many pixels on, channels_last pays (a fifth of the stem's time on CPU). Smaller images
# keep the memory order of upstream, so that sums round as they did there.
LARGE = 192 * 192


class FrozenBatchNorm(nn.Module):
    """BatchNorm whose statistics, weight and bias never change: all four are buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

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
        return x * scale[:, None, None] + shift[:, None, None]

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # an ordinary BatchNorm has it
        super()._load_from_state_dict(state_dict, prefix, *args)


class SyncedBatchNorm(nn.SyncBatchNorm):
    """SyncBatchNorm; ordinary BatchNorm on CPU, where torch offers none. eps as upstream."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return (nn.BatchNorm2d if x.device.type == "cpu" else nn.SyncBatchNorm).forward(self, x)


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
        norm = FrozenBatchNorm if frozen_bn else SyncedBatchNorm if sync_bn else nn.BatchNorm2d
        depths = DEPTHS[kind]
        drop_path = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
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
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.layer3(self.layer2(self.layer1(x)))


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
