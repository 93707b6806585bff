"""Images as codes and back: one interface for the VQGAN of upstream and the small VQ-VAE.

    >>> tokenizer = load_image_tokenizer("runs/tokenizer")
    >>> # 64 x 64 pixels, 8 x 8 of them per code
    >>> codes = encode_images(tokenizer, [image])  # int64[1, 8, 8]
    >>> decode_images(tokenizer, codes)[0].size
    (64, 64)

Letters as in ``interface``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ofa.errors import UserError
from ofa.models.image_tokenizer.interface import ImageTokenizer

TOKENIZER = "tokenizer.pt"  # ours
CONFIG, WEIGHTS = "model.yaml", "last.ckpt"  # a VQGAN as its authors ship it


def load_image_tokenizer(path: str | Path, device: str | torch.device = "cpu") -> ImageTokenizer:
    """A tokenizer for inference.

    Args: path: ``tokenizer.pt`` as ``ofa tokenizer train`` writes it, the folder that holds it, or
        a folder with ``model.yaml`` and ``last.ckpt`` of a VQGAN.
    Raises: UserError if there is none, or it is of another kind.
    """
    path = Path(path)
    if path.is_dir() and (path / CONFIG).is_file():
        from ofa.models.image_tokenizer.vqgan import load_vqgan

        tokenizer: ImageTokenizer = load_vqgan(path / CONFIG, path / WEIGHTS)
    else:
        from ofa.models.image_tokenizer.vq_vae import load_vq_vae

        file = path / TOKENIZER if path.is_dir() else path
        if not file.is_file():
            raise UserError(
                f"{path}: expected an image tokenizer, found none; give {TOKENIZER} (made by ofa"
                f" tokenizer train), its folder, or a folder with {CONFIG} and {WEIGHTS} of a VQGAN"
            )
        tokenizer = load_vq_vae(file)
    return tokenizer.to(device).eval().requires_grad_(False)


@torch.no_grad()
def encode_images(tokenizer: ImageTokenizer, images: Sequence[Image.Image]) -> Tensor:
    """Images of one size -> int64[B, h, w] on the CPU. Nothing is resized or cropped.

    Raises: UserError if their sizes differ or are no multiple of the tokenizer's factor.
    """
    sizes = {image.size for image in images}
    if len(sizes) != 1:
        some = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:5])
        raise UserError(
            f"expected images of one size to encode together, found {len(sizes)} sizes: {some};"
            " resize them first"
        )
    width, height = sizes.pop()
    if width % tokenizer.factor or height % tokenizer.factor:
        raise UserError(
            f"expected an image whose sides are multiples of {tokenizer.factor} pixels (one code"
            f" each), found {width} x {height}; resize it first"
        )
    return tokenizer.encode(as_images(images).to(device_of(tokenizer))).cpu()


def image_encoder(
    tokenizer: ImageTokenizer, seed: int | None = None
) -> Callable[[Sequence[Image.Image], int], Tensor]:
    """``encode_images``, called with the number of the first image as a second argument.

    Args: seed: sample the codes as upstream did, by this seed and that number.
    Raises: UserError for a seed and a tokenizer whose codes have no probabilities.
    """
    if seed is None:
        return lambda images, number: encode_images(tokenizer, images)
    if not getattr(tokenizer, "draws_codes", False):
        raise UserError(
            f"--sample {seed}: expected a GumbelVQ, whose codes have probabilities, found"
            f" {type(tokenizer).__name__} of another kind; leave the option out"
        )

    def encode(images: Sequence[Image.Image], number: int) -> Tensor:
        tokenizer.generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        return encode_images(tokenizer, images)

    return encode


@torch.no_grad()
def decode_images(tokenizer: ImageTokenizer, codes: Tensor | np.ndarray) -> list[Image.Image]:
    """int64[B, h, w] -> images in RGB.

    Raises: UserError for a code that the tokenizer does not have.
    """
    codes = torch.as_tensor(codes)
    wrong = codes[(codes < 0) | (codes >= tokenizer.num_codes)]
    if len(wrong):
        raise UserError(
            f"expected image codes from 0 to {tokenizer.num_codes - 1}, found {int(wrong[0])}; the"
            " codes are of another tokenizer"
        )
    images = tokenizer.decode(codes.to(device_of(tokenizer))).float().cpu()
    # as upstream: truncated to whole gray levels, not rounded
    pixels = ((images.clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
    return [Image.fromarray(image) for image in pixels.permute(0, 2, 3, 1).contiguous().numpy()]


def as_images(images: Sequence[Image.Image]) -> Tensor:
    """Images of one size -> float[B, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.stack([image.convert("RGB") for image in images]))
    return to_unit(pixels.permute(0, 3, 1, 2))


def to_unit(pixels: Tensor) -> Tensor:
    """Gray levels uint8 0..255 -> float -1..1."""
    return pixels.float() / 255 * 2 - 1


def device_of(tokenizer) -> torch.device:
    """The device of its weights; the CPU for an object without weights, such as one of a test."""
    weights = tokenizer.parameters() if isinstance(tokenizer, nn.Module) else iter(())
    return getattr(next(weights, None), "device", torch.device("cpu"))
