"""Batches of text recognition equal those of upstream: keys and token ids exactly, pixels to
1e-3."""

import random

import pytest
import torch
from conftest import bpe_folder
from golden import load_json, path
from recorded_batches import (
    assert_equals_recording,
    assert_images_equal_recording,
    options_of,
    recorded_batch,
)

from ofa.data.images import image_transform
from ofa.data.tsv import TsvFile
from ofa.io.images import decode_image
from ofa.tasks.ocr import SPEC, fit_square
from ofa.tokens.bpe import load_language

NAMES = {"dataset_ocr": "gpt2", "dataset_ocr_document": "gpt2", "dataset_ocr_cn": "bert_cn"}


@pytest.fixture(scope="module", params=NAMES)
def named_batch(request):
    return request.param, recorded_batch(
        SPEC, request.param, load_language(bpe_folder(NAMES[request.param]))
    )


def recorded_images(name: str, rng) -> torch.Tensor:
    """The images of a recording, float32[B, 3, S, S]."""
    info = load_json(name)["info"]
    options = options_of(SPEC, info["flags"])
    rows, transform = (
        TsvFile(path(info["tsv"]), options.selected_cols),
        image_transform(options.patch_image_size),
    )
    return torch.stack(
        [
            transform(
                fit_square(
                    decode_image(rows[row][1]), options.patch_image_size, options.is_document, rng
                )
            )
            for row in range(len(rows))
        ]
    )


def test_a_batch_of_texts_equals_upstream(named_batch):
    assert_equals_recording(named_batch[1], named_batch[0])


@pytest.mark.parametrize("name", NAMES)
def test_images_of_text_equal_upstream_where_chance_puts_them(name):
    """Upstream draws the place in the square from Python's generator, one row after the
    other."""
    assert_images_equal_recording(recorded_images(name, random.Random(77)), name)


def test_in_evaluation_they_lie_in_the_middle(named_batch):
    name, batch = named_batch
    assert torch.equal(batch["net_input.patch_images"], recorded_images(name, None))
