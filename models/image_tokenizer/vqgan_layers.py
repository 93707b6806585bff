"""Encoder and decoder of VQGAN: residual blocks on levels of half the side each, attention on the
small ones.

Names of modules are those of upstream's weights. L levels, level 0 the largest::

    encoder  conv_in, level 0 .. L-1 (each but the last with downsample), mid, norm_out, conv_out
    decoder  conv_in, mid, level L-1 .. 0 (each but 0 with upsample), norm_out, conv_out
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32


@dataclass(frozen=True)
class VQGANConfig:
    """What decides names and shapes of the weights: ``ddconfig`` (all but the last three fields)
    and its neighbors.

    ``attn_resolutions`` are counted from ``resolution`` (pixels in training), whatever image
    comes in.
    """

    z_channels: int
    resolution: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    in_channels: int
    out_ch: int
    n_embed: int
    embed_dim: int
    kind: str

    @property
    def factor(self) -> int:
        """Pixels per code and side."""
        return 2 ** (len(self.ch_mult) - 1)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Norm, swish, convolution, twice, beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Every position looks at all positions, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        # (B, h*w, C)
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)  # scale C^-0.5
        return x + self.proj_out(y.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Half the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # zeros right and below only, as upstream


class Upsample(nn.Module):
    """Twice the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Blocks at one size, each followed by attention if this level has it, and the way to the
    next level."""

    def __init__(self, channels_in: int, channels_out: int, depth: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResnetBlock(channels_out if i else channels_in, channels_out) for i in range(depth)
        )
        self.attn = nn.ModuleList(AttnBlock(channels_out) for _ in range(depth if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class MidBlock(nn.Module):
    """At the smallest size there is always attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


def has_attention(config: VQGANConfig, level: int) -> bool:
    """Decided by the size that the configuration names, not by that of an image."""
    return config.resolution // 2**level in config.attn_resolutions


class Encoder(nn.Module):
    """float[B, 3, H, W] -> float[B, z_channels, h, w]."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.ch * factor for factor in config.ch_mult]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else config.ch
            self.down.append(
                Level(before, width, config.num_res_blocks, has_attention(config, level))
            )
            if level < len(widths) - 1:
                self.down[-1].downsample = Downsample(width)
        self.mid = MidBlock(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """float[B, z_channels, h, w] -> float[B, 3, H, W], not bounded."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = [config.ch * factor for factor in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = MidBlock(widths[-1])
        self.up = nn.ModuleList()
        for level, width in enumerate(widths):
            # stored from level 0 on, run from the last on
            before = widths[min(level + 1, len(widths) - 1)]
            self.up.append(
                Level(before, width, config.num_res_blocks + 1, has_attention(config, level))
            )
            if level:
                self.up[-1].upsample = Upsample(width)
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.mid(self.conv_in(codes))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))
