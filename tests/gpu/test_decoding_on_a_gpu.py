"""JPEG images that a real GPU decodes and resizes, compared with those of data workers."""

import base64
import io

import pytest
import torch
from PIL import Image

from ofa.data.encoded_images import EncodedImage, EncodedImages
from ofa.data.images import pixels_of, squashed
from ofa.io.images import decode_image, open_undecoded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
SIDE = 96


def field(gray: bool) -> str:
    """A smooth image of 256 x 256 pixels."""
    parts = Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256), 90)
    file = io.BytesIO()
    (parts[1] if gray else Image.merge("RGB", parts)).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


def test_pixels_differ_by_a_gray_level_or_two():
    fields = [field(gray) for gray in (False, True, False)]
    expected = torch.stack([pixels_of(squashed(decode_image(one), SIDE)) for one in fields])
    files = EncodedImages.join([EncodedImage(open_undecoded(one), SIDE) for one in fields])
    found = files.pixels(torch.device("cuda"))
    assert found.is_cuda and found.dtype == torch.uint8
    difference = (found.cpu().float() - expected.float()).abs()
    assert difference.mean() < 1 and difference.max() <= 8
