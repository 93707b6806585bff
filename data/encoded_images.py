"""JPEG files that go to their device as they are: it decodes and resizes them
(``--decode-on-device``).

Pixels differ from those of the data workers. Decoded by torchvision on a CPU they are PIL's, and
torch's bicubic filter, which rounds once where PIL's rounds twice, is off by one gray level in a
fifth of the numbers (640 x 480 to 384 x 384; tests/unit/test_encoded_images.py). A GPU decodes by
nvJPEG, whose rounding and upsampled colors are its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa.data.images import pixels_of
from ofa.io.images import UndecodedJpeg, decode_jpegs, open_image

FILES_AT_ONCE = 16  # decoded together: the memory of full-size images


@dataclass
class EncodedImage:
    """Stands for the pixels uint8[3, side, side] of an image."""

    image: UndecodedJpeg
    side: int
    dtype: ClassVar[torch.dtype] = torch.uint8

    def parts(self) -> tuple[Tensor, str]:
        """The file, uint8[bytes], and where it is from."""
        return torch.frombuffer(bytearray(self.image.file), dtype=torch.uint8), self.image.where


@dataclass
class EncodedImages:
    """The images of a batch in one piece of memory, which data workers share with the trainer.

    Args: data: uint8, of all images behind each other: files, and pixels where a worker decoded
        one. shapes: (bytes,) or (3, side, side) of each. where: of each, for messages.
    """

    data: Tensor
    shapes: list[tuple[int, ...]]
    where: list[str]
    side: int

    @classmethod
    def join(cls, images: Sequence[EncodedImage | Tensor]) -> "EncodedImages":
        """Args: images: at least one is encoded."""
        side = next(image.side for image in images if isinstance(image, EncodedImage))
        parts = [
            image.parts() if isinstance(image, EncodedImage) else (image, "") for image in images
        ]
        shapes = [tuple(part.shape) for part, _ in parts]
        data = torch.cat([part.flatten() for part, _ in parts])
        return cls(data, shapes, [where for _, where in parts], side)

    def pixels(self, device: torch.device) -> Tensor:
        """uint8[B, 3, side, side], made on the device.

        Raises: UserError naming the row if a file holds no whole image.
        """
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = [part.view(shape) for part, shape in zip(self.data.split(sizes), self.shapes)]
        files = [place for place, part in enumerate(parts) if part.dim() == 1]
        for start in range(0, len(files), FILES_AT_ONCE):
            some = files[start : start + FILES_AT_ONCE]
            names = [self.where[place] for place in some]
            for place, image in zip(some, decoded([parts[place] for place in some], names, device)):
                parts[place] = squashed_on_device(image, self.side)
        return torch.stack([part.to(device, non_blocking=True) for part in parts])


def decoded(files: list[Tensor], where: list[str], device: torch.device) -> list[Tensor]:
    """uint8[3, H, W] of JPEG files uint8[bytes], on the device. What its decoder does not take is
    decoded as data workers do it. Raises: UserError as ``open_image``."""
    try:
        return decode_jpegs(files, device)
    except RuntimeError:
        if len(files) == 1:
            return [pixels_of(open_image(files[0].numpy().tobytes(), where[0])).to(device)]
    return [decoded([file], [name], device)[0] for file, name in zip(files, where)]


def squashed_on_device(pixels: Tensor, side: int) -> Tensor:
    """uint8[3, H, W] -> uint8[3, side, side] by a bicubic filter, as ``squashed`` by PIL's."""
    if pixels.shape[1:] == (side, side):
        return pixels
    found = F.interpolate(pixels[None].float(), (side, side), mode="bicubic", antialias=True)[0]
    return found.round_().clamp_(0, 255).to(torch.uint8)
