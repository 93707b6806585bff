"""The best answer that looks at no image, for each task that scores."""

import pytest

from ofa.task.scoring import commonest_and_others
from ofa.tasks import caption, refcoco, vqa_gen


def test_the_commonest_lines_are_tried_and_some_of_the_others():
    lines = ["b"] * 5 + ["a"] * 9 + ["", "  "] + [f"rare {i}" for i in range(50)]
    tried = commonest_and_others(lines, 10)
    assert tried[:2] == ["a", "b"] and len(tried) == len(set(tried)) == 10
    assert commonest_and_others(["x", "x ", "y"], 10) == ["x", "y"]


def test_the_best_constant_answer_earns_its_share():
    accepted = [{"yes": 1.0}, {"yes": 0.6, "no": 1.0}, {"red": 1.0}, {"red": 1.0}]
    assert vqa_gen.SPEC.metrics.best_constant(["no", "yes", "red"], accepted) == (
        "red",
        {"vqa_score": 0.5},
    )


def test_the_best_constant_box_overlaps_most():
    true = [[0, 0, 10, 10], [0, 0, 10, 12], [30, 30, 40, 40]]
    box, scores = refcoco.SPEC.metrics.best_constant(["30,30,40,40", "0,0,10,11"], true)
    assert box == "0,0,10,11" and scores["score"] == pytest.approx(2 / 3)


def test_the_best_constant_caption_is_chosen_by_cider():
    references = [["a red cat", "the red cat"], ["a red cat", "one cat"], ["a blue dog", "the dog"]]
    text, scores = caption.SPEC.metrics.best_constant(
        ["a blue dog", "a red cat", "some boat"], references
    )
    assert text == "a red cat" and set(scores) == {"CIDEr", "BLEU-4"}
