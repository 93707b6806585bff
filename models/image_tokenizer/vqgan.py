"""The image tokenizers of taming-transformers: GumbelVQ (upstream's) and plain VQModel.

``model.yaml`` describes the network under ``model.params`` (``ddconfig``, ``n_embed``,
``embed_dim``), ``last.ckpt`` holds the weights. Import paths in the description (``target: ...``)
are names to us, nothing is imported from them. Modules have the names of upstream's weights::

    encoder  conv_in, level 0 .. L-1 (each but the last with downsample), mid, norm_out, conv_out
    decoder  conv_in, mid, level L-1 .. 0 (each but 0 with upsample), norm_out, conv_out

Letters as in ``image_tokenizer``; D length of a code's vector, K codes, L levels, level 0 the
largest, each with half the side of the one before. Source: Esser et al., Taming Transformers, 2021;
numbers: tests/parity/test_vqgan.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.io.json_files import read_yaml
from ofa.io.safe_load import load_checkpoint
from ofa.models.image_tokenizer.interface import ImageTokenizer, nearest

# of any count of a description, and of its layers: a larger network is a damaged file
MOST, MOST_BLOCKS = (1 << 20, 64)
KINDS = ("GumbelVQ", "VQModel")
LISTS = ("ch_mult", "attn_resolutions")
GROUPS = 32


@dataclass(frozen=True)
class VQGANConfig:
    """What decides names and shapes of the weights: ``ddconfig``, and last its neighbors.

    ``attn_resolutions`` count from ``resolution`` (pixels in training), whatever image comes in.
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
        differ = channels_in != channels_out
        self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1) if differ else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(y))) + self.nin_shortcut(x)


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
        # (B, h*w, C), scale C^-0.5
        q, k, v = (layer(y).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v)
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
    """Blocks at one size, each followed by attention if wanted, and the way to the next level."""

    def __init__(self, channels_in: int, channels_out: int, depth: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResnetBlock(channels_out if i else channels_in, channels_out) for i in range(depth)
        )
        self.attn = nn.ModuleList(
            AttnBlock(channels_out) if attention else nn.Identity() for _ in range(depth)
        )
        self.downsample = self.upsample = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block, attention in zip(self.block, self.attn):
            x = attention(block(x))
        return self.upsample(self.downsample(x))


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
        widths, depth = [config.ch * factor for factor in config.ch_mult], config.num_res_blocks
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for level, (before, width) in enumerate(pairwise([config.ch, *widths])):
            self.down.append(Level(before, width, depth, has_attention(config, level)))
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
        widths, depth = [config.ch * factor for factor in config.ch_mult], config.num_res_blocks + 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = MidBlock(widths[-1])
        self.up = nn.ModuleList()
        # stored from level 0 on, run from the last on
        for level, (width, before) in enumerate(pairwise([*widths, widths[-1]])):
            self.up.append(Level(before, width, depth, has_attention(config, level)))
            if level:
                self.up[-1].upsample = Upsample(width)
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.mid(self.conv_in(codes))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class GumbelQuantizer(nn.Module):
    """A code is the largest of K logits of a position."""

    def __init__(self, channels: int, num_codes: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, num_codes, 1)
        self.embed = nn.Embedding(num_codes, dim)

    @property
    def vectors(self) -> Tensor:
        return self.embed.weight

    def codes(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """float[B, D, h, w] -> int64[B, h, w]; with a generator drawn by their probabilities."""
        logits = self.proj(x)
        if generator is not None:
            # as upstream: Gumbel noise on every logit, also outside of training
            noise = torch.empty(logits.shape).exponential_(generator=generator).log_().neg_()
            logits = logits + noise.to(logits)
        return logits.argmax(1)


class NearestQuantizer(nn.Module):
    """A code is the nearest of K vectors."""

    def __init__(self, num_codes: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_codes, dim)

    @property
    def vectors(self) -> Tensor:
        return self.embedding.weight

    def codes(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """float[B, D, h, w] -> int64[B, h, w]; nothing is drawn."""
        return nearest(x.permute(0, 2, 3, 1), self.vectors)


class VQGAN(ImageTokenizer):
    """The network. ``generator``: set it to draw codes as upstream did; None: the likeliest
    code, always the same."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config, self.num_codes, self.factor = config, config.n_embed, config.factor
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = (
            GumbelQuantizer(config.z_channels, config.n_embed, config.embed_dim)
            if config.kind == "GumbelVQ"
            else NearestQuantizer(config.n_embed, config.embed_dim)
        )
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)

    @property
    def draws_codes(self) -> bool:
        return self.config.kind == "GumbelVQ"

    def encode(self, images: Tensor) -> Tensor:
        return self.quantize.codes(self.quant_conv(self.encoder(images)), self.generator)

    def decode(self, codes: Tensor) -> Tensor:
        return self.reconstruct(codes).clamp(-1, 1)

    def reconstruct(self, codes: Tensor) -> Tensor:
        """As ``decode``, not clamped."""
        x = F.embedding(codes, self.quantize.vectors).permute(0, 3, 1, 2)  # (B, D, h, w)
        return self.decoder(self.post_quant_conv(x))


def expect(holds: object, path: object, expected: str, found: object) -> None:
    """Raises: UserError unless it holds."""
    if not holds:
        raise UserError(
            f"{path}: expected {expected}, found {found}; use the model.yaml and last.ckpt of a"
            " VQGAN such as vqgan_gumbel_f8"
        )


def load_vqgan(config_path: str | Path, weights_path: str | Path) -> VQGAN:
    """Raises: UserError if a file is missing or damaged, or has not the weights described."""
    config = read_config(config_path)
    belonging = f"the weights that belong to {config_path}"
    expect(Path(weights_path).is_file(), weights_path, belonging, "no such file")
    content = load_checkpoint(weights_path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    weights = {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor) and not str(name).startswith("loss.")
    }
    with torch.device("meta"):
        tokenizer = VQGAN(config)
    check_weights(tokenizer, weights, weights_path, config_path)
    tokenizer.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return tokenizer


def check_weights(
    tokenizer: VQGAN, weights: Mapping[str, Tensor], path: object, described: object
) -> None:
    """Raises: UserError unless these are the network's tensors, in name and shape."""
    own, config = tokenizer.state_dict(), tokenizer.config
    differing = {
        "are missing": [name for name in own if name not in weights],
        "are of another network": [name for name in weights if name not in own],
    }
    found = [
        f"{len(names)} {what} ({', '.join(names[:3])})"
        for what, names in differing.items()
        if names
    ]
    expected = f"the {len(own)} tensors of the {config.kind} that {described} describes"
    expect(not found, path, expected, f"that {' and '.join(found)}")
    wrong = [name for name in own if own[name].shape != weights[name].shape]
    if not wrong:
        return
    name = next((name for name in wrong if name.startswith("quantize.embed")), wrong[0])
    if name.startswith("quantize.embed"):
        expected = (
            f"a codebook of {config.n_embed} codes with {config.embed_dim} numbers each, as n_embed"
            f" and embed_dim of {described} say"
        )
    else:
        expected = f"{name} of shape {list(own[name].shape)} as {described} describes"
    expect(False, path, expected, list(weights[name].shape))


def read_config(path: str | Path) -> VQGANConfig:
    """Raises: UserError if it is no description of such a network."""
    expected = "YAML with plain values only, the description of a VQGAN"
    return config_of(read_yaml(path, expected), str(path))


def config_of(content: Any, path: str) -> VQGANConfig:
    """Settings of a parsed ``model.yaml``. Raises: UserError if no network can be built of it."""
    model = content.get("model", content) if isinstance(content, Mapping) else {}
    params = model.get("params", model) if isinstance(model, Mapping) else {}
    ddconfig: Any = params.get("ddconfig") if isinstance(params, Mapping) else None
    described = isinstance(ddconfig, Mapping)
    expect(described, path, "model.params.ddconfig (the description of a VQGAN)", "none")
    kind = kind_of(model)
    continuous = ddconfig.get("double_z") and "double_z: true (a continuous autoencoder)"
    expected = f"a network with codes, {' or '.join(KINDS)} with double_z: false"
    expect(kind in KINDS and not continuous, path, expected, continuous or kind)
    given = {"in_channels": 3, "out_ch": 3, **ddconfig}
    given.update({name: params.get(name) for name in ("n_embed", "embed_dim")})
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(VQGANConfig) if field.name != "kind"):
        value: Any = given.get(name)
        counts = value if name in LISTS else [value]
        fits = (
            isinstance(counts, list) and len(counts) <= MOST_BLOCKS and all(map(is_count, counts))
        )
        kind_of_value = "a list of integers" if name in LISTS else "an integer"
        expect(fits, path, f"{name} as {kind_of_value}", str(value)[:80])
        values[name] = tuple(counts) if name in LISTS else value
    config = VQGANConfig(**values, kind=kind)
    check_config(config, ddconfig.get("attn_type", "vanilla"), path)
    return config


def check_config(config: VQGANConfig, attention: str, path: str) -> None:
    """Raises: UserError for a network that cannot be built."""
    fits = config.kind != "GumbelVQ" or config.embed_dim == config.z_channels
    wanted = f"embed_dim equal to z_channels ({config.z_channels}), as GumbelVQ needs"
    expect(fits, path, wanted, config.embed_dim)
    depth, channels = config.num_res_blocks, (config.in_channels, config.out_ch)
    expect(depth <= MOST_BLOCKS, path, f"at most {MOST_BLOCKS} num_res_blocks", depth)
    expect(config.ch_mult, path, "at least one number in ch_mult", "none")
    wanted = "images with 3 channels (in_channels, out_ch)"
    expect(channels == (3, 3), path, wanted, "{} and {}".format(*channels))
    expect(config.ch % GROUPS == 0, path, f"ch as a multiple of {GROUPS}", config.ch)
    expect(attention == "vanilla", path, "attn_type: vanilla", attention)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST


def kind_of(model: Mapping) -> str:
    """By the class named in ``target``, else by the loss weight that only one of them has."""
    name = str(model.get("target", "")).rpartition(".")[2]
    return name or ("GumbelVQ" if "kl_weight" in model.get("params", model) else "VQModel")
