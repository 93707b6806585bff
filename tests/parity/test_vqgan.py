"""The VQGAN of upstream: names and shapes of all weights, codes and images as recorded."""

import golden
import numpy as np
import pytest
import torch
from fill import fill_state_dict

from ofa.models.image_tokenizer.codec import decode_images, encode_images, to_unit
from ofa.models.image_tokenizer.vqgan import VQGAN, config_of
from ofa.tokens.image_codes import codes_to_text

NAMES = golden.load_json("vqgan_state_dict")["variants"]
SMALL = golden.load("vqgan_small")
MODELS = SMALL["meta"]["models"]
IMAGES = ("sq", "wide")


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_its_name_place_and_shape(name):
    variant = NAMES[name]
    config = config_of(
        {"model": {"target": f"somewhere.{variant['class']}", "params": variant["params"]}}, name
    )
    with torch.device("meta"):
        tokenizer = VQGAN(config)
    found = [[key, list(value.shape)] for key, value in tokenizer.state_dict().items()]
    assert found == [key[:2] for key in variant["keys"]]
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) == variant["n_params"]
    assert tokenizer.factor == variant["downscale"]


@pytest.fixture(scope="module", params=MODELS)
def recorded(request) -> tuple[str, VQGAN]:
    """A small network with the recorded weights."""
    model = MODELS[request.param]
    config = config_of({"target": model["class"], "params": model}, request.param)
    tokenizer = VQGAN(config).eval().requires_grad_(False)
    fill_state_dict(tokenizer.state_dict(), SMALL["meta"]["seed"], name_scale=model["name_scale"])
    return request.param, tokenizer


def images(key: str) -> torch.Tensor:
    return to_unit(torch.from_numpy(SMALL[f"images/{key}"]))


@pytest.mark.parametrize("key", IMAGES)
def test_codes_are_the_recorded_ones(recorded, key):
    name, tokenizer = recorded
    x = tokenizer.encoder(images(key))
    np.testing.assert_allclose(x, SMALL[f"{name}/{key}/encoder_out"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(
        tokenizer.quant_conv(x), SMALL[f"{name}/{key}/prequant"], rtol=0, atol=2e-4
    )
    np.testing.assert_array_equal(tokenizer.encode(images(key)), SMALL[f"{name}/{key}/codes"])


@pytest.mark.parametrize("key", IMAGES)
def test_images_of_codes_are_the_recorded_ones(recorded, key):
    name, tokenizer = recorded
    codes = torch.from_numpy(SMALL[f"{name}/{key}/codes"])
    np.testing.assert_allclose(
        tokenizer.reconstruct(codes), SMALL[f"{name}/{key}/decoded"], rtol=0, atol=2e-4
    )


def test_given_codes_become_the_recorded_gray_levels(recorded):
    name, tokenizer = recorded
    codes = torch.from_numpy(SMALL["codes_given/given"])
    np.testing.assert_allclose(
        tokenizer.reconstruct(codes), SMALL[f"{name}/given/decoded"], rtol=0, atol=2e-4
    )
    found = np.stack([np.asarray(image) for image in decode_images(tokenizer, codes)]).transpose(
        0, 3, 1, 2
    )
    assert abs(found.astype(int) - SMALL[f"{name}/given/decoded_u8"]).max() <= 1


def test_files_of_images_give_the_recorded_codes_row_by_row(recorded):
    from PIL import Image

    name, tokenizer = recorded
    image = Image.fromarray(SMALL["images/wide"][0].transpose(1, 2, 0))
    codes = encode_images(tokenizer, [image])
    assert codes_to_text(codes) == " ".join(map(str, SMALL[f"{name}/wide/codes"][0].flatten()))


def test_drawn_codes_follow_upstream(recorded):
    """Informative in the recording: torch's random numbers on a CPU."""
    name, tokenizer = recorded
    tokenizer.generator = torch.Generator().manual_seed(
        SMALL["meta"]["torch_manual_seed_for_sampled"]
    )
    try:
        drawn = tokenizer.encode(images("sq")).numpy()
    finally:
        tokenizer.generator = None
    if name == "gumbel":
        assert (drawn == SMALL["gumbel/sq/codes_sampled_seed"]).mean() > 0.9
        assert (drawn != SMALL["gumbel/sq/codes"]).mean() > 0.5
    else:
        np.testing.assert_array_equal(drawn, SMALL["vq/sq/codes"])
