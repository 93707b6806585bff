"""Beam search and what steers it, against the same written out in plain Python."""

import copy
import logging

import pytest
import torch
from small_network import build_awake
from stub_model import BOS, EOS, PAD, UNK, VOCAB, StubModel, batch_of, naive_beam_search

from ofa.errors import UserError
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions
from ofa.models.ofa_model import OFAModel
from ofa.tokens.trie import Trie

IMAGES = [5, 11, 17, 23]
ANSWERS = [[7], [7, 8], [9, 10, 11], [12, 8], [13], [14, 15], [9, 10, 16]]


def generate(models, images, prefix=None, trie=None, zero_shot=False, **options):
    generator = SequenceGenerator(models, GenerationOptions(**options), VOCAB)
    generator.constraint_trie, generator.zero_shot = trie, zero_shot
    return generator.generate(models, batch_of(images), prefix_tokens=prefix)


def assert_same(found, expected):
    assert [h["tokens"].tolist() for h in found] == [tokens for _, tokens, _ in expected]
    for hypothesis, (score, _, positional) in zip(found, expected):
        assert hypothesis["score"].item() == pytest.approx(score, abs=1e-4)
        assert hypothesis["positional_scores"].tolist() == pytest.approx(positional, abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam": 1},
        {"beam": 3, "lenpen": 0.3},
        {"beam": 4, "lenpen": 2.0, "min_len": 4},
        {"unnormalized": True, "temperature": 1.7},
        {"unkpen": -3.0},
        {"unkpen": 3.0, "min_len": 0},
        {"max_len_b": 0, "min_len": 0},
    ],
    ids=str,
)
def test_beam_search_equals_plain_python(options):
    settings = {"beam": 5, "max_len_b": 6, **options}
    models = [StubModel(1)]
    found = generate(models, IMAGES, **settings)
    max_len = settings.pop("max_len_b")
    for image, hypotheses in zip(IMAGES, found):
        assert_same(hypotheses, naive_beam_search(models, image, max_len=max_len, **settings))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_occurs_twice(size):
    models = [StubModel(2, sharpness=3.0)]
    models[0].decoder.last[:, 7] += 30  # would repeat for ever
    found = generate(models, IMAGES, beam=4, max_len_b=8, no_repeat_ngram_size=size)
    for image, hypotheses in zip(IMAGES, found):
        assert_same(hypotheses, naive_beam_search(models, image, beam=4, max_len=8, ngram=size))


@pytest.mark.parametrize("zero_shot", [False, True])
def test_constraint_range_keeps_special_tokens_and_the_range(zero_shot):
    models = [StubModel(3)]
    found = generate(
        models, IMAGES, beam=4, max_len_b=5, constraint_range="20,31", zero_shot=zero_shot
    )
    allowed = [*range(4), *range(20, 31)]
    for image, hypotheses in zip(IMAGES, found):
        expected = naive_beam_search(
            models, image, beam=4, max_len=5, allowed=lambda tokens: allowed, zero_shot=zero_shot
        )
        assert_same(hypotheses, expected)


@pytest.mark.parametrize("constraint_range", [None, "18,40"])
def test_only_a_range_for_exactly_so_many_tokens(constraint_range):
    models = [StubModel(3)]
    options = {"beam": 4, "max_len_b": 4, "min_len": 4, "zero_shot": True}
    found = generate(
        models, IMAGES, only_range="20,31", constraint_range=constraint_range, **options
    )
    for image, hypotheses in zip(IMAGES, found):
        assert_same(
            hypotheses,
            naive_beam_search(
                models,
                image,
                beam=4,
                max_len=4,
                min_len=4,
                zero_shot=True,
                allowed=lambda tokens: range(20, 31) if len(tokens) < 4 else [EOS],
            ),
        )
        assert all(
            len(h["tokens"]) == 5 and h["tokens"][:4].min() >= 20 and h["tokens"][:4].max() < 31
            for h in hypotheses
        )


def test_only_a_range_changes_nothing_where_all_is_in_it_already():
    models = [StubModel(5)]
    models[0].decoder.last[:, :20] -= 60
    models[0].decoder.last[:, 31:] -= 60
    options = {"beam": 4, "max_len_b": 4, "min_len": 4}
    free, bound = (
        generate(models, IMAGES, **options),
        generate(models, IMAGES, only_range="20,31", **options),
    )
    for one, other in zip(free, bound):
        assert_same(
            one,
            [
                (h["score"].item(), h["tokens"].tolist(), h["positional_scores"].tolist())
                for h in other
            ],
        )


@pytest.mark.parametrize("zero_shot", [False, True])
def test_a_trie_allows_its_answers_only(zero_shot):
    models, trie = [StubModel(4)], Trie(EOS, [[BOS, *answer, EOS] for answer in ANSWERS])
    found = generate(models, IMAGES, beam=3, max_len_b=9, trie=trie, zero_shot=zero_shot)
    for image, hypotheses in zip(IMAGES, found):
        allowed = lambda tokens: trie.get_next_layer([BOS, *tokens])  # noqa: E731
        expected = naive_beam_search(
            models, image, beam=3, max_len=9, allowed=allowed, zero_shot=zero_shot
        )
        assert_same(hypotheses, expected)
        assert all(h["tokens"].tolist()[:-1] in ANSWERS for h in hypotheses)


def test_a_trie_with_fewer_answers_than_beams_gives_all_of_them(caplog):
    trie = Trie(EOS, [[BOS, *answer, EOS] for answer in ANSWERS[:3]])
    with caplog.at_level(logging.WARNING):
        found = generate([StubModel(4)], IMAGES, beam=5, trie=trie)
    for hypotheses in found:
        assert sorted(h["tokens"].tolist()[:-1] for h in hypotheses) == sorted(ANSWERS[:3])
    assert not caplog.records


def test_a_trie_begins_behind_each_row_s_own_prefix():
    models, trie = [StubModel(5)], Trie(EOS, [[BOS, *answer, EOS] for answer in ANSWERS])
    prefix = torch.tensor([[30, 31, 32], [33, PAD, PAD], [PAD, PAD, PAD], [34, 35, PAD]])
    found = generate(models, IMAGES, prefix=prefix, trie=trie, beam=3, max_len_b=12)
    for image, hypotheses, row in zip(IMAGES, found, prefix.tolist()):
        own = [token for token in row if token != PAD]

        def allowed(tokens, own=own):
            if len(tokens) < len(own):
                return range(VOCAB)
            return trie.get_next_layer([BOS, *tokens[len(own) :]])

        expected = naive_beam_search(
            models, image, beam=3, max_len=12, allowed=allowed, prefix=own, prefix_width=3
        )
        assert_same(hypotheses, expected)


def test_upstreams_kind_of_trie_is_accepted():
    class Foreign:
        def get_next_layer(self, prefix):
            return Trie(EOS, [[BOS, *answer, EOS] for answer in ANSWERS]).get_next_layer(prefix)

    own = generate(
        [StubModel(4)], IMAGES, beam=3, trie=Trie(EOS, [[BOS, *answer, EOS] for answer in ANSWERS])
    )
    foreign = generate([StubModel(4)], IMAGES, beam=3, trie=Foreign())
    assert [[h["tokens"].tolist() for h in row] for row in own] == [
        [h["tokens"].tolist() for h in row] for row in foreign
    ]


def test_a_hook_decides_what_may_follow():
    models, seen = [StubModel(6)], set()

    def hook(row, tokens):
        seen.add(row)
        return [EOS, 40 + row, 50 + len(tokens)]

    found = generate(models, IMAGES, beam=2, max_len_b=4, prefix_allowed_tokens_fn=hook)
    assert seen == {0, 1, 2, 3}
    for row, (image, hypotheses) in enumerate(zip(IMAGES, found)):
        allowed = lambda tokens, row=row: [EOS, 40 + row, 51 + len(tokens)]  # noqa: E731
        expected = naive_beam_search(
            models, image, beam=2, max_len=4, allowed=allowed, zero_shot=True
        )
        assert_same(hypotheses, expected)


def test_where_nothing_may_follow_the_hypothesis_ends_and_the_constraint_is_named(caplog):
    with caplog.at_level(logging.WARNING):
        found = generate(
            [StubModel(6)],
            IMAGES,
            beam=2,
            prefix_allowed_tokens_fn=lambda row, tokens: [9] * (len(tokens) < 3),
        )
    assert all([h["tokens"].tolist() for h in hypotheses] == [[9, 9, EOS]] for hypotheses in found)
    assert all(torch.isfinite(h["score"]) for hypotheses in found for h in hypotheses)
    assert "prefix_allowed_tokens_fn" in caplog.text and "4 of 4" in caplog.text


def test_a_model_of_nan_still_returns(caplog):
    model = StubModel(0)
    model.decoder.last[:] = torch.nan
    found = generate([model], IMAGES, beam=2, max_len_b=4)
    assert all(hypotheses[0]["tokens"].tolist() == [EOS] for hypotheses in found)
    assert "nothing may follow" in caplog.text


def test_prefixes_of_different_lengths():
    models = [StubModel(7)]
    prefix = torch.tensor([[30, 31, 32], [33, PAD, PAD], [PAD, PAD, PAD], [34, 35, PAD]])
    found = generate(models, IMAGES, prefix=prefix, beam=3, max_len_b=6)
    for image, hypotheses, row in zip(IMAGES, found, prefix.tolist()):
        own = [token for token in row if token != PAD]
        expected = naive_beam_search(models, image, beam=3, max_len=6, prefix=own, prefix_width=3)
        assert_same(hypotheses, expected)


def test_a_prefix_that_ends_the_sentence_is_every_hypothesis():
    prefix = torch.tensor([[30, EOS, PAD], [31, 32, 33]])
    first, second = generate([StubModel(7)], IMAGES[:2], prefix=prefix, beam=3, max_len_b=6)
    assert [h["tokens"].tolist() for h in first] == [[30, EOS]] * 3
    assert all(h["tokens"].tolist()[:3] == [31, 32, 33] for h in second)


def test_an_ensemble_averages_probabilities():
    models = [StubModel(8), StubModel(9)]
    found = generate(models, IMAGES, beam=4, max_len_b=5)
    for image, hypotheses in zip(IMAGES, found):
        assert_same(hypotheses, naive_beam_search(models, image, beam=4, max_len=5))


@pytest.mark.parametrize(
    "options", [{}, {"diverse_beam_groups": 2, "beam": 4}, {"no_repeat_ngram_size": 2}], ids=str
)
def test_an_image_alone_gives_what_it_gives_in_a_batch(options):
    settings = {"beam": 5, "max_len_b": 7, **options}
    together = generate([StubModel(10)], IMAGES, **settings)
    for image, hypotheses in zip(IMAGES, together):
        alone = generate([StubModel(10)], [image], **settings)[0]
        assert [h["tokens"].tolist() for h in alone] == [h["tokens"].tolist() for h in hypotheses]


def test_diverse_groups_without_strength_are_equal_and_with_it_differ():
    same = generate(
        [StubModel(11)],
        IMAGES,
        beam=2,
        max_len_b=4,
        diverse_beam_groups=2,
        diverse_beam_strength=0.0,
    )
    differ = generate(
        [StubModel(11)],
        IMAGES,
        beam=2,
        max_len_b=4,
        diverse_beam_groups=2,
        diverse_beam_strength=50.0,
    )
    greedy = generate([StubModel(11)], IMAGES, beam=1, max_len_b=4)
    for hypotheses, best in zip(same, greedy):
        assert all(h["tokens"].tolist() == best[0]["tokens"].tolist() for h in hypotheses)
    for hypotheses in differ:
        assert hypotheses[0]["tokens"][0] != hypotheses[1]["tokens"][0]


def test_codes_hold_no_special_token_and_have_the_longest_length():
    for hypotheses in generate(
        [StubModel(12)], IMAGES, beam=3, min_len=90, max_len_b=90, gen_code=True
    ):
        for hypothesis in hypotheses:
            assert len(hypothesis["tokens"]) == 91 and hypothesis["tokens"][-1] == EOS
            assert (hypothesis["tokens"][:-1] > UNK).all()


def test_an_ignored_end_of_sentence_counts_one():
    found = generate(
        [StubModel(12)], IMAGES, beam=2, min_len=5, max_len_b=5, gen_code=True, ignore_eos=True
    )
    assert all(
        h["positional_scores"][-1].item() == pytest.approx(1.0, abs=1e-5)
        for row in found
        for h in row
    )


def test_match_source_len_ends_with_the_source():
    generator = SequenceGenerator(
        [StubModel(13)], GenerationOptions(beam=2, match_source_len=True), VOCAB
    )
    batch = batch_of(IMAGES, width=6)
    batch["net_input"]["src_lengths"] = torch.tensor([6, 4, 2, 5])
    for hypotheses, length in zip(generator.generate(None, batch), [6, 4, 2, 5]):
        assert len(hypotheses[0]["tokens"]) == length + 1


def test_a_longest_length_by_the_source():
    for hypotheses in generate(
        [StubModel(14)], IMAGES, beam=2, max_len_a=1.5, max_len_b=1, min_len=5
    ):
        assert all(len(h["tokens"]) == 6 for h in hypotheses)  # int(1.5 * 3 + 1) = 5, and </s>


def test_impossible_lengths_are_refused():
    with pytest.raises(UserError, match="min_len=9.*at most 4"):
        generate([StubModel()], IMAGES, min_len=9, max_len_b=4)


def test_another_first_token():
    models = [StubModel(15)]
    generator = SequenceGenerator(models, GenerationOptions(beam=1, max_len_b=1), VOCAB)
    found = generator.generate(models, batch_of([5]), bos_token=EOS)
    logits = models[0].decoder.logits(torch.tensor([EOS]), torch.tensor(5)).log_softmax(-1)
    logits[[PAD, EOS]] = -torch.inf
    assert found[0][0]["tokens"][0] == logits.argmax()


def test_modules_return_to_the_mode_they_were_in():
    model = StubModel().train()
    model.decoder.eval()
    generate([model], IMAGES, beam=1, max_len_b=2)
    assert model.training and not model.decoder.training


@pytest.fixture(scope="module")
def small_model() -> OFAModel:
    return build_awake(
        VOCAB, scale_attn=True, scale_fc=True, scale_heads=True, disable_entangle=True
    )


def photo_batch(dtype=torch.float32) -> dict:
    torch.manual_seed(1)
    tokens = torch.randint(4, VOCAB, (3, 6))
    tokens[1, 4:] = PAD
    images, masks = torch.randn(3, 3, 32, 48), torch.tensor([True, False, True])
    return {
        "net_input": {"src_tokens": tokens, "patch_images": images.to(dtype), "patch_masks": masks}
    }


@torch.no_grad()
def test_scores_are_those_of_the_uncached_network(small_model):
    generator = SequenceGenerator(
        [small_model], GenerationOptions(beam=4, max_len_b=8, min_len=3), VOCAB
    )
    batch = photo_batch()
    for image, hypotheses in enumerate(generator.generate(None, batch)):
        for hypothesis in hypotheses:
            tokens = hypothesis["tokens"]
            previous = torch.cat([torch.tensor([BOS]), tokens[:-1]])[None]
            one = {key: value[image : image + 1] for key, value in batch["net_input"].items()}
            log_probs = small_model(**one, prev_output_tokens=previous)[0][0].log_softmax(-1)
            expected = log_probs.gather(1, tokens[:, None])[:, 0]
            torch.testing.assert_close(hypothesis["positional_scores"], expected, atol=1e-3, rtol=0)
            torch.testing.assert_close(
                hypothesis["score"], expected.sum() / len(tokens), atol=1e-3, rtol=0
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_generates_on_a_cpu(small_model, dtype):
    half = copy.deepcopy(small_model).to(dtype)
    generator = SequenceGenerator(
        [half], GenerationOptions(beam=3, max_len_b=5, no_repeat_ngram_size=2), VOCAB
    )
    for hypotheses in generator.generate(None, photo_batch(dtype)):
        assert len(hypotheses) == 3
        assert all(h["score"].isfinite() and h["score"].dtype == torch.float32 for h in hypotheses)
