"""Batches of text to image equal those of upstream: keys, token ids, masks, the images that
stand for none."""

import pytest
from conftest import bpe_folder
from golden import load_json, path
from recorded_batches import assert_equals_recording

from ofa.data.collate import collate
from ofa.data.fairseq_dataset import OFADataset
from ofa.data.sample import SampleBuilder
from ofa.data.tsv import TsvFile
from ofa.tasks.image_gen import SPEC
from ofa.tokens.bpe import load_language


@pytest.fixture(scope="module")
def language():
    return load_language(bpe_folder("gpt2"))


@pytest.mark.parametrize("name", ["dataset_image_gen", "dataset_image_gen_2col"])
def test_a_batch_of_text_to_image_equals_upstream(name, language):
    bpe, vocabulary = language
    info = load_json(name)["info"]
    given = info["constructor"]
    options = SPEC.options(**given)
    file = TsvFile(path(info["tsv"]), given["selected_cols"])
    dataset = OFADataset(
        file, SampleBuilder(SPEC, options, vocabulary, bpe, info.get("split", "valid"))
    )
    batch = collate([dataset[row] for row in range(len(dataset))])
    batch = {
        **{f"net_input.{key}": value for key, value in batch.pop("net_input").items()},
        **batch,
    }
    images = batch["code_images"]
    assert images.dtype.kind == "S" and [len(one) for one in images] == [
        one["n"] for one in load_json(name)["batch"]["code_images"]
    ]
    assert_equals_recording(batch, name)
