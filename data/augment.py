"""Random changes of training images, decided by the generator that is passed in.

``TrainingTransform`` is for images to classify, as upstream: crop, flip, the recipe of many
ImageNet trainings (``rand-m9-mstd0.5-inc1``), two milder operations of fixed strength, random
erasing. Imported when it is used: torchvision takes a second, and predictions do without.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

MAX_STRENGTH = 10
BICUBIC = InterpolationMode.BICUBIC
Color = tuple[int, int, int]


def sign(value: float, rng: random.Random) -> float:
    return value if rng.random() < 0.5 else -value


def factor(share: float, rng: random.Random) -> float:
    """Strength of an enhancement: 1 changes nothing, 0.1 removes most, 1.9 nearly doubles."""
    return max(0.1, 1 + sign(0.9 * share, rng))


def solarize_add(image: Image.Image, amount: int) -> Image.Image:
    """Dark pixels become lighter by ``amount``."""
    return image.point([min(255, v + amount) if v < 128 else v for v in range(256)] * 3)


def moved(
    image: Image.Image,
    fill: Color,
    right: float = 0.0,
    down: float = 0.0,
    shear_x: float = 0.0,
    shear_y: float = 0.0,
) -> Image.Image:
    """Moved by pixels, or sheared by pixels per pixel; ``fill`` appears at the borders."""
    matrix = (1, shear_x, -right, shear_y, 1, -down)  # place in the result -> place in the image
    way = Image.Transform.AFFINE
    return image.transform(image.size, way, matrix, Image.Resampling.BICUBIC, fillcolor=fill)


# name -> (image, strength as a share of the largest, generator, fill) -> image
OPERATIONS: dict[str, Callable[[Image.Image, float, random.Random, Color], Image.Image]] = {
    "identity": lambda image, s, rng, fill: image,
    "autocontrast": lambda image, s, rng, fill: F.autocontrast(image),
    "equalize": lambda image, s, rng, fill: F.equalize(image),
    "invert": lambda image, s, rng, fill: F.invert(image),
    "posterize": lambda image, s, rng, fill: F.posterize(image, max(1, 4 - int(s * 4))),
    "solarize": lambda image, s, rng, fill: F.solarize(image, 256 - min(256, int(s * 256))),
    "solarize_add": lambda image, s, rng, fill: solarize_add(image, min(128, int(s * 110))),
    "color": lambda image, s, rng, fill: F.adjust_saturation(image, factor(s, rng)),
    "contrast": lambda image, s, rng, fill: F.adjust_contrast(image, factor(s, rng)),
    "brightness": lambda image, s, rng, fill: F.adjust_brightness(image, factor(s, rng)),
    "sharpness": lambda image, s, rng, fill: F.adjust_sharpness(image, factor(s, rng)),
    "brighter": lambda image, s, rng, fill: F.adjust_brightness(image, 0.1 + 1.8 * s),
    "sharper": lambda image, s, rng, fill: F.adjust_sharpness(image, 0.1 + 1.8 * s),
    "rotate": lambda image, s, rng, fill: F.rotate(image, sign(30 * s, rng), BICUBIC, fill=[*fill]),
    "shear_x": lambda image, s, rng, fill: moved(image, fill, shear_x=sign(0.3 * s, rng)),
    "shear_y": lambda image, s, rng, fill: moved(image, fill, shear_y=sign(0.3 * s, rng)),
    "move_x": lambda image, s, rng, fill: moved(image, fill, sign(0.45 * s * image.width, rng)),
    "move_y": lambda image, s, rng, fill: moved(image, fill, 0, sign(0.45 * s * image.height, rng)),
    "nudge_x": lambda image, s, rng, fill: moved(image, fill, sign(10 * s, rng)),
    "nudge_y": lambda image, s, rng, fill: moved(image, fill, 0, sign(10 * s, rng)),
}
STRONG = (
    "autocontrast equalize invert rotate posterize solarize solarize_add color contrast brightness"
    " sharpness shear_x shear_y move_x move_y"
).split()
MILD = (
    "identity autocontrast equalize brighter sharper shear_x shear_y nudge_x nudge_y rotate"
).split()


@dataclass(frozen=True)
class RandAugment:
    """Applies ``count`` random operations, each with a chance of one half.

    Args: strength: mean, 0 to 10. spread: its deviation. fill: color beyond the image's borders.
    Source: Cubuk et al., RandAugment, 2020.
    """

    operations: Sequence[str]
    strength: float
    spread: float
    fill: Color
    count: int = 2

    def __call__(self, image: Image.Image, rng: random.Random) -> Image.Image:
        for name in rng.choices(self.operations, k=self.count):
            if rng.random() < 0.5:
                strength = min(MAX_STRENGTH, max(0.0, rng.gauss(self.strength, self.spread)))
                image = OPERATIONS[name](image, strength / MAX_STRENGTH, rng, self.fill)
        return image


class TrainingTransform:
    """PIL image in RGB and a generator -> float32[3, size, size], normalized.

    A crop of 8 to 100 % of the image, mirrored with a chance of one half, goes through
    ``RandAugment`` twice; with a chance of one quarter noise replaces 2 to 33 % of the pixels.
    """

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float]):
        crop = transforms.RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=BICUBIC)
        self.frame = transforms.Compose([crop, transforms.RandomHorizontalFlip(0.5)])
        red, green, blue = (min(255, round(255 * value)) for value in mean)
        self.augment = (
            RandAugment(STRONG, 9, 0.5, (red, green, blue)),
            RandAugment(MILD, 7, 0.0, (128, 128, 128)),
        )
        erase = transforms.RandomErasing(0.25, (0.02, 1 / 3), (0.3, 1 / 0.3), value="random")
        normalize = transforms.Normalize(mean, std)
        self.pixels = transforms.Compose([transforms.ToTensor(), normalize, erase])

    def __call__(self, image: Image.Image, rng: random.Random) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's generator
            torch.manual_seed(rng.getrandbits(63))
            image = self.frame(image)
            for augment in self.augment:
                image = augment(image, rng)
            return self.pixels(image)
