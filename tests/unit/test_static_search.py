"""A search of fixed shapes, as GPUs have it, finds what the other one finds."""

import copy
import pickle

import pytest
import torch
from light_compiler import compiled_lightly
from small_network import build_awake
from stub_model import BOS, EOS, PAD, VOCAB, StubModel, batch_of

from ofa.models.generation.batch import GenerationBatch
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions
from ofa.models.ofa_model import OFAModel
from ofa.models.static_cache import StaticCache, end_of_block
from ofa.tokens.trie import Trie

ANSWERS = [[7], [7, 8], [9, 10, 11], [12, 8], [13], [14, 15], [9, 10, 16]]
PREFIX = torch.tensor([[30, 31, 32], [33, PAD, PAD], [PAD, PAD, PAD]])
ENDED = torch.tensor([[30, EOS, PAD], [31, 32, 33], [34, PAD, PAD]])
SEEDS = {"seeds": [5, 6, 7]}
CODES = {"gen_code": True, "min_len": 40, "max_len_b": 40, "constraint_range": "20,90"}

# options of the search, and what else there is: a trie, a prefix, seeds
SEARCHES: dict[str, tuple[dict, dict]] = {
    "beam": ({"beam": 5}, {}),
    "greedy": ({"beam": 1, "max_len_b": 9}, {}),
    "long": ({"beam": 3, "min_len": 70, "max_len_b": 75}, {}),
    "scores": ({"beam": 3, "lenpen": 0.4, "temperature": 1.7, "unkpen": 2.0}, {}),
    "sums": ({"beam": 4, "unnormalized": True, "min_len": 4}, {}),
    "n-grams": ({"beam": 4, "no_repeat_ngram_size": 2, "min_len": 5}, {}),
    "diverse": ({"beam": 4, "diverse_beam_groups": 2}, {}),
    "range": ({"beam": 3, "constraint_range": "20,31", "only_range": "22,29"}, {}),
    "length": ({"beam": 2, "match_source_len": True}, {}),
    "trie": ({"beam": 5, "max_len_b": 9}, {"trie": True}),
    "zero shot": ({"beam": 3, "zero_shot": True}, {"trie": True}),
    "prefix": ({"beam": 3}, {"prefix": PREFIX}),
    "whole prefix": ({"beam": 3}, {"prefix": ENDED}),
    "trie behind prefix": ({"beam": 3, "max_len_b": 12}, {"prefix": PREFIX, "trie": True}),
    "seeded": ({"beam": 3, "sampling": True, "sampling_topk": 20}, SEEDS),
    "nucleus": ({"beam": 2, "sampling": True, "sampling_topp": 0.8}, SEEDS),
    "codes": ({"beam": 2, "sampling": True, **CODES}, SEEDS),
    "no codes follow": ({"beam": 2, **CODES, "ignore_eos": True}, {}),
}


def generator_of(name: str, models, static: bool) -> SequenceGenerator:
    options, others = SEARCHES[name]
    generator = SequenceGenerator(models, GenerationOptions(**{"max_len_b": 6, **options}), VOCAB)
    if "trie" in others:
        generator.constraint_trie = Trie(EOS, [[BOS, *answer, EOS] for answer in ANSWERS])
    generator.static = static
    return generator


def generate(name: str, models, sample: dict, static: bool) -> list[list[dict]]:
    others = SEARCHES[name][1]
    seeds = {key: value for key, value in others.items() if key == "seeds"}
    generator = generator_of(name, models, static)
    return generator.generate(models, {**sample, **seeds}, prefix_tokens=others.get("prefix"))


def assert_same(found: list[list[dict]], expected: list[list[dict]]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert [h["tokens"].tolist() for h in one] == [h["tokens"].tolist() for h in other]
        # those of positions are differences of sums, which round as sums do
        for key, tolerance in (("score", 1e-6), ("positional_scores", 1e-5)):
            for mine, theirs in zip(one, other):
                close = {"rtol": tolerance, "atol": tolerance}
                torch.testing.assert_close(mine[key], theirs[key], **close)


def photo_batch(seed: int = 1, width: int = 6) -> dict:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, VOCAB, (3, width), generator=generator)
    tokens[1, 4:] = PAD
    images = torch.randn(3, 3, 32, 48, generator=generator)
    masks = torch.tensor([True, False, True])
    return {"net_input": {"src_tokens": tokens, "patch_images": images, "patch_masks": masks}}


@pytest.fixture(scope="module")
def models() -> list[OFAModel]:
    """Images of these end at different steps."""
    model = build_awake(VOCAB, disable_entangle=True, scale_attn=True, scale_heads=True)
    model.decoder.layer_norm.weight.data *= 0.4
    return [model]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_network_generates_the_same(name, models):
    expected = generate(name, models, photo_batch(), static=False)
    assert_same(generate(name, models, photo_batch(), static=True), expected)


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "long"])
def test_a_stub_that_ends_early_and_late_generates_the_same(name):
    stubs, sample = [StubModel(6)], batch_of([5, 11, 17])
    expected = generate(name, stubs, sample, static=False)
    assert_same(generate(name, stubs, sample, static=True), expected)


@pytest.mark.parametrize(
    "switches",
    [
        {"disable_entangle": False},
        {"decoder_prompt": True, "decoder_prompt_length": 5},
        {"decoder_normalize_before": False, "scale_resids": True},
    ],
    ids=lambda switches: next(iter(switches)),
)
@pytest.mark.parametrize("name", ["long", "codes"])
def test_other_networks_generate_the_same(name, switches):
    models = [build_awake(VOCAB, **switches)]
    expected = generate(name, models, photo_batch(), static=False)
    assert_same(generate(name, models, photo_batch(), static=True), expected)


def test_an_ensemble_generates_the_same(models):
    both = [*models, build_awake(VOCAB, decoder_layers=1)]
    expected = generate("beam", both, photo_batch(), static=False)
    assert_same(generate("beam", both, photo_batch(), static=True), expected)


def test_images_that_are_complete_stay_and_change_no_more(monkeypatch):
    seen, stock = [], GenerationBatch.advance

    def advance(batch, step, found):
        seen.append((len(batch.images), batch.finished.counts.tolist()))
        return stock(batch, step, found)

    monkeypatch.setattr(GenerationBatch, "advance", advance)
    generate("greedy", [StubModel(6)], batch_of([5, 11, 17]), static=True)
    assert {images for images, _ in seen} == {3}
    assert any(max(counts) == 1 > min(counts) for _, counts in seen)


def test_where_nothing_may_follow_rows_end_early(caplog):
    model = StubModel(0)
    model.decoder.last[:] = torch.nan
    found = generate("beam", [model], batch_of([5, 11, 17]), static=True)
    assert all(hypotheses[0]["tokens"].tolist() == [EOS] for hypotheses in found)
    assert "3 of 3" in caplog.text


def test_a_later_batch_of_the_same_shapes_uses_the_memory_again(models):
    generator = generator_of("long", models, static=True)
    generator.generate(None, photo_batch(1))
    (first,) = generator.kept.values()
    for seed, width in ((2, 6), (3, 9)):  # of nearly the same length
        found = generator.generate(None, photo_batch(seed, width))
        assert_same(found, generate("long", models, photo_batch(seed, width), static=False))
        assert generator.kept[0] is first
    generator.generate(None, batch_of([5, 6]))
    assert generator.kept[0] is not first


def test_nan_of_one_batch_does_not_reach_the_next(models):
    generator = generator_of("beam", models, static=True)
    broken = photo_batch()
    broken["net_input"]["patch_images"].fill_(torch.nan)
    generator.generate(None, broken)
    expected = generate("beam", models, photo_batch(), static=False)
    assert_same(generator.generate(None, photo_batch()), expected)


def test_weights_that_changed_in_place_are_those_of_the_next_batch():
    model = build_awake(VOCAB, scale_heads=True)
    generator = generator_of("beam", [model], static=True)
    generator.generate(None, photo_batch())
    (first,) = generator.kept.values()
    for layer in model.decoder.layers:
        for part in (layer.self_attn.v_proj.weight, layer.encoder_attn.c_attn):
            part.data *= -1  # as an optimizer does it
    found = generator.generate(None, photo_batch())
    assert generator.kept[0] is first
    assert_same(found, generate("beam", [model], photo_batch(), static=False))


def test_weights_of_another_network_do_not_use_the_memory_again(models):
    generator = generator_of("beam", models, static=True)
    generator.generate(models, photo_batch())
    (first,) = generator.kept.values()
    other = [copy.deepcopy(models[0])]
    other[0].decoder.layers[0].fc1.weight.data *= 2
    found = generator.generate(other, photo_batch())
    assert_same(found, generate("beam", other, photo_batch(), static=False))
    assert generator.kept[0] is not first


def test_a_generator_is_copied_without_its_memory():
    generator = generator_of("beam", [StubModel()], static=True)
    generator.kept[0] = object()  # cannot be pickled, as graphs
    assert pickle.loads(pickle.dumps(generator)).kept == {} == copy.deepcopy(generator).kept


def test_blocks_double_and_then_grow_by_the_largest():
    ends = sorted({end_of_block(position) for position in range(600)})
    assert ends == [32, 64, 128, 256, 384, 512, 640]


@pytest.mark.slow  # compiles
@torch.no_grad()
def test_a_step_compiles_as_one_graph(tmp_path):
    """As ``torch.compile(mode="reduce-overhead")`` does it for a GPU."""
    model, sample = build_awake(VOCAB, decoder_layers=1), photo_batch()["net_input"]
    decoder, encoded = model.decoder, model.encode(**sample)
    tokens = torch.randint(4, VOCAB, (3, 2, 5))
    plain, compiled = (decoder.start(encoded, 2, 5, False, static=True) for _ in range(2))
    step = torch.compile(decoder.next_states, mode="reduce-overhead", fullgraph=True)
    with compiled_lightly(str(tmp_path)):
        for place in range(5):
            fed = tokens[:, :, place : place + 1]
            expected = plain.run(decoder.next_states, fed)
            torch.testing.assert_close(compiled.run(step, fed), expected, rtol=1e-5, atol=1e-5)
    assert any(tmp_path.rglob("*.cpp"))


@torch.no_grad()
def test_beams_that_are_not_reordered_stay(models):
    decoder, sample = models[0].decoder, photo_batch()["net_input"]
    tokens = torch.randint(4, VOCAB, (3, 2, 8))
    encoded = models[0].encode(**sample)
    caches = [decoder.start(encoded, 2, 8, False, static=static) for static in (False, True)]
    assert isinstance(caches[1], StaticCache)
    for step in range(8):
        expected, found = (decoder.step(tokens[:, :, step], cache) for cache in caches)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
