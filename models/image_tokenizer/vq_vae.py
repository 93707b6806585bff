"""A small VQ-VAE: an image tokenizer that learns on a CPU within minutes.

8 x 8 pixels become one code. Half of the reduction is a rearrangement of pixels to channels, so
that all convolutions work on a quarter of the side or less::

    [3, 64, 64] -> [48, 16, 16] -> blocks -> [w, 8, 8] -> blocks -> [16, 8, 8] -> nearest of K codes
    codes -> [16, 8, 8] -> blocks -> [w, 16, 16] -> blocks -> [48, 16, 16] -> [3, 64, 64]

There is no normalization: a code does not depend on the rest of the image. Letters as in
``image_tokenizer``; N vectors, D their length, K codes. Source: VQ-VAE (van den Oord et al., 2017),
sec. 3 and appendix A.1; dead codes as in Jukebox (Dhariwal et al., 2020).
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.errors import UserError, reason_of
from ofa.io.flags import option
from ofa.io.safe_load import load_checkpoint
from ofa.models.image_tokenizer.interface import ImageTokenizer, nearest

FORMAT = "ofa image tokenizer 1"
PATCH = 4  # pixels per side that are rearranged to channels


@dataclass(frozen=True)
class VQVAEConfig:
    """What decides the shapes of the weights."""

    num_codes: int = option(512, "codes of the codebook")
    width: int = option(64, "channels at a quarter of the side; twice as many at an eighth")
    depth: int = option(2, "residual blocks at each size")
    code_dim: int = option(16, "length of a code's vector")

    def __post_init__(self) -> None:
        for name, least, most in (
            ("num_codes", 2, 1 << 20),
            ("width", 4, 1 << 14),
            ("depth", 1, 64),
            ("code_dim", 1, 1 << 14),
        ):
            value = getattr(self, name)
            if value < least:
                raise UserError(f"{name} {value}: expected at least {least}; choose a larger one")
            if value > most:
                raise UserError(f"{name} {value}: expected at most {most}; choose a smaller one")


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; does nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Codebook(nn.Module):
    """K vectors that follow the mean of what is nearest to them; those without any move away."""

    DECAY = 0.98
    DEAD = 0.1  # vectors per batch, averaged, below which a code moves
    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.randn(num_codes, dim))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, dim))

    def nearest(self, x: Tensor) -> Tensor:
        """float[..., D] -> int64[...]."""
        return nearest(x, self.vectors)

    @torch.no_grad()
    def follow(self, x: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        """Move towards float[N, D], assigned to int64[N]. Args: generator: on the CPU."""
        if not self.counts.any():  # the first batch: codes are some of its vectors
            self.vectors.copy_(self._some(x, len(self.vectors), generator))
            self.counts.fill_(1.0)
            self.sums.copy_(self.vectors)
            codes = self.nearest(x)
        counts = torch.bincount(codes, minlength=len(self.vectors)).to(x.dtype)
        sums = torch.zeros_like(self.sums).index_add_(0, codes, x)
        self.counts.lerp_(counts, 1 - self.DECAY)
        self.sums.lerp_(sums, 1 - self.DECAY)
        self.vectors.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])
        dead = self.counts.lt(self.DEAD)
        moved = self._some(x, int(dead.sum()), generator)
        self.vectors[dead], self.sums[dead], self.counts[dead] = moved, moved, 1.0

    @staticmethod
    def _some(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        """``count`` of the vectors, slightly moved so that no two codes are equal."""
        chosen = x[torch.randint(len(x), (count,), generator=generator).to(x.device)]
        return chosen + 0.01 * x.std() * torch.randn(chosen.shape, generator=generator).to(x)


class VQVAE(ImageTokenizer):
    """The network."""

    factor = 2 * PATCH

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config, self.num_codes = config, config.num_codes
        width, depth, dim = config.width, config.depth, config.code_dim
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(PATCH),
            nn.Conv2d(3 * PATCH**2, width, 3, padding=1),
            *(Block(width) for _ in range(depth)),
            nn.Conv2d(width, 2 * width, 2, stride=2),
            *(Block(2 * width) for _ in range(depth)),
            nn.SiLU(),
            nn.Conv2d(2 * width, dim, 1),
        )
        self.codebook = Codebook(config.num_codes, dim)
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, 2 * width, 3, padding=1),
            *(Block(2 * width) for _ in range(depth)),
            nn.Conv2d(2 * width, 4 * width, 1),
            nn.PixelShuffle(2),
            *(Block(width) for _ in range(depth)),
            nn.SiLU(),
            nn.Conv2d(width, 3 * PATCH**2, 3, padding=1),
            nn.PixelShuffle(PATCH),
        )

    def encode(self, images: Tensor) -> Tensor:
        return self.codebook.nearest(self.encoder(images).permute(0, 2, 3, 1))

    def decode(self, codes: Tensor) -> Tensor:
        x = F.embedding(codes, self.codebook.vectors).permute(0, 3, 1, 2)  # (B, D, h, w)
        return self.decoder(x).clamp(-1, 1)

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Training: the image through its codes. Args: generator: of the codes that move.

        Returns: float[B, 3, H, W] not clamped; the mean squared distance of vectors to their codes;
        int64[B, h, w].
        """
        x = self.encoder(images).float().permute(0, 2, 3, 1)  # (B, h, w, D)
        flat = x.flatten(0, 2)
        codes = self.codebook.nearest(flat.detach())
        if self.training:
            self.codebook.follow(flat.detach(), codes, generator)
            codes = self.codebook.nearest(flat.detach())
        found = F.embedding(codes, self.codebook.vectors)
        commitment = F.mse_loss(flat, found)
        # gradients pass the codebook as if it were not there
        straight = (flat + (found - flat).detach()).view(x.shape)
        return self.decoder(straight.permute(0, 3, 1, 2)), commitment, codes.view(x.shape[:3])


def vq_vae_content(tokenizer: VQVAE, **facts: object) -> dict:
    """What ``tokenizer.pt`` holds: tensors and plain values only."""
    config, model = dataclasses.asdict(tokenizer.config), tokenizer.state_dict()
    return {"format": FORMAT, "config": config, "model": model, **facts}


def load_vq_vae(path: str | Path) -> VQVAE:
    """Raises: UserError if the file is damaged or no tokenizer of this kind."""
    content = load_checkpoint(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        is_model = isinstance(content, dict) and "model" in content
        raise UserError(
            f"{path}: expected an image tokenizer ({FORMAT!r}), found"
            f" {'an OFA checkpoint' if is_model else 'another file'}; make one by ofa tokenizer"
            " train, or give the folder of a VQGAN (model.yaml and last.ckpt)"
        )
    try:
        with torch.device("meta"):  # sizes are compared before memory is taken
            tokenizer = VQVAE(VQVAEConfig(**content["config"]))
        tokenizer.load_state_dict(content["model"], assign=True)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{path}: expected the weights of the tokenizer that its settings describe, found"
            f" others ({reason_of(error)}); train it again"
        ) from None
    return tokenizer
