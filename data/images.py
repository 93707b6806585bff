"""PIL image in RGB -> float32[3, S, S]. Files and fields are opened by ``ofa.io.images``.

As upstream: an image is squashed to a square, its aspect not kept.
"""

from torchvision import transforms

OFA_MEAN = OFA_STD = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def mean_and_std(imagenet: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Args: imagenet: as of ``--imagenet-default-mean-and-std``."""
    return (IMAGENET_MEAN, IMAGENET_STD) if imagenet else (OFA_MEAN, OFA_STD)


def image_transform(
    size: int, mean: tuple[float, ...] = OFA_MEAN, std: tuple[float, ...] = OFA_STD
) -> transforms.Compose:
    """PIL image in RGB -> float32[3, size, size], normalized; picklable.

    Squashed to a square by PIL's bicubic filter: matches upstream's checkpoints
    (tests/parity/test_images.py).
    """
    squash = transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC)
    return transforms.Compose([squash, transforms.ToTensor(), transforms.Normalize(mean, std)])
