"""Batches of the caption task equal those of the release: keys, token ids, masks exactly, pixels to 1e-3."""

import numpy as np
import pytest
import torch
from conftest import bpe_folder
from golden import load, load_json, path

from ofa.bpe import load_language
from ofa.data.collate import collate
from ofa.data.sample import SampleBuilder
from ofa.data.tsv import TsvFile
from ofa.tasks.caption import SPEC

NAMES = ("dataset_caption", "dataset_caption_train", "dataset_caption_train_scst")


@pytest.fixture(scope="module")
def language():
    return load_language(bpe_folder("gpt2"))


def options_of(flags: list[str]):
    """Caption options from flags such as ``--max-src-length=80`` or ``--scst``."""
    options = SPEC.options()
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        default = getattr(options, name)
        setattr(options, name, True if not value else type(default)(value) if default is not None else value)
    return options


def make_batch(name: str, language):
    bpe, vocabulary = language
    info = load_json(name)["info"]
    options = options_of(info["flags"])
    builder = SampleBuilder(SPEC, options, vocabulary, bpe, info["split"])
    rows = TsvFile(path(info["tsv"]), options.selected_cols)
    return collate([builder(dict(zip(SPEC.columns, rows[i])), i) for i in range(len(rows))])


def flat(batch: dict) -> dict:
    """``net_input`` entries become ``net_input.NAME``."""
    entries = {key: value for key, value in batch.items() if key != "net_input"}
    return entries | {f"net_input.{key}": value for key, value in batch["net_input"].items()}


@pytest.mark.parametrize("name", NAMES)
def test_caption_batch_equals_the_released_one(name, language):
    batch = flat(make_batch(name, language))
    recorded, arrays = load_json(name)["batch"], load(name)
    described = (".symbols", ".text", ".dtype")
    assert set(batch) == {key for key in recorded if not key.endswith(described)}
    assert (
        batch["id"].tolist() == recorded["id"]["value"] and batch["id"].dtype == recorded["id"]["numpy_dtype"]
    )
    assert batch["nsentences"] == recorded["nsentences"] and batch["ntokens"] == recorded["ntokens"]
    for key in ("net_input.src_tokens", "net_input.src_lengths", "net_input.patch_masks",
                "net_input.prev_output_tokens", "target"):  # fmt: skip
        assert str(batch[key].dtype) == recorded[key]["dtype"]
        np.testing.assert_array_equal(batch[key].numpy(), arrays[key], err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_caption_images_equal_the_released_ones(name, language):
    images = make_batch(name, language)["net_input"]["patch_images"]
    arrays = load(name)
    recorded = load_json(name)["batch"]["net_input.patch_images"]
    assert images.dtype == torch.float32
    for image, expected in zip(images, recorded, strict=True):
        assert list(image.shape) == expected["shape"]
        assert image.mean().item() == pytest.approx(expected["mean"], abs=1e-3)
        assert image.std().item() == pytest.approx(expected["std"], abs=1e-3)
    side = images.shape[-1] // 8
    blocks = images.unflatten(3, (8, side)).unflatten(2, (8, side)).mean(dim=(3, 5))  # (B, 3, 8, 8)
    np.testing.assert_allclose(blocks, arrays["net_input.patch_images.grid8x8"], atol=1e-3)
    np.testing.assert_allclose(
        images[:, :, 8:24, 8:24], arrays["net_input.patch_images.crop_8_24"], atol=1e-3
    )


@pytest.mark.parametrize("name", NAMES)
def test_caption_targets_decode_to_the_recorded_text(name, language):
    bpe, vocabulary = language
    targets = make_batch(name, language)["target"]
    assert [bpe.decode(vocabulary.pieces(row)) for row in targets] == load_json(name)["batch"]["target.text"]
