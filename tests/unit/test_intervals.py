"""How sure a figure is, and the difference between two models on the same rows."""

import math

import numpy as np
import pytest

from ofa.inference.options import EvaluationOptions
from ofa.metrics.accuracy import Accuracy, ClassFigures
from ofa.task.intervals import (
    interval_of_mean,
    intervals_of_counts,
    intervals_of_means,
    paired_difference,
)
from ofa.task.prediction import Prediction

RIGHT = [1.0] * 60 + [0.0] * 40


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    low, high = interval_of_mean(RIGHT)
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100)
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.02)
    assert interval_of_mean(RIGHT) == (low, high)  # the same draws every time


def test_a_figure_that_is_no_mean_is_computed_of_resampled_counts():
    metrics = ClassFigures(second="F1")
    predictions = [Prediction("yes" if row % 3 else "no") for row in range(90)]
    scores = metrics.final_scores(predictions, [{"yes": 1.0}] * 45 + [{"no": 1.0}] * 45)
    found = metrics.intervals(scores)
    assert found.keys() == {"acc", "F1"}
    for name, (low, high) in found.items():
        assert low < scores.overall[name] < high
    ratio = [{"hits": hit, "rows": 1.0} for hit in RIGHT]
    of_mean = interval_of_mean(RIGHT)
    figures = {"hits": lambda sums: sums["hits"] / sums["rows"]}
    assert intervals_of_counts(ratio, figures) == {"hits": of_mean}


def test_columns_are_resampled_together_as_each_alone():
    columns = {"acc": RIGHT, "wrong": [1 - one for one in RIGHT]}
    alone = {name: interval_of_mean(values) for name, values in columns.items()}
    assert intervals_of_means(columns) == alone and intervals_of_means({}) == {}


def test_a_paired_difference_is_surer_than_two_intervals():
    hard = np.random.default_rng(1).random(200)  # of both models
    ours, theirs = (hard + 0.02).tolist(), hard.tolist()
    mean, (low, high) = paired_difference(ours, theirs)
    assert mean == pytest.approx(0.02) and 0 < low <= high
    assert interval_of_mean(ours)[0] < interval_of_mean(theirs)[1]


def test_rows_without_a_score_are_in_no_difference():
    assert paired_difference([1.0, math.nan, 0.0], [0.0, 1.0, 0.0])[0] == 0.5
    assert paired_difference([1.0], [1.0, 0.0]) is None
    assert paired_difference([math.nan], [1.0]) is None


def test_no_rows_have_no_interval():
    metrics = Accuracy()
    assert metrics.intervals(metrics.final_scores([], [])) == {}


@pytest.mark.parametrize(
    "data, given, subset",
    [
        ("data/caption_val.tsv", None, "val"),
        ("refcoco_testA.tsv", None, "testA"),
        ("a.tsv,data/vqa_dev.tsv", None, "dev"),
        ("refcoco_testB-{000000..000003}.tar", None, "testB"),
        ("glue/mnli_dev_matched.tsv", None, "dev_matched"),
        ("glue/mnli_dev_mismatched.tsv", None, "dev_mismatched"),
        ("glue/mnli_test_mismatched.tsv", None, "test_mismatched"),
        ("matched.tsv", None, "test"),
        ("my_rows.tsv", None, "test"),
        ("contest.tsv", None, "test"),
        (None, None, "test"),
        ("caption_val.tsv", "test", "test"),
    ],
)
def test_rows_are_named_as_their_file_unless_a_name_is_given(data, given, subset):
    assert EvaluationOptions(checkpoint="a.pt", data=data, gen_subset=given).subset == subset
    folder = {"images": "photos", "gen_subset": given}
    assert EvaluationOptions(checkpoint="a.pt", **folder).subset == (given or "images")
