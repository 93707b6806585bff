"""Batches of the caption task equal those of upstream: keys, token ids, masks exactly, pixels
to 1e-3."""

import pytest
from conftest import bpe_folder
from golden import load_json
from recorded_batches import assert_equals_recording, assert_images_equal_recording, recorded_batch

from ofa.tasks.caption import SPEC
from ofa.tokens.bpe import load_language

NAMES = ("dataset_caption", "dataset_caption_train", "dataset_caption_train_scst")


@pytest.fixture(scope="module")
def language():
    return load_language(bpe_folder("gpt2"))


@pytest.fixture(scope="module", params=NAMES)
def named_batch(request, language):
    return request.param, recorded_batch(SPEC, request.param, language)


def test_caption_batch_equals_upstream(named_batch):
    assert_equals_recording(named_batch[1], named_batch[0])


def test_caption_images_equal_upstream(named_batch):
    assert_images_equal_recording(named_batch[1]["net_input.patch_images"], named_batch[0])


def test_caption_targets_decode_to_the_recorded_text(named_batch, language):
    name, batch = named_batch
    bpe, vocabulary = language
    assert [bpe.decode(vocabulary.pieces(row)) for row in batch["target"]] == load_json(name)[
        "batch"
    ]["target.text"]
