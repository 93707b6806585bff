"""Sampled captions as batches, baselines, rewards, and what the criterion makes of them with
models that know nothing of OFA."""

import logging
import re

import numpy as np
import pytest
import torch

from ofa.criterions import losses
from ofa.criterions.caption_reward import CaptionReward, RewardMonitor
from ofa.errors import UserError
from ofa.metrics import Bleu, CiderD
from ofa.metrics.document_frequency import count_document_frequencies, write_document_frequencies

NAN = float("nan")
REFERENCES = ["a red cube on a table", "a green cube", "a cube on a red table", "a green table"]


@pytest.fixture
def frequencies(tmp_path):
    path = tmp_path / "words.p"
    write_document_frequencies(
        path, count_document_frequencies([f"{text} <eos>"] for text in REFERENCES)
    )
    return str(path)


# ---------------------------------------------------------------- pure functions


def test_samples_become_padded_targets_and_shifted_inputs():
    one, two = torch.tensor([5, 6, 2]), torch.tensor([7, 2])
    target, previous = losses.batch_of_samples([[one, two], [two]], bos=0, pad=1)
    assert target.tolist() == [[[5, 6, 2], [7, 2, 1]], [[7, 2, 1], [1, 1, 1]]]
    assert previous.tolist() == [[[0, 5, 6], [0, 7, 1]], [[0, 7, 1], [0, 1, 1]]]


def test_a_sample_is_compared_with_the_mean_of_the_others():
    scores = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]], dtype=torch.float64)
    assert losses.leave_one_out(scores).tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]


def test_missing_and_not_finite_scores_earn_nothing_and_change_no_other():
    scores = torch.tensor(
        [[1.0, NAN, 3.0], [5.0, NAN, NAN], [2.0, float("inf"), 4.0]], dtype=torch.float64
    )
    assert losses.leave_one_out(scores).tolist() == [
        [-2.0, 0.0, 2.0],
        [0.0, 0.0, 0.0],
        [-2.0, 0.0, 2.0],
    ]
    assert losses.better_than(scores, torch.tensor([2.0, 1.0, 0.0])).tolist() == [
        [-1, 0, 1],
        [4, 0, 0],
        [2, 0, 4],
    ]


def test_divergence_from_another_prediction_is_that_of_torch():
    torch.manual_seed(0)
    p, q = torch.randn(2, 4, 9).log_softmax(-1).unbind()
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(losses.kl_to_reference(p, q), expected)
    forbidden = torch.arange(9) < 5
    p, q = (x.masked_fill(forbidden, -torch.inf).log_softmax(-1) for x in (p, q))
    assert (
        losses.kl_to_reference(p, q).isfinite().all()
        and losses.kl_to_reference(p, p).abs().max() == 0
    )


# ---------------------------------------------------------------- rewards


def test_the_reward_mixes_cider_with_bleu(frequencies):
    captions, images = ["A red cube.", "a green cube"], [0, 1]
    references = [[REFERENCES[0], "A red cube"], ["a green cube"]]
    cider = CaptionReward(frequencies)(captions, references, images)
    mixed = CaptionReward(frequencies, cider_weight=0.5, bleu_weight=2.0)(
        captions, references, images
    )
    gts = dict(enumerate(references))
    bleu = Bleu().compute_score(
        gts,
        [{"image_id": 0, "caption": ["A red cube"]}, {"image_id": 1, "caption": ["a green cube"]}],
    )
    np.testing.assert_allclose(mixed, 0.5 * cider + 2.0 * bleu[1][3])
    assert cider[1] > cider[0] > 0
    with pytest.raises(UserError, match="--scst-bleu-weight"):
        CaptionReward(frequencies, cider_weight=0.0)


def test_the_end_of_a_caption_is_a_word_of_its_own(frequencies):
    captions, reference = ["a cube on a red table.", "a cube on a"], "a cube on a red table"
    found = CaptionReward(frequencies)(captions, [[reference]], [0, 0])
    ended = [{"image_id": 0, "caption": [text.strip(".") + " <eos>"]} for text in captions]
    np.testing.assert_allclose(
        found, CiderD(df=frequencies).compute_score({0: [reference + " <eos>"]}, ended)[1]
    )


def test_chinese_is_rewarded_character_by_character(tmp_path):
    path = tmp_path / "chinese.p"
    write_document_frequencies(
        path,
        count_document_frequencies([["一 只 猫 <eos>"], ["两 只 狗 <eos>"], ["一 辆 车 <eos>"]]),
    )
    part, nothing = CaptionReward(path)(["两只猫。", "天空"], [["一只猫"]], [0, 0])
    assert part > nothing


def test_a_file_without_endings_is_named_at_the_start(tmp_path, caplog):
    path = tmp_path / "plain.p"
    write_document_frequencies(path, count_document_frequencies([text] for text in REFERENCES))
    with caplog.at_level(logging.WARNING):
        CaptionReward(path)
    assert "<eos>" in caplog.text and "ofa cider-df build" in caplog.text


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match="coco-train-words.p: .*ofa cider-df build"):
        CaptionReward(tmp_path / "coco-train-words.p")


@pytest.mark.parametrize(
    "caption, reference, reason",
    [
        ("a red cube", "ein roter Würfel", "knows 0 % of the words of the references"),
        ("ein roter Würfel", "a red cube", "share no word with their references"),
        ("a red cube", "a red cube", "all n-grams .* weigh nothing"),
    ],
)
def test_useless_rewards_are_explained(frequencies, caption, reference, reason):
    found = CaptionReward(frequencies).diagnosis([caption], [[reference]], [0])
    assert re.search(reason, found) and repr(caption) in found and repr(reference) in found


def test_patience_counts_useless_batches_in_a_row():
    watch = RewardMonitor(patience=3)
    nothing, broken, good = np.zeros(4), np.array([1.0, NAN]), np.array([0.0, 0.1])
    assert [
        watch.should_stop(scores) for scores in (nothing, broken, good, nothing, broken, nothing)
    ] == [False] * 5 + [True]
    assert not any(RewardMonitor(patience=0).should_stop(nothing) for _ in range(100))
