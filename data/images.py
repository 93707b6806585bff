"""Whatever a caller has as an image -> PIL image in RGB -> uint8[3, S, S] -> float32, normalized.
Files and fields are opened by ``ofa.io.images``.

As upstream: an image is squashed to a square, its aspect not kept.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from ofa.errors import UserError
from ofa.io.images import open_image, read_image_file, to_rgb, upright_image

OFA_MEAN = OFA_STD = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_STATISTICS: Final = "image_statistics"  # of a batch with images of uint8: float32[B, 2, 3]


def mean_and_std(imagenet: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Args: imagenet: as of ``--imagenet-default-mean-and-std``."""
    return (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (OFA_MEAN, OFA_STD)


def image_transform(
    size: int, mean: tuple[float, ...] = OFA_MEAN, std: tuple[float, ...] = OFA_STD
) -> Callable[[Image.Image], torch.Tensor]:
    """PIL image in RGB -> float32[3, size, size], normalized; picklable."""
    return partial(_transformed, size=size, statistics=torch.tensor([mean, std]))


def _transformed(image: Image.Image, size: int, statistics: torch.Tensor) -> torch.Tensor:
    return normalized(pixels_of(squashed(image, size)), statistics)


def squashed(image: Image.Image, size: int) -> Image.Image:
    """A square by PIL's bicubic filter: matches upstream's checkpoints
    (tests/parity/test_images.py)."""
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BICUBIC)


def pixels_of(image: Image.Image) -> torch.Tensor:
    """PIL image in RGB -> uint8[3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def normalized(pixels: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """The same numbers on every device: those of torchvision's ``ToTensor`` and ``Normalize``.

    Args: pixels: uint8[..., 3, H, W]. statistics: float32[..., 2, 3], mean and deviation of the
        colors, on that device. Returns: float32[..., 3, H, W].
    """
    mean, std = statistics[..., None, None].unbind(-4)
    found = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    # a tensor: of a number a GPU would multiply by the reciprocal, which rounds differently
    return found.div_(statistics.new_full((), 255.0)).sub_(mean).div_(std)


def normalize_images(batch: Any) -> Any:
    """A batch, or several, that went to its device with images as uint8 or as files, as the network
    takes it: images decoded, and normalized in float32. Batches with float images stay as they are.
    """
    if isinstance(batch, (list, tuple)):
        return type(batch)(map(normalize_images, batch))
    if not isinstance(batch, dict) or batch.get(IMAGE_STATISTICS) is None:
        return batch
    net_input = dict(batch["net_input"])
    for name in ("patch_images", "patch_images_2"):
        if (images := net_input.get(name)) is not None:
            statistics = batch[IMAGE_STATISTICS]
            if not isinstance(images, torch.Tensor):  # files, see ``ofa.data.encoded_images``
                images = images.pixels(statistics.device)
            net_input[name] = normalized(images, statistics)
    rest = {key: value for key, value in batch.items() if key != IMAGE_STATISTICS}
    return {**rest, "net_input": net_input}


def as_image(image: Any, where: str = "") -> Image.Image:
    """An image in RGB, the right way up.

    Args:
        image: the path of an image file or a PIL image (turned as its EXIF orientation says: what a
            viewer shows); an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]; a tensor [H, W] or,
            channels first, [3, H, W]. Integers count from 0 to 255, others from 0 to 1.
        where: the beginning of messages; default: the path.
    Raises: UserError if there is no such file, it is no image, or the array has another form.
    """
    if isinstance(image, (str, Path)):
        return from_file(Path(image), where or str(image))
    if isinstance(image, Image.Image):
        return upright_image(image)
    if isinstance(image, torch.Tensor):
        pixels = image.detach().cpu()
        pixels = pixels.float() if pixels.is_floating_point() else pixels  # numpy has no bfloat16
        image = (pixels.movedim(0, -1) if pixels.dim() == 3 else pixels).numpy()
    if isinstance(image, np.ndarray):
        return from_array(image, where)
    raise UserError(
        f"{where or 'image'}: expects a path, a PIL image, an array or a tensor, found"
        f" {type(image).__name__}"
    )


def from_file(path: Path, where: str) -> Image.Image:
    """Raises: UserError if it cannot be read or is no image."""
    try:
        data = read_image_file(os.path.expanduser(path))
    except OSError as error:
        hint = "; images are read from this machine only, download it first"
        remedy = hint if ":/" in str(path) else ""
        raise UserError(
            f"{where}: expects an image file, found none ({error.strerror}){remedy}"
        ) from None
    return open_image(data, where, upright=True)


def from_array(array: np.ndarray, where: str) -> Image.Image:
    """Args: array: [H, W] or [H, W, 1, 3 or 4], integers 0 to 255 or fractions 0 to 1.
    Raises: UserError."""
    name = where or "image"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    channels = array.shape[2] if array.ndim == 3 else 3
    if array.ndim not in (2, 3) or channels not in (3, 4) or 0 in array.shape:
        raise UserError(
            f"{name}: expects an array [H, W], [H, W, 3] or [H, W, 4] (a tensor: channels first),"
            f" found shape {list(array.shape)}"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise UserError(
                f"{name}: expects fractions from 0 to 1, found {np.nanmin(array):g} to"
                f" {np.nanmax(array):g}; do not normalize it, or give integers from 0 to 255"
            )
        array = np.rint(array * 255)
    elif array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
        raise UserError(
            f"{name}: expects integers from 0 to 255, found {array.min()} to {array.max()}"
        )
    return to_rgb(Image.fromarray(array.astype(np.uint8)))
