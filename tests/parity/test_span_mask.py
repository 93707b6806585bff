"""Masked texts equal the recorded ones for the same seeds; the beginnings of words are those of
upstream."""

import pytest
import torch
from conftest import bpe_folder
from golden import load, load_json

from ofa.data.pretraining import SpanMask
from ofa.errors import UserError
from ofa.tokens.bpe import load_language

RECORDED = load_json("dataset_unify_samples")["text_infilling"]


@pytest.fixture(scope="module")
def starts():
    return torch.from_numpy(load("whole_word_mask")["mask_whole_word"]).bool()


@pytest.mark.parametrize(
    "case",
    RECORDED,
    ids=lambda case: "-".join(
        str(case[key]) for key in ("mask_length", "replace_length", "random_ratio", "torch_seed")
    ),
)
def test_a_seed_masks_what_it_masked_in_upstream(case, starts):
    words = None if case["mask_length"] == "subword" else starts
    mask = SpanMask(
        50264,
        range(4, 50265),
        words,
        case["mask_ratio"],
        case["mask_length"],
        3.0,
        case["replace_length"],
        case["random_ratio"],
        case["keep_ratio"],
    )
    generator = torch.Generator().manual_seed(case["torch_seed"])
    assert mask(torch.tensor(case["input"]), generator).tolist() == case["output"]


def test_words_begin_where_they_begin_in_upstream(starts):
    bpe, vocabulary = load_language(bpe_folder("gpt2"))
    found = [bpe.is_beginning_of_word(symbol) for symbol in vocabulary.symbols]
    assert found[4:] == starts.tolist()[4:]  # specials are never in a text


def masked(tokens: list[int], seed: int = 0, **settings) -> list[int]:
    return SpanMask(99, range(4, 99), None, **settings)(
        torch.tensor([0, *tokens, 2]), torch.Generator().manual_seed(seed)
    ).tolist()


def test_kept_and_random_tokens_have_their_shares():
    text = list(range(10, 60)) * 20
    out = masked(text, ratio=0.5, length="word", replace=-1, random_ratio=0.2, keep_ratio=0.3)[1:-1]
    assert len(out) == len(text)
    hidden = sum(token == 99 for token in out) / len(text)
    changed = sum(token not in (99, before) for token, before in zip(out, text)) / len(text)
    assert hidden == pytest.approx(0.25, abs=0.05) and changed == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("text", [[], [5]])
def test_the_shortest_texts_can_be_masked(text):
    for seed in range(20):
        out = masked(text, seed)
        assert out[0] == 0 and out[-1] == 2 and set(out[1:-1]) <= {99, 5}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"length": "sentence"}, "--mask-length expects one of span-poisson, word, subword"),
        ({"replace": 2}, "--replace-length"),
        ({"ratio": 1.5}, "--mask-ratio"),
        ({"random_ratio": 0.6, "keep_ratio": 0.6}, "at most 1 together"),
        ({"poisson": 0.0}, "--poisson-lambda"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        masked([5, 6], **settings)
