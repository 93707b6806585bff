"""Answers are texts that know their scores; regions know themselves in pixels, parts and bins."""

import copy
import json
import math
import pickle

import pytest

from ofa.inference.predictions import Answer, answer_of, region_of
from ofa.task.prediction import Prediction

BOX = Prediction("<bin_0> <bin_1> <bin_2> <bin_3>", -0.5, (0.0, 10.0, 32.0, 24.0), (0, 1, 2, 3))


def test_an_answer_is_a_text():
    answer = answer_of(Prediction("a cat", -0.5, others=[Prediction("a dog", -1.0)]), (64, 48))
    assert answer == "a cat" and f"{answer}!" == "a cat!" and answer.score == -0.5
    assert answer.probability == pytest.approx(math.exp(-0.5)) and answer.others == ["a dog"]
    for same in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert same == answer and same.score == -0.5 and same.others[0].score == -1.0


def test_a_region_in_pixels_parts_and_bins():
    region = region_of(Prediction("", -0.5, BOX.box, BOX.bins, others=[BOX]), (64, 48))
    assert region.box == BOX.box and region.bins == (0, 1, 2, 3)
    assert region.normalised == pytest.approx((0, 10 / 48, 0.5, 0.5), abs=1e-6)
    plain = json.loads(json.dumps(region.as_json()))
    assert plain["box"] == {
        "pixels": [0, 10, 32, 24],
        "normalised": list(region.normalised),
        "bins": [0, 1, 2, 3],
    }
    assert plain["score"] == -0.5 and len(plain["others"]) == 1


def test_an_answer_may_name_a_region():
    answer = answer_of(BOX, (64, 48))
    assert answer.region.box == BOX.box and answer.as_json()["box"]["bins"] == [0, 1, 2, 3]


def test_plain_data_has_no_nan():
    assert Answer("x").as_json() == {"answer": "x", "score": None}
