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


def load_vqgan(config_path: str | Path, weights_path: str | Path) -> VQGAN:
    """Raises: UserError if a file is missing or damaged, or the weights are not those of the
    description."""
    config = read_config(config_path)
    if not Path(weights_path).is_file():
        raise UserError(
            f"{weights_path}: expected the weights that belong to {config_path}, found no such"
            " file; put last.ckpt beside it"
        )
    content = load_checkpoint(weights_path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    weights = {
        name: value
        for name, value in state.items()
        if isinstance(value, Tensor) and not str(name).startswith("loss.")
    }
    with torch.device("meta"):
        tokenizer = VQGAN(config)
    own = tokenizer.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    if missing or unexpected:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])})"
            for what, names in (("are missing", missing), ("are of another network", unexpected))
            if names
        ]
        raise UserError(
            f"{weights_path}: expected the {len(own)} tensors of the {config.kind} that"
            f" {config_path} describes, found that {' and '.join(parts)}; use the model.yaml that"
            " came with the weights"
        )
    codebook = next(
        name for name in own if name in ("quantize.embed.weight", "quantize.embedding.weight")
    )
    if own[codebook].shape != weights[codebook].shape:
        raise UserError(
            f"{weights_path}: expected a codebook of {config.n_embed} codes with {config.embed_dim}"
            f" numbers each, as n_embed and embed_dim of {config_path} say, found"
            f" {' x '.join(map(str, weights[codebook].shape))}; use the model.yaml that came with"
            " the weights"
        )
    wrong = [name for name in own if own[name].shape != weights[name].shape]
    if wrong:
        raise UserError(
            f"{weights_path}: expected {wrong[0]} of shape {list(own[wrong[0]].shape)} as"
            f" {config_path} describes, found {list(weights[wrong[0]].shape)} (and {len(wrong) - 1}"
            " more); use the model.yaml that came with the weights"
        )
    tokenizer.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return tokenizer


def read_config(path: str | Path) -> VQGANConfig:
    """Raises: UserError if it is no description of such a network."""
    return config_of(
        read_yaml(path, "YAML with plain values only, the description of a VQGAN"), str(path)
    )


def config_of(content: Any, path: str) -> VQGANConfig:
    """Settings of a parsed ``model.yaml``. Raises: UserError."""
    model = content.get("model", content) if isinstance(content, Mapping) else {}
    params = model.get("params", model) if isinstance(model, Mapping) else {}
    ddconfig = params.get("ddconfig") if isinstance(params, Mapping) else None
    if not isinstance(ddconfig, Mapping):
        raise UserError(
            f"{path}: expected model.params.ddconfig (the description of a VQGAN), found none; use"
            " the model.yaml that came with the weights"
        )
    given = {
        "in_channels": 3,
        "out_ch": 3,
        **ddconfig,
        **{name: params.get(name) for name in ("n_embed", "embed_dim")},
        "kind": kind_of(model),
    }
    if given["kind"] not in KINDS or ddconfig.get("double_z"):
        found = (
            "double_z: true (a continuous autoencoder)"
            if ddconfig.get("double_z")
            else given["kind"]
        )
        raise UserError(
            f"{path}: expected a network with codes, {' or '.join(KINDS)} with double_z: false,"
            f" found {found}; {REMEDY}"
        )
    values: dict[str, Any] = {}
    for field in dataclasses.fields(VQGANConfig):
        value: Any = given.get(field.name)
        many = field.name in ("ch_mult", "attn_resolutions")
        if field.name != "kind" and not (
            isinstance(value, list) and len(value) <= MOST_BLOCKS and all(map(is_count, value))
            if many
            else is_count(value)
        ):
            raise UserError(
                f"{path}: expected {field.name} as"
                f" {'a list of integers' if many else 'an integer'}, found"
                f" {str(value)[:80]}; use the model.yaml that came with the weights"
            )
        values[field.name] = tuple(value) if many else value
    config = VQGANConfig(**values)
    check(config, ddconfig, path)
    return config


def is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST


def kind_of(model: Mapping) -> str:
    """Which of the two: by the class named in ``target``, else by the loss weight that only one
    of them has."""
    name = str(model.get("target", "")).rpartition(".")[2]
    return name or ("GumbelVQ" if "kl_weight" in model.get("params", model) else "VQModel")


def check(config: VQGANConfig, ddconfig: Mapping, path: str) -> None:
    """Raises: UserError for a network that cannot be built."""

    def refuse(expected: str, found: object) -> None:
        raise UserError(f"{path}: expected {expected}, found {found}; {REMEDY}")

    if config.kind == "GumbelVQ" and config.embed_dim != config.z_channels:
        refuse(
            f"embed_dim equal to z_channels ({config.z_channels}), as GumbelVQ needs",
            config.embed_dim,
        )
    if config.num_res_blocks > MOST_BLOCKS:
        refuse(f"at most {MOST_BLOCKS} num_res_blocks", config.num_res_blocks)
    if not config.ch_mult:
        refuse("at least one number in ch_mult", "none")
    if config.in_channels != 3 or config.out_ch != 3:
        refuse(
            "images with 3 channels (in_channels, out_ch)",
            f"{config.in_channels} and {config.out_ch}",
        )
    if config.ch % GROUPS:
        refuse(f"ch as a multiple of {GROUPS}", config.ch)
    if ddconfig.get("attn_type", "vanilla") != "vanilla":
        refuse("attn_type: vanilla", ddconfig["attn_type"])
