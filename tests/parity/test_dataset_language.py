"""Batches of GLUE and of summaries, and their figures, equal those of upstream."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from conftest import bpe_folder
from golden import load, load_json, names
from recorded_batches import (
    assert_answers_equal_recording,
    assert_equals_recording,
    assert_texts_equal_recording,
    recorded_batch,
)

from ofa.data.sample import replaced
from ofa.metrics.rouge import NAMES, fix_tokens, scorer
from ofa.tasks import spec_of
from ofa.tasks.glue import SPECS
from ofa.tokens.bpe import load_language

GLUE = [name for spec in SPECS for name in names(f"dataset_{spec.name}_*")]
PLAIN = ["dataset_gigaword", "dataset_gigaword_short"]


@lru_cache(maxsize=1)
def language():
    return load_language(bpe_folder("gpt2"))


@lru_cache(maxsize=3)
def batch_of(name: str) -> dict:
    return recorded_batch(spec_of(name.split("_")[1]), name, language())


def test_every_prompt_type_of_every_task_is_recorded():
    assert len(GLUE) == 7 * 3


@pytest.mark.parametrize("name", GLUE)
def test_a_glue_batch_equals_upstream(name):
    batch = batch_of(name)
    assert_equals_recording(batch, name)
    assert_texts_equal_recording(batch, name, language())
    assert_answers_equal_recording(batch, name)


@pytest.mark.parametrize("name", PLAIN)
def test_a_summary_batch_equals_upstream(name):
    batch = batch_of(name)
    assert_equals_recording(batch, name)
    assert_texts_equal_recording(batch, name, language())
    assert batch["target_strs"].tolist() == load_json(name)["batch"]["target_strs"]["value"]


def test_the_noise_is_upstream_for_the_same_draws():
    arrays = load("dataset_gigaword_noise")
    draws = torch.Generator().manual_seed(77)
    for target, read in zip(arrays["target"], arrays["net_input.prev_output_tokens"]):
        tokens = torch.from_numpy(target)[: np.argmax(target == 2)]
        assert [0, *replaced(tokens, 0.5, 4, 50265, draws).tolist()] == read[
            : len(tokens) + 1
        ].tolist()


def test_a_noisy_batch_has_upstreams_source_and_target():
    batch, arrays = batch_of("dataset_gigaword_noise"), load("dataset_gigaword_noise")
    for key in ("net_input.src_tokens", "target"):
        np.testing.assert_array_equal(batch[key], arrays[key])
    read = batch["net_input.prev_output_tokens"][:, 1:]
    assert (read != batch["target"][:, :-1])[read != 1].any() and batch[
        "net_input.prev_output_tokens"
    ][:, 0].eq(0).all()


def test_rouge_equals_the_recorded_scores():
    for case in load_json("metrics_captions")["results"]["rouge"]:
        found = scorer(chinese=False).score(case["ref"], case["pred"])
        for name in NAMES:
            assert tuple(found[name]) == pytest.approx(case[name], abs=1e-6)


@pytest.mark.parametrize(
    "case",
    load_json("metrics_captions")["results"]["fix_tokenization"],
    ids=lambda case: case["text"],
)
def test_tokens_are_joined_as_in_upstream(case):
    assert fix_tokens(case["text"]) == case["out"]
