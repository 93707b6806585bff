"""Whatever a caller has as an image becomes the same image; what is none is one message."""

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.data.images import as_image
from ofa.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def forms() -> dict:
    channels_first = torch.from_numpy(PIXELS).permute(2, 0, 1)
    return {
        "pil": Image.fromarray(PIXELS),
        "array": PIXELS,
        "long array": PIXELS.astype(np.int64),
        "fractions": PIXELS / 255,
        "with alpha": np.dstack([PIXELS, np.full((6, 9), 255, np.uint8)]),
        "tensor": channels_first,
        "tensor of fractions": channels_first / 255,
        "half precision": (channels_first.double() / 255).to(torch.float64),
    }


@pytest.mark.parametrize("name", forms())
def test_every_form_of_an_image_is_the_same_image(name):
    found = as_image(forms()[name])
    assert found.mode == "RGB" and np.array_equal(np.asarray(found), PIXELS)


@pytest.mark.parametrize(
    "grey", [PIXELS[:, :, 0], PIXELS[:, :, :1], torch.from_numpy(PIXELS[:, :, 0])]
)
def test_gray_images_have_three_equal_channels(grey):
    assert np.array_equal(np.asarray(as_image(grey)), np.repeat(PIXELS[:, :, :1], 3, 2))


def test_a_photo_of_a_turned_camera_is_the_right_way_up(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.fromarray(PIXELS).save(tmp_path / "photo.png", exif=exif)
    assert as_image(tmp_path / "photo.png").size == (6, 9)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nowhere.jpg", r"^nowhere\.jpg: expects an image file, found none"),
        ("https://example.org/a.jpg", "read from this machine only"),
        (__file__, "expects a whole image"),
        (7, "^image 3: expects a path, a PIL image, an array or a tensor, found int"),
        (np.zeros((3, 5, 5)), "found shape .3, 5, 5."),
        (np.zeros((0, 5)), "found shape"),
        (PIXELS / 100, "expects fractions from 0 to 1"),
        (PIXELS.astype(int) - 9, "expects integers from 0 to 255"),
    ],
)
def test_what_is_no_image_is_one_message(image, words):
    with pytest.raises(UserError, match=words):
        as_image(image, "" if isinstance(image, str) else "image 3")
