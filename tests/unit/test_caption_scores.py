"""Scores that ``ofa evaluate`` reports for captions."""

import pytest

from ofa.errors import UserError
from ofa.metrics import character_tokenize, ptb_tokenize
from ofa.metrics.caption_scores import best_constant, caption_scores, tokenizer_of, validation_cider

REFERENCES = [
    ["A red ball.", "a red ball on grass"],
    ["Two dogs run.", "dogs running"],
    ["a cat", "the cat, asleep"],
    ["A red car parked.", "a car"],
]


@pytest.fixture(autouse=True)
def no_java(monkeypatch):
    """METEOR takes ten seconds to start; its numbers have tests of their own."""
    monkeypatch.setattr("shutil.which", lambda name: None)


def test_meteor_is_left_out_where_java_is_missing_unless_it_is_asked_for():
    assert "METEOR" not in caption_scores(["a"] * 4, REFERENCES).overall
    with pytest.raises(UserError, match="METEOR.*Java"):
        caption_scores(["a"] * 4, REFERENCES, ["METEOR"])


def test_a_perfect_answer_scores_more_than_any_constant_one():
    perfect = caption_scores([texts[0] for texts in REFERENCES], REFERENCES)
    caption, constant = best_constant([text for texts in REFERENCES for text in texts], REFERENCES)
    assert perfect.overall["BLEU-1"] == pytest.approx(1, abs=1e-6)
    assert perfect.overall["CIDEr"] > 2 * constant["CIDEr"] > 0
    assert caption == caption.lower()


def test_the_best_constant_is_the_best_of_all_candidates():
    candidates = [text for texts in REFERENCES for text in texts]
    _, found = best_constant(candidates, REFERENCES)
    for text in candidates:
        assert caption_scores([text] * 4, REFERENCES).overall["CIDEr"] <= found["CIDEr"] + 1e-9


def test_punctuation_and_case_do_not_change_the_scores():
    plain = caption_scores(["a red ball", "two dogs run", "a cat", "a car"], REFERENCES)
    noisy = caption_scores(["A red ball !", "Two dogs run.", "A cat,", "a  car"], REFERENCES)
    for name in ("CIDEr", "BLEU-4", "ROUGE-L"):
        assert plain.overall[name] == pytest.approx(noisy.overall[name])
        assert plain.by_row[name] == pytest.approx(noisy.by_row[name])


def test_validation_cider_is_that_of_validation():
    assert (
        validation_cider(["a red ball", "x", "y", "z"], REFERENCES)
        > validation_cider(["w", "x", "y", "z"], REFERENCES)
        == 0
    )


def test_chinese_is_split_into_characters():
    assert tokenizer_of([["一只猫"]]) is character_tokenize
    assert tokenizer_of(REFERENCES) is ptb_tokenize
    scores = caption_scores(["一只猫", "两只狗在跑"], [["一只黑猫"], ["两只狗在跑"]])
    assert 0 < scores.by_row["ROUGE-L"][0] < scores.by_row["ROUGE-L"][1]
    assert "METEOR" not in scores.overall
