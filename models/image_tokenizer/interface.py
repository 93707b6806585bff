"""What every image tokenizer offers.

Images are float, -1 (black) to 1 (white). Letters: B images, H and W pixels, h = H / factor,
w = W / factor.
"""

import torch
from torch import Tensor, nn


class ImageTokenizer(nn.Module):
    """``num_codes``: codes of its codebook. ``factor``: pixels per code and side."""

    num_codes: int
    factor: int
    generator: torch.Generator | None = None

    def encode(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] in [-1, 1] -> int64[B, h, w]; the same image gives the same codes."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """int64[B, h, w] -> float[B, 3, H, W], clamped to [-1, 1]."""
        raise NotImplementedError


def nearest(x: Tensor, vectors: Tensor) -> Tensor:
    """Codes of float[..., D] by Euclidean distance: int64[...]. Args: vectors: float[K, D]."""
    return (vectors.square().sum(1) - 2 * x @ vectors.t()).argmin(-1)
