"""The parts of generation by themselves: sampling, tries, n-grams, options, reordered weights."""

import math
import pickle
import random
from argparse import Namespace

import numpy as np
import pytest
import torch
from torch import nn

from ofa.errors import UserError
from ofa.models.generation.constraints import VocabularySubset, repeated_ngrams
from ofa.models.generation.options import GenerationOptions, check_options, parse_range
from ofa.models.generation.search import Sampling, largest
from ofa.models.image_stems import ResNet
from ofa.models.inference_weights import (
    PackedLinear,
    can_pack,
    inference_network,
    version_of_weights,
)
from ofa.tokens.trie import LOST, ROOT, Trie


@pytest.mark.parametrize("width", [1, 5, 127, 128, 129, 1000, 4111])
@pytest.mark.parametrize("beams, count", [(1, 2), (5, 10), (3, 40)])
def test_largest_equals_topk(width, beams, count):
    torch.manual_seed(width)
    values, base = torch.randn(4, beams, width), torch.randn(4, beams)
    base[0, 0], values[1, :, ::2] = -math.inf, -math.inf
    expected, _ = (values + base[..., None]).flatten(1).topk(min(count, beams * width))
    found, index = largest(values, base, count)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(
        (values + base[..., None]).flatten(1).gather(1, index), found, rtol=0, atol=0
    )


def draw(search: Sampling, probabilities: torch.Tensor, draws: int = 40000) -> torch.Tensor:
    """Frequencies of tokens, and checks that scores are those of the whole distribution."""
    torch.manual_seed(0)
    log_probs = probabilities.log()[None, None]
    found = search(log_probs, torch.zeros(1, 1), draws)
    torch.testing.assert_close(found.scores[0], log_probs[0, 0][found.columns[0]])
    return torch.bincount(found.columns[0], minlength=len(probabilities)) / draws


PROBABILITIES = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.0, 0.2])


@pytest.mark.parametrize(
    "topk, topp, left",
    [
        (-1, -1.0, [0, 1, 2, 3, 5]),
        (1, -1.0, [1]),
        (3, -1.0, [1, 3, 5]),
        (-1, 0.3, [1]),
        (-1, 0.6, [1, 3]),
        (-1, 0.66, [1, 3, 5]),
        (2, 0.99, [1, 3]),
        (100, 1.0, [0, 1, 2, 3, 5]),
    ],
)
def test_sampling_draws_the_likeliest_tokens_by_their_probability(topk, topp, left):
    expected = torch.zeros(6)
    expected[left] = PROBABILITIES[left] / PROBABILITIES[left].sum()
    torch.testing.assert_close(
        draw(Sampling(topk, topp), PROBABILITIES), expected, atol=0.01, rtol=0
    )


def test_a_wide_nucleus_is_found_beyond_the_first_columns():
    probabilities = torch.ones(5000).softmax(-1)
    drawn = draw(Sampling(-1, 0.5), probabilities)
    assert abs(int((drawn > 0).sum()) - 2500) <= 2


def test_beams_draw_their_own_continuations_and_seeds_repeat():
    log_probs = torch.randn(2, 3, 50).log_softmax(-1)
    so_far = torch.tensor([[0.0, -1.0, -2.0], [0.0, -math.inf, -3.0]])
    log_probs[1, 1] = -math.inf
    torch.manual_seed(3)
    first = Sampling(10, -1.0)(log_probs, so_far, 3)
    torch.manual_seed(3)
    second = Sampling(10, -1.0)(log_probs, so_far, 3)
    assert torch.equal(first.columns, second.columns)
    assert first.parents.tolist() == [[0, 1, 2]] * 2
    assert first.scores[1, 1] == -math.inf
    expected = log_probs.gather(2, first.columns[..., None])[..., 0] + so_far
    torch.testing.assert_close(first.scores, expected)


def test_trie_tensors_equal_a_search_in_dictionaries():
    chance = random.Random(0)
    answers = [
        [0, *(chance.randrange(4, 12) for _ in range(chance.randrange(1, 5))), 2] for _ in range(60)
    ]
    trie = Trie(2, answers)
    table = trie.compile(torch.device("cpu"))
    for _ in range(300):
        path = [0, *(chance.randrange(2, 13) for _ in range(chance.randrange(0, 4)))]
        state = torch.tensor([ROOT])
        for token in path:
            state = table.advance(state, torch.tensor([token]))
        _, tokens = table.allowed(state)
        assert sorted(tokens.tolist()) == sorted(trie.get_next_layer(path)), path
        assert (state.item() == LOST) == all(answer[: len(path)] != path for answer in answers)


def test_trie_allows_many_states_at_once_and_knows_its_answers():
    trie = Trie(2, [[0, 5, 2], [0, 5, 6, 2], [0, 7, 2]])
    table = trie.compile(torch.device("cpu"))
    start = table.advance(torch.tensor(ROOT), torch.tensor(0))
    states = table.advance(start.expand(2, 2), torch.tensor([[5, 7], [9, 5]]))
    rows, tokens = table.allowed(states)
    assert list(zip(rows.tolist(), tokens.tolist())) == [
        (0, 2),
        (0, 6),
        (1, 2),
        (2, 2),
        (3, 2),
        (3, 6),
    ]
    assert table.depth[table.ends].tolist() == [3, 4, 3]
    assert table.depth[table.parent[table.ends]].tolist() == [2, 3, 2]


def test_a_trie_grows_and_is_pickled():
    trie = Trie(2, [[0, 5, 2]])
    trie.compile(torch.device("cpu"))
    trie.insert([0, 6, 2])
    copy = pickle.loads(pickle.dumps(trie))
    assert len(copy) == 2 and copy.get_next_layer([0]) == [5, 6]
    assert sorted(copy.compile(torch.device("cpu")).token.tolist()) == [0, 2, 2, 2, 5, 6]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_repeated_ngrams_equal_a_loop(size):
    torch.manual_seed(size)
    tokens = torch.randint(4, 7, (3, 2, 12))
    tokens[..., 0] = 0
    for length in range(1, 13):
        found = repeated_ngrams(tokens[..., :length], size, absent=1)
        for image in range(3):
            for beam in range(2):
                row = tokens[image, beam, :length].tolist()
                last = tuple(row[length - size + 1 :])
                grams = [tuple(row[i : i + size]) for i in range(length - size + 1)]
                expected = {gram[-1] for gram in grams if gram[:-1] == last}
                assert (
                    set() if found is None else set(found[image, beam].tolist()) - {1}
                ) == expected


def test_columns_of_a_range_and_back():
    columns = VocabularySubset.of_range((10, 13), specials=4, vocab_size=20)
    tokens = torch.tensor([0, 3, 4, 9, 10, 12, 13, 19])
    assert columns.of_tokens(tokens, absent=1).tolist() == [0, 3, 1, 1, 4, 6, 1, 1]
    assert (
        columns.select(torch.arange(20)).tolist()
        == columns.tokens(torch.arange(7)).tolist()
        == [0, 1, 2, 3, 10, 11, 12]
    )
    whole = VocabularySubset.of_range(None, specials=4, vocab_size=20)
    assert whole.whole and torch.equal(whole.of_tokens(tokens, 1), tokens)


@pytest.mark.parametrize("value", ["5,9", "(5, 9)", "[5,9]", (5, 9), [5, 9]])
def test_a_range_is_written_in_several_ways(value):
    assert parse_range(value) == (5, 9)


def test_a_namespace_with_other_options_is_understood():
    namespace = Namespace(
        beam=3,
        lenpen=0.7,
        nbest=1,
        sacrebleu=False,
        diversity_rate=-1.0,
        constraints=None,
        unkpen=0,
    )
    options = GenerationOptions.from_namespace(namespace, constraint_range="4,9", zero_shot=None)
    assert (options.beam, options.lenpen, options.constraint_range, options.max_len_b) == (
        3,
        0.7,
        (4, 9),
        200,
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"beam": 0}, "beam: expected at least 1, found 0"),
        ({"beam": "three"}, '^generation option beam expects an integer, found "three"$'),
        ({"max_len_b": 2.5}, "max_len_b expects an integer, found 2.5"),
        ({"lenpen": [1]}, r"lenpen expects a number, found \[1\]"),
        ({"temperature": float("nan")}, "temperature expects a finite number, found NaN"),
        ({"sampling": "yes"}, 'sampling expects true or false, found "yes"'),
        ({"temperature": 0.0}, "temperature"),
        ({"sampling_topk": 5}, "need sampling=True"),
        ({"sampling": True, "diverse_beam_groups": 2}, "exclude each other"),
        ({"beam": 5, "diverse_beam_groups": 2}, "multiple of diverse_beam_groups=2"),
        ({"constraint_range": "9"}, "expected 'start,end'"),
        ({"constraint_range": "9,4"}, "start < end"),
        ({"lm_path": "lm.pt"}, "lm_path='lm.pt': not offered"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        GenerationOptions.from_namespace(Namespace(**options))


def test_numbers_of_another_kind_are_taken():
    given = {"beam": 3.0, "max_len_b": np.int64(9), "lenpen": 1, "sampling_topk": None}
    found = check_options(given, "--eval-args")
    assert found == {"beam": 3, "max_len_b": 9, "lenpen": 1.0, "sampling_topk": None}
    assert [type(value) for value in found.values()] == [int, int, float, type(None)]


def test_a_misspelled_option_is_named_with_the_one_that_is_meant():
    check_options({"beam": 2, "max_len_b": 9, "lm_path": None}, "--eval-args")
    with pytest.raises(UserError, match=r"^--eval-args: .*found 'bean'; did you mean beam\?$"):
        check_options({"max_len_b": 9, "bean": 2}, "--eval-args")
    with pytest.raises(UserError, match=r"found 'top_k'; did you mean sampling_topk\?$"):
        check_options({"top_k": 9}, "task 'caption'")


def test_an_option_of_fairseq_without_effect_is_a_warning(caplog):
    check_options({"nbest": 1}, "--eval-args")
    assert "'nbest' has no effect" in caplog.text


@torch.no_grad()
def test_reordered_weights_give_the_same_products_and_see_changes():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(33, 70), nn.Linear(70, 5, bias=False))
    assert all(map(can_pack, layers)) and not can_pack(nn.LayerNorm(3))
    for rows in (1, 4, 65):
        x = torch.randn(2, rows, 33)
        expected = layers(x)
        for _ in range(2):
            fast = inference_network(layers)
            assert all(type(layer) is PackedLinear for layer in fast)
            for _ in range(3):
                torch.testing.assert_close(fast(x), expected)
            layers[0].weight.data.mul_(2)
            expected = layers(x)


@pytest.mark.parametrize("frozen", [False, True])
@torch.no_grad()
def test_folded_batch_norms_give_the_same_image_features(frozen):
    torch.manual_seed(0)
    stem = ResNet("resnet18", width=8, frozen_bn=frozen).eval()
    for name, value in stem.state_dict().items():
        if "running" in name or ".bn" in name or name.startswith("bn"):
            value.copy_(value + 0.2 * torch.rand_like(value.float()))
    images = torch.randn(2, 3, 64, 48)
    expected = stem(images)
    assert not torch.equal(expected, ResNet("resnet18", width=8).eval()(images))
    torch.testing.assert_close(inference_network(stem)(images), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(stem(images), expected)
    torch.testing.assert_close(
        inference_network(stem.train())(images), expected, atol=1e-5, rtol=1e-4
    )
    assert all(module.training for module in stem.modules())


@torch.no_grad()
def test_the_same_input_gives_the_same_bits_whatever_came_before_it():
    torch.manual_seed(0)
    layer = nn.Linear(96, 384)
    inputs = [torch.randn(rows, 96) for rows in (1, 2, 5, 80, 300)]
    alone = [inference_network(nn.Sequential(layer))(x) for x in inputs]
    for order in (inputs, inputs[::-1]):
        fast = inference_network(nn.Sequential(layer))
        found = {len(x): fast(x) for x in order}
        assert all(torch.equal(found[len(x)], y) for x, y in zip(inputs, alone))


def test_a_network_for_inference_leaves_its_model_alone_and_keeps_shared_modules_shared():
    shared = nn.Embedding(5, 4)
    model = nn.ModuleDict({"first": shared, "second": shared, "norm": nn.BatchNorm1d(4)}).train()
    fast = inference_network(model)
    assert fast["first"] is fast["second"] is not shared and fast["first"].weight is shared.weight
    assert not any(module.training for module in fast.modules()) and all(
        module.training for module in model.modules()
    )
    assert inference_network(fast) is fast and not hasattr(model, "is_inference_network")


@torch.no_grad()
def test_changed_weights_have_another_version():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = version_of_weights(model)
    assert version_of_weights(model) == before
    model[0].weight.mul_(2)
    changed = version_of_weights(model)
    model[1].running_mean = torch.zeros(3)
    assert len({before, changed, version_of_weights(model)}) == 3
