"""Figures of the eight tasks: right answers count, and the constant baseline stands beside
them."""

import pytest
from PIL import Image

from ofa.metrics.pretraining import (
    MEASURES,
    PredictedRow,
    average_images,
    masked_places,
    middle_of,
    score,
    score_pixels,
)
from ofa.tokens.boxes import text_to_objects


def predicted(
    target: str, said: str, source: str = "", references: tuple[str, ...] = ()
) -> PredictedRow:
    return PredictedRow(source, target, said, references or (target,))


def test_answers_are_right_or_wrong():
    found = score(
        "qa",
        [
            predicted("red", "red"),
            predicted("two", "red"),
            predicted("red", "blue"),
            predicted("red", "red"),
        ],
        ["red", "two", "two"],
    )
    assert (found.model, found.constant, found.answer, found.rows) == (0.5, 0.75, "red", 4)


def test_boxes_count_when_they_overlap_by_half():
    true = "<bin_0> <bin_0> <bin_10> <bin_10>"
    # 0.6, 0.4, none, 1
    said = ["<bin_0> <bin_0> <bin_10> <bin_6>", "<bin_0> <bin_0> <bin_10> <bin_4>", "a star", true]
    assert (
        score("visual_grounding", [predicted(true, one) for one in said], [said[1], true]).model
        == 0.5
    )


def test_objects_count_by_box_and_name_each_once():
    first, second = (
        "<bin_0> <bin_0> <bin_10> <bin_10> red star",
        "<bin_20> <bin_20> <bin_30> <bin_30> blue ring",
    )
    assert text_to_objects(f"{first} {second}") == [
        ([0, 0, 10, 10], "red star"),
        ([20, 20, 30, 30], "blue ring"),
    ]
    found = score(
        "detection",
        [predicted(f"{first} {second}", f"{first} {first} {second.replace('blue', 'red')}")],
        [first],
    )
    assert found.model == pytest.approx(2 * 1 / (3 + 2)) and found.constant == pytest.approx(
        2 * 1 / (1 + 2)
    )


def test_codes_count_by_their_place_and_the_constant_may_mix_images():
    rows = [
        predicted("<code_1> <code_2>", "<code_1> <code_3>"),
        predicted("<code_1> <code_4>", "<code_4> <code_1>"),
    ]
    found = score(
        "image_infilling", rows, ["<code_1> <code_9>", "<code_1> <code_2>", "<code_8> <code_2>"]
    )
    assert (found.model, found.constant) == (0.25, 0.75) and found.answer == "<code_1> <code_2>"


def test_of_a_text_only_the_masked_tokens_count():
    row = predicted("5 6 7 8 9", "5 6 1 8 9", source="5 <mask> 8 9")
    assert masked_places(row) == {1, 2}
    found = score("text_infilling", [row], ["7 7 7 6", "8"])
    assert (found.model, found.constant) == (0.5, 0.5)  # 6 of 6 7; the commonest word alone


def test_captions_are_scored_by_all_their_references():
    rows = [
        predicted(
            "", "a red star on tan paper", references=("a red star on tan paper", "a red star")
        ),
        predicted(
            "", "a blue ring at the top", references=("a blue ring at the top", "just a blue ring")
        ),
    ]
    found = score("caption", rows, ["a red star", "a green cross in the middle"])
    assert found.model > found.constant > 0 and found.answer == "a red star"


def test_of_a_region_every_phrase_that_fits_is_right():
    rows = [
        predicted(
            "the star",
            "the red shape",
            references=("the star", "the red shape", "the shape on the left"),
        ),
        predicted(
            "the ring",
            "the red shape",
            references=("the ring", "the blue shape", "the shape on the right"),
        ),
    ]
    found = score(
        "grounded_captioning", rows, ["the ring", "the shape on the left", "the large thing"]
    )
    (phrases,) = found.further
    assert (phrases.measure, phrases.model, phrases.constant) == ("fitting phrases", 0.5, 0.5)
    assert found.constant > 0 and found.further[0].answer in ("the ring", "the shape on the left")


def test_pixels_of_filled_images_are_compared_with_the_true_ones():
    grey = {level: Image.new("RGB", (4, 4), (level, level, level)) for level in (0, 10, 20, 40, 90)}
    averages = average_images([grey[0], grey[0], grey[90]])
    assert [image.getpixel((1, 1)) for image in averages.values()] == [(30, 30, 30), (0, 0, 0)]
    mean, rms = score_pixels(
        [grey[10], grey[20]],
        [grey[0], grey[40]],
        [grey[0], grey[20]],
        {"dark": grey[0], "light": grey[20]},
    )
    assert (mean.model, mean.reachable, mean.constant, mean.answer) == (
        15,
        10,
        20,
        "dark",
    ) and mean.lower_is_better
    assert (
        rms.model == pytest.approx(250**0.5)
        and (rms.constant, rms.answer) == (20, "light")
        and rms.rows == 2
    )


def test_the_middle_is_half_the_side():
    image = Image.new("RGB", (16, 16))
    image.paste((255, 255, 255), (4, 4, 12, 12))
    assert middle_of(image).size == (8, 8) and middle_of(image).getextrema() == ((255, 255),) * 3


def test_every_task_has_a_measure():
    from ofa.task.pretraining_tasks import TASKS

    assert list(MEASURES) == list(TASKS) or set(MEASURES) == set(TASKS)
