"""The image tokenizers of taming-transformers: GumbelVQ (upstream's) and plain VQModel, with
their names of weights.

``model.yaml`` describes the network under ``model.params`` (``ddconfig``, ``n_embed``,
``embed_dim``), ``last.ckpt`` holds the weights. Import paths in the description (``target: ...``)
are names to us, nothing is imported from them. Letters as in ``image_tokenizer``; D length of a
code's vector, K codes.
Source: Esser et al., Taming Transformers, 2021; numbers: tests/parity/test_vqgan.py.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError
from ofa.io.json_files import read_yaml
from ofa.io.safe_load import load_checkpoint
from ofa.models.image_tokenizer.interface import ImageTokenizer
from ofa.models.image_tokenizer.vqgan_layers import GROUPS, Decoder, Encoder, VQGANConfig

# of any count of a description, and of its layers: a larger network is a damaged file
MOST, MOST_BLOCKS = (1 << 20, 64)
KINDS = ("GumbelVQ", "VQModel")
REMEDY = "use the model.yaml and last.ckpt of a VQGAN such as vqgan_gumbel_f8"


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
        """float[B, D, h, w] -> int64[B, h, w]. Args: generator: draw by the logits as
        probabilities (temperature 1)."""
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
        B, D, h, w = x.shape
        flat = x.permute(0, 2, 3, 1).reshape(-1, D)
        return (self.vectors.square().sum(1) - 2 * flat @ self.vectors.t()).argmin(1).view(B, h, w)


class VQGAN(ImageTokenizer):
    """The network. ``generator``: set it to draw codes as upstream did; None: the likeliest
    code, always the same."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config, self.num_codes, self.factor = config, config.n_embed, config.factor
        self.generator: torch.Generator | None = None
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


def refusal(path: object, expected: str, found: object) -> UserError:
    return UserError(f"{path}: expected {expected}, found {found}; {REMEDY}")


def load_vqgan(config_path: str | Path, weights_path: str | Path) -> VQGAN:
    """Raises: UserError if a file is missing or damaged, or the weights are not those of the
    description."""
    config = read_config(config_path)
    if not Path(weights_path).is_file():
        raise refusal(weights_path, f"the weights that belong to {config_path}", "no such file")
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
    if found:
        expected = f"the {len(own)} tensors of the {config.kind} that {described} describes"
        raise refusal(path, expected, f"that {' and '.join(found)}")
    wrong = [name for name in own if own[name].shape != weights[name].shape]
    codebooks = [name for name in wrong if name.startswith("quantize.embed")]
    for name in codebooks or wrong:
        expected = f"{name} of shape {list(own[name].shape)} as {described} describes"
        if codebooks:
            expected = (
                f"a codebook of {config.n_embed} codes with {config.embed_dim} numbers each,"
                f" as n_embed and embed_dim of {described} say"
            )
        raise refusal(path, expected, list(weights[name].shape))


def read_config(path: str | Path) -> VQGANConfig:
    """Raises: UserError if it is no description of such a network."""
    expected = "YAML with plain values only, the description of a VQGAN"
    return config_of(read_yaml(path, expected), str(path))


def config_of(content: Any, path: str) -> VQGANConfig:
    """Settings of a parsed ``model.yaml``. Raises: UserError if it describes no such network, or
    one that cannot be built."""
    model = content.get("model", content) if isinstance(content, Mapping) else {}
    params = model.get("params", model) if isinstance(model, Mapping) else {}
    ddconfig = params.get("ddconfig") if isinstance(params, Mapping) else None
    if not isinstance(ddconfig, Mapping):
        raise refusal(path, "model.params.ddconfig (the description of a VQGAN)", "none")
    kind = kind_of(model)
    continuous = ddconfig.get("double_z") and "double_z: true (a continuous autoencoder)"
    if kind not in KINDS or continuous:
        expected = f"a network with codes, {' or '.join(KINDS)} with double_z: false"
        raise refusal(path, expected, continuous or kind)
    given = {"in_channels": 3, "out_ch": 3, **ddconfig}
    given.update({name: params.get(name) for name in ("n_embed", "embed_dim")})
    values: dict[str, Any] = {"kind": kind}
    for field in dataclasses.fields(VQGANConfig):
        value: Any = given.get(field.name)
        if field.name in ("ch_mult", "attn_resolutions"):
            if not (
                isinstance(value, list) and len(value) <= MOST_BLOCKS and all(map(is_count, value))
            ):
                raise refusal(path, f"{field.name} as a list of integers", str(value)[:80])
            values[field.name] = tuple(value)
        elif field.name != "kind":
            if not is_count(value):
                raise refusal(path, f"{field.name} as an integer", str(value)[:80])
            values[field.name] = value
    config = VQGANConfig(**values)
    for holds, expected, found in requirements(config, ddconfig.get("attn_type", "vanilla")):
        if not holds:
            raise refusal(path, expected, found)
    return config


def requirements(config: VQGANConfig, attention: str) -> list[tuple[bool, str, object]]:
    """What a network needs that can be built: whether it holds, the expectation, what is there."""
    return [
        (
            config.kind != "GumbelVQ" or config.embed_dim == config.z_channels,
            f"embed_dim equal to z_channels ({config.z_channels}), as GumbelVQ needs",
            config.embed_dim,
        ),
        (
            config.num_res_blocks <= MOST_BLOCKS,
            f"at most {MOST_BLOCKS} num_res_blocks",
            config.num_res_blocks,
        ),
        (bool(config.ch_mult), "at least one number in ch_mult", "none"),
        (
            config.in_channels == config.out_ch == 3,
            "images with 3 channels (in_channels, out_ch)",
            f"{config.in_channels} and {config.out_ch}",
        ),
        (config.ch % GROUPS == 0, f"ch as a multiple of {GROUPS}", config.ch),
        (attention == "vanilla", "attn_type: vanilla", attention),
    ]


def is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST


def kind_of(model: Mapping) -> str:
    """Which of the two: by the class named in ``target``, else by the loss weight that only one
    of them has."""
    name = str(model.get("target", "")).rpartition(".")[2]
    return name or ("GumbelVQ" if "kl_weight" in model.get("params", model) else "VQModel")
