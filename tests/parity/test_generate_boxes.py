"""Boxes of exactly four bins beside what upstream's generator found with its bins unrestricted or
in a range.

Restricting to bins leaves probabilities alone: a box keeps the score it has without the
restriction. Where upstream's search answers with a box the answer stays; where it answers with
something else, it becomes the likeliest box found.
"""

from argparse import Namespace

import numpy as np
import pytest
from golden import FULL, load
from test_generate import VOCAB_SIZE, batch_of, generator_of, models_of

from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions

BINS = (58457, 59457)


@pytest.fixture(scope="module")
def boxes():
    """The recorded case without renormalization, and what is found when only bins are allowed."""
    case = load("generate_refcoco_range_zero_shot")
    models = models_of(case["meta"])
    options = GenerationOptions.from_namespace(
        Namespace(**case["meta"]["gen_args"]), only_range=BINS
    )
    return case, SequenceGenerator(models, options, VOCAB_SIZE).generate(models, batch_of(case))


def test_every_hypothesis_is_four_bins(boxes):
    _, found = boxes
    for best in found:
        assert len(best) == 5
        for hypothesis in best:
            assert len(hypothesis["tokens"]) == 5
            assert (
                hypothesis["tokens"][:4].min() >= BINS[0]
                and hypothesis["tokens"][:4].max() < BINS[1]
            )


def test_the_best_box_is_upstream_or_a_likelier_one(boxes):
    case, found = boxes
    same = 0
    for row, best in enumerate(found):
        ours = {
            tuple(hypothesis["tokens"].tolist()): hypothesis["score"].item() for hypothesis in best
        }
        upstream = {}
        for tokens, score in zip(case["out_tokens"][row], case["out_scores"][row]):
            tokens = tuple(int(token) for token in tokens if token >= 0)
            if len(tokens) == 5 and all(BINS[0] <= token < BINS[1] for token in tokens[:4]):
                upstream[tokens] = score
        assert max(ours.values()) >= max(upstream.values()) - 1e-3
        for tokens in ours.keys() & upstream.keys():
            assert ours[tokens] == pytest.approx(upstream[tokens], abs=1e-3)
        first = tuple(int(token) for token in case["out_tokens"][row, 0])
        if first in upstream:  # upstream's answer is a box: then it is ours
            same += 1
            assert next(iter(ours)) == first
    assert same == 3 or FULL, "the recording beside these tests holds boxes to compare with"


def test_a_restriction_on_top_of_a_range_is_the_same_as_alone(boxes):
    case, found = boxes
    generator = generator_of(case["meta"], models_of(case["meta"]))
    generator.options.only_range = BINS
    for one, other in zip(found, generator.generate(None, batch_of(case))):
        assert [hypothesis["tokens"].tolist() for hypothesis in one] == [
            hypothesis["tokens"].tolist() for hypothesis in other
        ]
        np.testing.assert_allclose(
            [h["score"].item() for h in one], [h["score"].item() for h in other], atol=1e-4
        )
