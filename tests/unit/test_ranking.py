"""Scores of all answers at once equal those of one decoder pass per answer, whatever the trie
and the prompts."""

import math
import random
import runpy
import sys
from pathlib import Path

import pytest
import torch
from small_network import build_awake

from ofa.models.generation.ranking import AnswerRanker
from ofa.tokens.trie import Trie

VOCAB, BOS, PAD, EOS = 90, 0, 1, 2


def make_trie(count: int, seed: int = 0) -> tuple[Trie, list[list[int]]]:
    """Random answers of up to five tokens from few, so that many begin alike."""
    draw = random.Random(seed)
    answers = {
        tuple(draw.randrange(4, 12) for _ in range(draw.randint(1, 5))) for _ in range(count)
    }
    answers = [list(answer) for answer in sorted(answers, key=lambda answer: draw.random())]
    return Trie(EOS, [[BOS, *answer, EOS] for answer in answers]), answers


def make_sample(rows: int) -> dict:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(4, VOCAB, (rows, 7), generator=generator)
    tokens[0, 5:] = PAD
    images = torch.rand(rows, 3, 32, 32, generator=generator)
    return {
        "net_input": {
            "src_tokens": tokens,
            "src_lengths": tokens.ne(PAD).sum(1),
            "patch_images": images,
            "patch_masks": torch.ones(rows, dtype=torch.bool),
        }
    }


@torch.no_grad()
def one_by_one(
    models, sample: dict, prompts: list[list[int]], trie: Trie, answers: list[list[int]]
) -> torch.Tensor:
    """Full forward passes: log-probability of each answer's tokens among those that the trie
    allows."""
    scores = torch.zeros(len(prompts), len(answers))
    for column, answer in enumerate(answers):
        for row, prompt in enumerate(prompts):
            net_input = {key: value[row : row + 1] for key, value in sample["net_input"].items()}
            previous = torch.tensor([[*prompt, *answer]])
            logits = [
                model(**net_input, prev_output_tokens=previous)[0][0, len(prompt) - 1 :]
                for model in models
            ]
            for position, token in enumerate([*answer, EOS]):
                allowed = trie.get_next_layer([BOS, *answer[:position]])
                steps = [
                    step[position, allowed].log_softmax(-1)[allowed.index(token)] for step in logits
                ]
                scores[row, column] += torch.stack(steps).logsumexp(0) - math.log(len(steps))
    return scores


PROMPTS = [[BOS], [BOS, 20, 21, 22], [BOS, 30, EOS], [BOS, 23, 24, 25]]


@pytest.mark.parametrize("nodes_at_once", [1, 3, 512])
def test_scores_equal_one_pass_per_answer(nodes_at_once):
    trie, answers = make_trie(40)
    models, sample = [build_awake(VOCAB)], make_sample(4)
    found = AnswerRanker(trie, BOS, nodes_at_once).scores(models, sample, PROMPTS)
    torch.testing.assert_close(
        found, one_by_one(models, sample, PROMPTS, trie, answers), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    "switches",
    [
        {"disable_entangle": False},
        {"decoder_prompt": True, "decoder_prompt_length": 3},
        {"decoder_normalize_before": False},
    ],
    ids=lambda switches: next(iter(switches)),
)
def test_scores_hold_for_other_networks(switches):
    trie, answers = make_trie(12, seed=1)
    models, sample = [build_awake(VOCAB, **switches)], make_sample(4)
    found = AnswerRanker(trie, BOS, 4).scores(models, sample, PROMPTS)
    torch.testing.assert_close(
        found, one_by_one(models, sample, PROMPTS, trie, answers), rtol=0, atol=1e-4
    )


def test_an_ensemble_averages_the_probabilities_of_each_token():
    trie, answers = make_trie(12, seed=2)
    models, sample = [build_awake(VOCAB), build_awake(VOCAB, decoder_layers=1)], make_sample(2)
    found = AnswerRanker(trie, BOS).scores(models, sample, PROMPTS[:2])
    torch.testing.assert_close(
        found, one_by_one(models, sample, PROMPTS[:2], trie, answers), rtol=0, atol=1e-4
    )


def test_answers_share_all_probability():
    trie, answers = make_trie(60, seed=4)
    found = AnswerRanker(trie, BOS, 5).scores([build_awake(VOCAB)], make_sample(2), PROMPTS[:2])
    assert found.shape == (2, len(answers))
    torch.testing.assert_close(found.logsumexp(1), torch.zeros(2), rtol=0, atol=1e-5)


def test_a_single_answer_is_certain():
    trie = Trie(EOS, [[BOS, 5, 6, EOS]])
    assert AnswerRanker(trie, BOS).scores(
        [build_awake(VOCAB)], make_sample(2), PROMPTS[:2]
    ).tolist() == [[0.0], [0.0]]


def test_a_part_holds_no_more_nodes_than_asked_and_each_edge_is_decided_once():
    trie, _ = make_trie(200, seed=5)
    ranker = AnswerRanker(trie, BOS, 8)
    assert len(ranker.parts) > 5 and max(len(part.tokens) for part in ranker.parts) <= 8
    assert len(ranker.decided) == len(set(ranker.decided.tolist()))


def test_words_without_an_alternative_are_not_fed_to_the_decoder():
    answers = [[4], [5, 6, 7], [8, 9, 10], [8, 9, 11, 12]]
    ranker = AnswerRanker(Trie(EOS, [[BOS, *answer, EOS] for answer in answers]), BOS)
    assert [part.tokens.tolist() for part in ranker.parts] == [[0], [8, 9]]


def test_the_benchmark_finds_equal_scores(monkeypatch, capsys):
    words = [
        "all_candidates.py",
        "--arch=ofa_nano",
        "--answers=60",
        "--images=1",
        "--pixels=32",
        "--prompt=3",
        "--part=20",
    ]
    script = Path(__file__).resolve().parents[2] / "benchmarks/all_candidates.py"
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.syspath_prepend(script.parent)
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert float(printed.split("difference of a score")[1]) < 1e-4 and "ratio" in printed
