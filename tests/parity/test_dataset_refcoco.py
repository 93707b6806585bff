"""Batches of the grounding task equal those of upstream: keys, token ids, ratios and boxes
exactly, pixels to 1e-3."""

import pytest
from conftest import bpe_folder
from recorded_batches import assert_equals_recording, assert_images_equal_recording, recorded_batch

from ofa.tasks.refcoco import SPEC
from ofa.tokens.bpe import load_language

NAME = "dataset_refcoco"


@pytest.fixture(scope="module")
def batch():
    return recorded_batch(SPEC, NAME, load_language(bpe_folder("gpt2")))


def test_a_grounding_batch_equals_upstream(batch):
    assert_equals_recording(batch, NAME)


def test_grounding_images_equal_upstream(batch):
    assert_images_equal_recording(batch["net_input.patch_images"], NAME)
