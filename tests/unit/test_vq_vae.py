"""The small VQ-VAE as an image tokenizer."""

import pytest
import torch
from PIL import Image
from small_tokenizer import drawn, save_tokenizer, small_tokenizer

from ofa.errors import UserError
from ofa.io import tensor_files
from ofa.models.image_tokenizer.codec import (
    as_images,
    decode_images,
    encode_images,
    load_image_tokenizer,
)
from ofa.models.image_tokenizer.vq_vae import Codebook, VQVAEConfig, vq_vae_content


def test_eight_by_eight_pixels_become_one_code_and_come_back_as_an_image():
    tokenizer = small_tokenizer()
    codes = encode_images(tokenizer, [drawn(0), drawn(1)])
    assert (
        codes.dtype == torch.int64
        and codes.shape == (2, 8, 8)
        and 0 <= codes.min() <= codes.max() < 32
    )
    assert [image.size for image in decode_images(tokenizer, codes)] == [(64, 64), (64, 64)]


def test_images_need_not_be_square():
    tokenizer = small_tokenizer()
    codes = encode_images(tokenizer, [drawn(0).crop((0, 0, 48, 32))])
    assert codes.shape == (1, 4, 6) and decode_images(tokenizer, codes)[0].size == (48, 32)


def test_a_part_of_an_image_is_encoded_like_the_part_alone_away_from_its_border():
    tokenizer = small_tokenizer()
    whole = tokenizer.encoder(as_images([drawn(0, 128)]))
    part = tokenizer.encoder(as_images([drawn(0, 128).crop((0, 0, 64, 64))]))
    torch.testing.assert_close(whole[:, :, :5, :5], part[:, :, :5, :5])


def test_white_is_one_and_black_is_minus_one():
    assert as_images([Image.new("RGB", (8, 8), "white")]).unique().tolist() == [1.0]
    assert as_images([Image.new("RGB", (8, 8), "black")]).unique().tolist() == [-1.0]


def test_decoded_gray_levels_are_clamped_and_truncated(monkeypatch):
    tokenizer = small_tokenizer()
    values = (
        torch.tensor([-3.0, -0.999, 0.0, 3.0])
        .repeat_interleave(3)
        .view(1, 4, 3)
        .permute(0, 2, 1)[..., None]
    )
    monkeypatch.setattr(tokenizer, "decode", lambda codes: values)
    image = decode_images(tokenizer, torch.zeros(1, 1, 1, dtype=torch.int64))[0]
    assert [image.getpixel((0, y)) for y in range(4)] == [
        (0,) * 3,
        (0,) * 3,
        (127,) * 3,
        (255,) * 3,
    ]


@pytest.mark.parametrize("place", ["tokenizer.pt", ""])
def test_a_saved_tokenizer_gives_the_same_codes(tmp_path, place):
    save_tokenizer(tmp_path)
    loaded = load_image_tokenizer(tmp_path / place)
    assert not loaded.training and not any(
        parameter.requires_grad for parameter in loaded.parameters()
    )
    assert torch.equal(
        encode_images(loaded, [drawn(2)]), encode_images(small_tokenizer(), [drawn(2)])
    )


def test_codes_follow_what_is_near_and_dead_ones_move():
    torch.manual_seed(0)
    codebook = Codebook(16, 2)
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    generator = torch.Generator().manual_seed(1)
    for step in range(400):
        x = centers.repeat(25, 1) + 0.1 * torch.randn(100, 2, generator=generator)
        codebook.follow(x, codebook.nearest(x), generator)
        if not step:
            codebook.vectors[5] = codebook.sums[5] = 1000.0  # nothing is ever near to this one
    distances = torch.cdist(centers, codebook.vectors)
    assert (distances.min(1).values < 0.2).all(), "each center has a code"
    assert (distances.min(0).values < 1.0).all(), "no code is far from all images"


@pytest.mark.parametrize(
    "images, message",
    [
        (
            [drawn(0), drawn(0, 32)],
            "expected images of one size to encode together, found 2 sizes: 32 x 32, 64 x 64",
        ),
        ([drawn(0, 60)], "multiples of 8 pixels (one code each), found 60 x 60"),
    ],
)
def test_images_that_do_not_fit_have_one_message(images, message):
    with pytest.raises(UserError) as error:
        encode_images(small_tokenizer(), images)
    assert message in str(error.value)


@pytest.mark.parametrize("code", [32, -1])
def test_a_code_that_does_not_exist_is_named(code):
    with pytest.raises(UserError, match=f"expected image codes from 0 to 31, found {code}"):
        decode_images(small_tokenizer(), torch.full((1, 2, 2), code))


def test_what_is_no_tokenizer_has_one_message(tmp_path):
    with pytest.raises(
        UserError, match="expected an image tokenizer, found none; give tokenizer.pt"
    ):
        load_image_tokenizer(tmp_path)
    tensor_files.save({"model": {}}, tmp_path / "tokenizer.pt")
    with pytest.raises(UserError, match="expected an image tokenizer .* found an OFA checkpoint"):
        load_image_tokenizer(tmp_path)
    content = vq_vae_content(small_tokenizer())
    content["config"]["width"] = 16
    tensor_files.save(content, tmp_path / "tokenizer.pt")
    with pytest.raises(
        UserError, match="expected the weights of the tokenizer that its settings describe"
    ):
        load_image_tokenizer(tmp_path / "tokenizer.pt")
    with pytest.raises(UserError, match="num_codes 1: expected at least 2"):
        VQVAEConfig(num_codes=1)
