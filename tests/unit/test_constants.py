"""The best answer that looks at no image, for each task that scores."""

import numpy as np
import pytest

from ofa.metrics.accuracy import Accuracy, ClassFigures
from ofa.metrics.detection import BoxAccuracy
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


def scored_one_by_one(metrics, lines, references):
    """The first line whose leading score is the best, each of them scored on all rows."""
    scores = [
        metrics.final_scores([metrics.constant(line)] * len(references), references).overall
        for line in lines
    ]
    leading = [next(iter(some.values())) for some in scores]
    best = leading.index(max(leading))
    return lines[best], scores[best]


def test_one_pass_finds_the_answer_that_scoring_each_finds():
    random = np.random.default_rng(0)
    lines, credits = ["no", "yes", "red", "blue"], [0.0, 0.25, 0.5, 1.0]
    soft = [dict(zip(lines, random.choice(credits, 4).tolist())) for _ in range(50)]
    texts = [random.choice(lines, 2).tolist() for _ in range(50)]  # some of them twice the same
    for metrics in (Accuracy(), Accuracy(top=("acc2", 2)), ClassFigures(second="F1")):
        for references in (soft, texts, [*soft, *texts]):
            expected = scored_one_by_one(metrics, lines, references)
            assert metrics.best_constant(lines, references) == expected
    unknown = ["purple", "green"]
    assert Accuracy().best_constant(unknown, soft) == ("purple", {"acc": 0.0})


def test_all_rows_at_once_find_the_box_that_scoring_each_finds():
    random = np.random.default_rng(0)
    corners = random.integers(0, 30, (60, 2))
    boxes = np.concatenate([corners, corners + random.integers(20, 60, (60, 2))], 1)
    metrics, references = BoxAccuracy(), boxes.astype(float).tolist()
    lines = metrics.constants(references)
    expected = scored_one_by_one(metrics, lines, references)
    assert metrics.best_constant(lines, references) == expected and expected[1]["score"] > 0.1


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
