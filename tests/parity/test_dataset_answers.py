"""Batches of question answering, entailment and classes equal those of upstream: ids, masks
and prompts exactly."""

from functools import lru_cache

import pytest
from conftest import bpe_folder
from golden import load_json, names
from recorded_batches import (
    assert_answers_equal_recording,
    assert_equals_recording,
    assert_images_equal_recording,
    assert_texts_equal_recording,
    recorded_batch,
)

from ofa.task.prediction import Prediction
from ofa.tasks import image_classify, snli_ve, vqa_gen
from ofa.tokens.bpe import load_language

SPECS = {"vqa": vqa_gen.SPEC, "snli": snli_ve.SPEC, "image": image_classify.SPEC}
NAMES = [*names("dataset_vqa_gen*"), *names("dataset_snli_ve*"), "dataset_image_classify"]


@lru_cache(maxsize=1)
def language():
    return load_language(bpe_folder("gpt2"))


@lru_cache(maxsize=2)
def batch_of(name: str) -> dict:
    return recorded_batch(SPECS[name.split("_")[1]], name, language())


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_equals_upstream(name):
    batch = batch_of(name)
    assert_equals_recording(batch, name)
    assert_images_equal_recording(batch["net_input.patch_images"], name)


@pytest.mark.parametrize("name", NAMES)
def test_answers_prompts_and_masks_equal_upstream(name):
    batch, recorded = batch_of(name), load_json(name)["batch"]
    assert_answers_equal_recording(batch, name)
    if "decoder_prompts" in recorded:
        prompts = batch["decoder_prompts"]
        assert str(prompts.dtype) == recorded["decoder_prompts"]["numpy_dtype"]
        assert prompts.tolist() == recorded["decoder_prompts"]["value"]


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_those_of_upstream(name):
    batch, recorded = batch_of(name), load_json(name)["batch"]
    assert_texts_equal_recording(batch, name, language())
    assert (
        batch.get("conf", "absent") is None
        if "conf" in recorded and recorded["conf"] is None
        else True
    )


def test_soft_accuracy_gives_the_recorded_scores():
    recorded = load_json("metrics_captions")["results"]["vqa_score"]
    predictions = [Prediction(text) for text in recorded["hyps"]]
    found = vqa_gen.SPEC.metrics.final_scores(predictions, recorded["ref_dicts"], None)
    assert found.by_row["vqa_score"] == recorded["scores"]
    assert found.overall["vqa_score"] == pytest.approx(
        sum(recorded["scores"]) / len(recorded["scores"])
    )
