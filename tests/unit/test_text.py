"""String rules of captions, questions, objects and answers."""

import pytest
import torch

from ofa.errors import UserError
from ofa.task.text import (
    caption_references,
    caption_target,
    clean_phrase,
    clean_question,
    parse_answers,
    remove_punctuation,
    split_objects,
    truncate_words,
)


def test_only_ascii_punctuation_is_removed():
    assert (
        remove_punctuation(" Fox -- jumps, 'high'! 图片，描述。café… ")
        == "Fox  jumps high 图片，描述。café…"
    )


def test_captions_are_cut_after_punctuation_is_removed():
    assert caption_target("A - dog, a   cat.", max_words=3) == "A dog a"
    assert caption_target("A dog.&&A cat.") == "A dogA cat"
    assert caption_target("A dog, a cat.", max_words=2, keep_punctuation=True) == "A dog,"


def test_references_of_an_image_are_cleaned_but_never_cut():
    field = "A man rides,  near\ta car.&&Someone -- cycling!"
    assert caption_references(field) == ["A man rides near a car", "Someone  cycling"]
    assert caption_references(field, keep_punctuation=True) == [
        "A man rides, near a car.",
        "Someone -- cycling!",
    ]


def test_questions_lose_leading_marks_hyphens_and_double_spaces():
    assert clean_question("What color is the   Man's shirt") == "what color is the man's shirt"
    assert (
        clean_question("?!,How many dogs/cats are well-lit??\n")
        == "how many dogs cats are well lit??"
    )
    assert clean_question("one two three", max_words=2) == "one two"


def test_phrases_name_persons_without_brackets():
    assert clean_phrase("<person> in red/white") == "person in red white"
    assert clean_phrase("The LEFT-most dog, lying down") == "the left most dog, lying down"


def test_words_are_cut_at_any_space():
    assert truncate_words(" a\tb\r c  d ", 3) == "a b c"
    assert truncate_words(" a  b ", None) == "a b"


def test_objects_are_split():
    assert split_objects("person&&shirt&& car&&", 2) == ["person", "shirt"]
    assert split_objects("") == []


def test_answers_carry_confidences():
    assert parse_answers("0.6|!+yes&&1.0|!+red and white") == {"yes": 0.6, "red and white": 1.0}
    assert parse_answers("yes") == {"yes": 1.0}


def test_broken_confidence_is_named_with_its_row():
    with pytest.raises(UserError, match="a.tsv:4: expects answers"):
        parse_answers("high|!+yes", "a.tsv:4")


@pytest.mark.parametrize(
    "confidence",
    [
        "1e39",
        "1e400",
        "inf",
        "Infinity",
        "nan",
        "-nan",
        "-0.1",
        "1_0",
        "１",
        "٣",
        "0x1",
        "9" * 5000,
        "1e",
        "",
        " ",
        "high",
        "0.6|!+yes",
    ],
)
def test_a_confidence_that_is_no_finite_number_is_refused_with_its_row(confidence):
    with pytest.raises(
        UserError, match=r"^vqa.tsv:7: expects answers 'confidence\|!\+answer' joined by &&, found "
    ):
        parse_answers(f"0.5|!+no&&{confidence}|!+yes", "vqa.tsv:7")


@pytest.mark.parametrize("confidence", ["3.4e38", "0", "1e-99", "7", ".5", " 0.6 "])
def test_a_finite_confidence_stays_finite_in_a_batch(confidence):
    assert torch.tensor(list(parse_answers(f"{confidence}|!+yes").values())).isfinite().all()
