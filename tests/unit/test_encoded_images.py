"""JPEG files that their device decodes show it what data workers would have shown, but for
rounding; what else there is comes from the workers, bit for bit."""

import base64
import io
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from caption_files import make_language
from PIL import Image
from torchvision import io as torchvision_io

from ofa.data.collate import collate
from ofa.data.encoded_images import EncodedImages
from ofa.data.images import normalize_images
from ofa.data.sample import SampleBuilder
from ofa.errors import UserError
from ofa.inference.predictor import to_device
from ofa.io import images
from ofa.task.task_spec import Example
from ofa.tasks.caption import SPEC, CaptionOptions

SIDE = 48
LEVEL = 1 / 127.5  # one gray level, normalized


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return make_language(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Shapes and noise, as a camera sees them."""
    numbers = np.random.default_rng(1)
    shapes = Image.fromarray(numbers.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((120, 90), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + numbers.normal(0, 8, smooth.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def file_of(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def builder_of(language, on_device: bool, sends: bool = True) -> SampleBuilder:
    bpe, vocabulary = language
    options = CaptionOptions(patch_image_size=SIDE, decode_on_device=on_device)
    return SampleBuilder(SPEC, options, vocabulary, bpe, "train", for_device=sends)


def batch_of(builder: SampleBuilder, *files: bytes, **more: Any) -> dict[str, Any]:
    """Rows ``a.tsv:1``, ... of a caption and an image."""
    samples = []
    for number, file in enumerate(files):
        row = {"id": "1", "caption": "a cube", "image": base64.b64encode(file).decode()}
        samples.append(builder(row, number, where=f"a.tsv:{number + 1}", **more))
    return collate(samples, for_device=True)


def images_of(batch: dict[str, Any]) -> torch.Tensor:
    return normalize_images(batch)["net_input"]["patch_images"]


def both(language, *files: bytes) -> tuple[dict[str, Any], torch.Tensor]:
    """The batch with files, and the pixels of the one without."""
    sent = batch_of(builder_of(language, True), *files)
    return sent, images_of(batch_of(builder_of(language, False), *files))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 60}])
def test_pixels_differ_from_the_workers_by_rounding(language, photo, options):
    sent, expected = both(language, *[file_of(photo, **options)] * 2)
    assert isinstance(sent["net_input"]["patch_images"], EncodedImages)
    found = images_of(sent)
    difference = (found - expected).abs() / LEVEL
    assert found.shape == (2, 3, SIDE, SIDE) and found.dtype == torch.float32
    assert difference.max() < 1.01 and difference.mean() < 0.3


def test_gray_levels_become_three_colors(language, photo):
    sent, expected = both(language, file_of(photo.convert("L").resize((SIDE, SIDE))))
    assert isinstance(sent["net_input"]["patch_images"], EncodedImages)
    assert torch.equal(images_of(sent), expected)


def test_the_orientation_of_metadata_is_ignored_as_by_the_workers(language, photo):
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    sent, expected = both(language, file_of(photo.resize((SIDE, SIDE)), exif=exif))
    assert torch.equal(images_of(sent), expected)


def others(photo: Image.Image) -> dict[str, bytes]:
    jpeg = file_of(photo)
    return {
        "PNG": file_of(photo, "PNG"),
        "CMYK": file_of(photo.convert("CMYK")),
        "two images": file_of(photo, "MPO", save_all=True, append_images=[photo]),
        "more behind the end": jpeg + b"\0",
    }


def test_other_files_are_decoded_by_workers(language, photo, monkeypatch):
    for file in others(photo).values():
        sent, expected = both(language, file)
        assert sent["net_input"]["patch_images"].dtype == torch.uint8
        assert torch.equal(images_of(sent), expected)
    monkeypatch.setattr(images, "MAX_PIXELS_ON_DEVICE", 120 * 90 - 1)
    assert torch.is_tensor(both(language, file_of(photo))[0]["net_input"]["patch_images"])


def test_they_may_lie_in_one_batch(language, photo):
    sent, expected = both(language, file_of(photo), file_of(photo, "PNG"))
    found = images_of(sent)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], atol=1.01 * LEVEL, rtol=0)


def test_a_batch_moves_between_processes_and_to_a_device(language, photo):
    sent, _ = both(language, file_of(photo))
    received = pickle.loads(pickle.dumps(sent))
    found = to_device(received, torch.device("cpu"), torch.bfloat16)["net_input"]["patch_images"]
    assert torch.equal(found, images_of(sent).bfloat16())


def test_absurd_sizes_are_refused_by_the_header(language, photo):
    jpeg = file_of(photo)
    at = jpeg.index(b"\xff\xc0") + 5  # height and width
    bomb = jpeg[:at] + (50_000).to_bytes(2) * 2 + jpeg[at + 4 :]
    with pytest.raises(UserError, match="a.tsv:1: expects a whole image, found a far too large"):
        batch_of(builder_of(language, True), bomb)


def test_a_truncated_file_is_refused_where_it_is_read(language, photo):
    with pytest.raises(UserError, match="a.tsv:1: expects a whole image, found a truncated"):
        batch_of(builder_of(language, True), file_of(photo)[:-500])


def test_what_the_decoder_of_the_device_refuses_is_decoded_as_workers_do(
    language, photo, monkeypatch
):
    def refuse(*unused):
        raise RuntimeError("nvjpegDecode failed: 5")

    monkeypatch.setattr(torchvision_io, "decode_jpeg", refuse)
    jpeg = file_of(photo)
    sent, expected = both(language, jpeg, jpeg)
    torch.testing.assert_close(images_of(sent), expected, atol=1.01 * LEVEL, rtol=0)
    damaged = jpeg[:700] + jpeg[:2] + jpeg[-2:]
    sent = batch_of(builder_of(language, True), jpeg, damaged)
    with pytest.raises(UserError, match="a.tsv:2: expects a whole image"):
        images_of(sent)


def test_fillers_second_images_and_floats_stand_beside_files(language, photo):
    builder, plain = builder_of(language, True), builder_of(language, False)
    field = base64.b64encode(file_of(photo)).decode()
    opened, ready = builder.open_image(field, "a.tsv:1"), torch.full((3, SIDE, SIDE), 0.25)
    expected = plain.encode(Example(" a", " b", image=photo), None)["patch_image"] / 127.5 - 1

    def batch(*given) -> dict:
        examples = [Example(" a", " b", image=one, image_2=other) for one, other in given]
        return normalize_images(collate([builder.encode(one, None) for one in examples]))

    pair = batch((opened, opened))["net_input"]
    assert torch.equal(pair["patch_images"], pair["patch_images_2"])
    assert (pair["patch_images"][0] - expected).abs().mean() < 5 * LEVEL  # of JPEG
    filler = batch((None, None), (opened, None))["net_input"]
    assert not filler["patch_images"][0].any()
    assert torch.equal(filler["patch_images"][1:], pair["patch_images"])
    mixed = batch((ready, None), (opened, None))["net_input"]["patch_images"]
    assert torch.equal(mixed, torch.cat([ready[None], pair["patch_images"]]))


def test_a_task_may_look_at_the_image_and_change_it(language, photo):
    field = base64.b64encode(file_of(photo)).decode()
    opened = builder_of(language, True).open_image(field, "a.tsv:1")
    decoded = images.decode_image(field)
    assert (opened.size, opened.mode) == (decoded.size, "RGB")
    box = (10, 10, 60, 50)
    assert np.array_equal(np.asarray(opened.crop(box)), np.asarray(decoded.crop(box)))
    assert np.array_equal(np.asarray(opened), np.asarray(decoded))
    augmented = Example(" a", " b", image=opened, augment=True)
    changed = builder_of(language, True).encode(augmented, random.Random(1))["patch_image"]
    assert torch.is_tensor(changed)


def test_samples_that_go_to_no_device_are_decoded(language, photo):
    builders = [builder_of(language, on_device, sends=False) for on_device in (True, False)]
    one, other = (batch_of(builder, file_of(photo)) for builder in builders)
    assert torch.equal(one["net_input"]["patch_images"], other["net_input"]["patch_images"])
