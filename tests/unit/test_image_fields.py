"""Image fields: base64, every mode of PIL, damaged images, the transform."""

import base64
import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.data.images import IMAGENET_MEAN, IMAGENET_STD, image_transform
from ofa.errors import UserError
from ofa.io.images import decode_base64, decode_image, encode_image, open_image, to_rgb

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def image_bytes(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(**options) -> bytes:
    return image_bytes(Image.fromarray(NOISE), "JPEG", **options)


# base64


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_both_alphabets_are_read_with_and_without_padding(encode, cut):
    data = bytes(range(256))[cut:] + b"\xfb\xff\xfe"
    field = encode(data)
    assert (
        decode_base64(field)
        == decode_base64(field.decode())
        == decode_base64(field.rstrip(b"="))
        == data
    )


def test_encoded_images_come_back():
    assert np.array_equal(decode_image(encode_image(image_bytes(Image.fromarray(NOISE)))), NOISE)


@pytest.mark.parametrize(
    ("field", "finding"),
    [
        (
            str(base64.b64encode(b"x" * 20)),
            r"Python's notation of bytes; write b64encode\(data\).decode\(\)",
        ),
        ("data:image/png;base64,iVBO", "a data URL; keep only what follows its comma"),
        ('"iVBORw0KGgo"', "a quoted field; write the TSV without quoting"),
        ("images/0001.jpg", "a path or a sentence; is --selected-cols right"),
        ("A man rides a wave.", "a path or a sentence"),
        ("iVBORw0KG" * 101, r"was the field cut off"),
        ("iVBO!w0K" * 100, r"was the field cut off"),
        ("图片" * 10, r"was the field cut off"),
        ("", "an empty field"),
    ],
)
def test_what_is_no_base64_is_named_with_row_and_remedy(field, finding):
    with pytest.raises(
        UserError, match="^a.tsv:7: expects an image file in base64, found .*" + finding
    ):
        decode_image(field, "a.tsv:7")


# modes


def make_image(mode: str) -> Image.Image:
    return Image.fromarray(NOISE).convert(mode)


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "PA", "RGBX"]
)
def test_modes_become_rgb_as_pil_converts_them(mode):
    image = make_image("L").convert(mode) if mode in ("LA", "PA") else make_image(mode)
    assert np.array_equal(to_rgb(image), image.convert("RGB"))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("P", "GIF"),
        ("RGB", "WEBP"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGB", "BMP"),
        ("CMYK", "TIFF"),
    ],
)
def test_files_of_each_mode_are_read(mode, kind):
    data = image_bytes(make_image(mode), kind)
    assert np.array_equal(open_image(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_transparency_is_dropped_not_blended_and_without_a_warning():
    rgba = np.dstack([NOISE, np.zeros(NOISE.shape[:2], np.uint8)])
    assert np.array_equal(open_image(image_bytes(Image.fromarray(rgba))), NOISE)
    palette = make_image("P")
    data = image_bytes(palette, transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(open_image(data), palette.convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_scaled_not_clipped(kind):
    grey = np.array([[0, 128, 129, 257, 30000, 65535]], dtype=np.uint16)
    scaled = np.asarray(open_image(image_bytes(Image.fromarray(grey), kind)))
    assert scaled[0].tolist() == [[level] * 3 for level in (0, 0, 1, 1, 117, 255)]


def test_float_gray_is_scaled_by_its_range():
    levels = [
        np.asarray(to_rgb(Image.fromarray(np.array([row], np.float32))))[0, :, 0].tolist()
        for row in ([0, 0.5, 1], [0, 100, 255], [0, 257, 65535])
    ]
    assert levels == [[0, 128, 255], [0, 100, 255], [0, 1, 255]]


@pytest.mark.parametrize("mode", ["La", "RGBa", "LAB", "I;16B"])
def test_rare_modes_are_read(mode):
    assert to_rgb(Image.new(mode, (2, 2))).mode == "RGB"


# EXIF


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def test_orientation_is_left_alone_unless_asked_for():
    data = jpeg(exif=exif(6))
    assert open_image(data).size == (32, 24)
    assert open_image(data, upright=True).size == (24, 32)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize(
    "tags",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*" + b"\xff" * 40,
        b"Exif\0\0rubbish",
    ],
)
def test_broken_exif_data_never_matters(tags, upright):
    whole = jpeg()
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + whole[2:]
    assert np.array_equal(open_image(data, upright=upright), open_image(whole))


# damaged images


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_image_is_refused_with_row_and_remedy(kind, share):
    options = {"progressive": True} if "progressive" in kind else {}
    data = image_bytes(Image.fromarray(NOISE), kind.split()[-1], **options)
    with pytest.raises(UserError, match="^a.tsv:7: expects a whole image, found .*; (export|make)"):
        decode_image(base64.b64encode(data[: int(len(data) * share)]), "a.tsv:7")


def test_damaged_bytes_never_raise_anything_but_a_user_error():
    random = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        data = image_bytes(Image.fromarray(NOISE), kind)
        for _ in range(60):
            damaged = bytearray(data)
            for place in random.integers(0, len(data), 4):
                damaged[place] = random.integers(256)
            try:
                assert open_image(bytes(damaged)).mode == "RGB"
            except UserError:
                pass


def test_bytes_that_are_no_image_are_refused():
    with pytest.raises(
        UserError, match="a.tsv:7: expects a whole image, found 11 bytes that are none.*b'not a pi"
    ):
        decode_image(base64.b64encode(b"not a pictu"), "a.tsv:7")


def test_absurdly_large_images_are_refused_before_they_are_unpacked(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # another library may lift PIL's own limit
    data = bytearray(image_bytes(Image.new("1", (8, 8))))
    # width and height of the header, then its checksum
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    with pytest.raises(UserError, match="a.tsv:7: .*far too large one .*60000 x 60000"):
        decode_image(base64.b64encode(data), "a.tsv:7")


# transform


def test_images_are_squashed_to_a_square_and_normalized():
    image = Image.fromarray(NOISE)
    tensor = image_transform(16)(image)
    expected = (
        np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC), dtype=np.float32) / 255 * 2 - 1
    )
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), expected.transpose(2, 0, 1), atol=1e-6)


def test_transform_takes_other_means_and_travels_to_workers():
    transform = pickle.loads(pickle.dumps(image_transform(8, IMAGENET_MEAN, IMAGENET_STD)))
    grey = transform(Image.new("RGB", (30, 20), (255, 255, 255)))
    expected = (1 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(grey[:, 0, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_very_thin_images_are_transformed(size):
    assert image_transform(16)(Image.new("RGB", size)).shape == (3, 16, 16)
