"""Random changes of training images: decided by the generator alone, every operation leaves an
image of the same size."""

import random

import pytest
import torch
from PIL import Image

from ofa.data.augment import MILD, OPERATIONS, STRONG, TrainingTransform
from ofa.data.images import OFA_MEAN, OFA_STD


def make_image(width: int = 60, height: int = 40) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


@pytest.fixture(scope="module")
def transform():
    return TrainingTransform(32, OFA_MEAN, OFA_STD)


def test_the_same_generator_gives_the_same_pixels_and_another_one_others(transform):
    once, again, other = (
        transform(make_image(), random.Random(seed)) for seed in ("1-1-5", "1-1-5", "1-2-5")
    )
    assert once.shape == (3, 32, 32) and once.dtype == torch.float32
    assert torch.equal(once, again) and not torch.equal(once, other)


def test_torchs_own_random_numbers_stay_as_they_were(transform):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    transform(make_image(), random.Random(0))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("strength", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_gives_an_image_of_the_same_size(name, strength):
    for seed in range(4):
        changed = OPERATIONS[name](make_image(), strength, random.Random(seed), (1, 2, 3))
        assert changed.size == (60, 40) and changed.mode == "RGB"


@pytest.mark.parametrize("name, expected", [("move_x", 27), ("nudge_x", 10)])
def test_an_image_moves_by_a_share_of_its_side_or_by_pixels(name, expected):
    image = Image.new("RGB", (60, 40), "white")
    changed = OPERATIONS[name](image, 1.0, random.Random(0), (0, 0, 0))
    row = [changed.getpixel((x, 20)) != (255, 255, 255) for x in range(60)]
    assert sum(row) == expected


def test_operations_are_the_fifteen_strong_and_the_ten_mild_ones():
    assert len(STRONG) == 15 and len(MILD) == 10 and {*STRONG, *MILD} == set(OPERATIONS)


def test_about_a_quarter_of_the_images_is_partly_erased(transform):
    plain = Image.new("RGB", (60, 40), (128, 128, 128))
    erased = [transform(plain, random.Random(seed)).std().item() > 0.15 for seed in range(200)]
    assert 25 <= sum(erased) <= 90
