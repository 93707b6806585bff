"""What a GPU generates, how often the host waits for it, and what it launches for a token."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from pretend_gpu import PretendGPU
from pretend_graph import PretendGraph, pretend_graphs
from small_network import build_awake

from ofa.models.generation.batch import GenerationBatch
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions
from ofa.models.generation.ranking import AnswerRanker
from ofa.models.static_cache import StaticCache
from ofa.tokens.trie import Trie

VOCAB, BOS, PAD, EOS, ROWS = 150, 0, 1, 2, 3
ANSWERS = [[7, 9, 11, 13, 15], [7, 8], [9, 10, 11], [12, 8], [13], [14, 15], [9, 10, 16]]
SEARCHES: dict[str, dict[str, Any]] = {
    "beam": {"beam": 5, "no_repeat_ngram_size": 3},
    "diverse beams": {"beam": 4, "diverse_beam_groups": 2},
    "top-k": {"beam": 3, "sampling": True, "sampling_topk": 20},
    "nucleus": {"beam": 3, "sampling": True, "sampling_topp": 0.9},
    "codes": {"beam": 1, "gen_code": True, "sampling": True, "constraint_range": "20,90"},
    "range": {"beam": 3, "constraint_range": "20,90", "only_range": "30,60"},
    "trie": {"beam": 3},
    "zero shot": {"beam": 3, "zero_shot": True},
}


SEEDS = {"seeds": list(range(ROWS))}
LAUNCHES = 100  # per token at most; those of a graph counted as one


def answers() -> Trie:
    return Trie(EOS, [[BOS, *answer, EOS] for answer in ANSWERS])


def photo_batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, VOCAB, (ROWS, 6), generator=generator)
    tokens[1, 4:] = PAD
    images = torch.randn(ROWS, 3, 32, 48, generator=generator)
    masks = torch.tensor([True, False, True])
    return {
        "net_input": {"src_tokens": tokens, "patch_images": images, "patch_masks": masks},
        "id": torch.arange(ROWS),
    }


def generator_of(name: str, model: Any) -> SequenceGenerator:
    options = GenerationOptions(**{"max_len_b": 6, "min_len": 3, **SEARCHES[name]})
    generator = SequenceGenerator([model], options, VOCAB)
    if name in ("trie", "zero shot"):
        generator.constraint_trie = answers()
    return generator


def steps_of(monkeypatch, look: Callable[[], Any]) -> list[Any]:
    """What ``look`` returns before each step of the generations to come."""
    seen, stock = [], GenerationBatch.candidates

    def candidates(batch, step):
        seen.append(look())
        return stock(batch, step)

    monkeypatch.setattr(GenerationBatch, "candidates", candidates)
    return seen


@pytest.mark.parametrize("name", SEARCHES)
def test_a_token_is_waited_for_once(name, monkeypatch):
    with PretendGPU() as gpu:
        model, sample = gpu.move(build_awake(VOCAB)), gpu.move(photo_batch())
        waits = steps_of(monkeypatch, lambda: sum(gpu.waits.values()))
        generator_of(name, model).generate(None, sample)
    # the first step makes tables of positions
    assert {after - before for before, after in zip(waits[1:], waits[2:])} == {1}
    assert not gpu.mixed


def assert_same(found: list[list[dict]], expected: list[list[dict]]) -> None:
    for row, hypotheses in zip(found, expected, strict=True):
        assert [h["tokens"].tolist() for h in row] == [h["tokens"].tolist() for h in hypotheses]
        for one, other in zip(row, hypotheses):
            assert one["score"].item() == pytest.approx(other["score"].item(), abs=1e-6)


@pytest.fixture
def graphs(monkeypatch) -> list[PretendGraph]:
    return pretend_graphs(monkeypatch)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_gpu_finds_what_a_cpu_finds(name, graphs):
    """Twice: the second time every step is the recorded one."""
    expected = generator_of(name, build_awake(VOCAB)).generate(None, {**photo_batch(), **SEEDS})
    with PretendGPU() as gpu:
        generator = generator_of(name, gpu.move(build_awake(VOCAB)))
        for launched in (0, 1):
            gpu.reset()
            found = generator.generate(None, {**gpu.move(photo_batch()), **SEEDS})
            assert_same(found, expected)
            longest = max(len(h["tokens"]) for row in found for h in row)
            assert gpu.operators["graph"] >= longest - 1 + launched
    assert len(graphs) == 1 and not gpu.mixed


def decoder_of_ofa_base(**more: Any) -> Any:
    """Its depth and parts, not its widths."""
    parts = dict(scale_attn=True, scale_fc=True, scale_heads=True, disable_entangle=True)
    return build_awake(VOCAB, **{"decoder_layers": 6, **parts, **more})


@pytest.mark.parametrize("more", [{}, {"lora_rank": 2}], ids=["", "LoRA"])
def test_a_step_of_the_decoder_is_at_most_120_operators(more, monkeypatch):
    """What a graph records, or what is launched one by one without."""
    monkeypatch.setenv("OFA_CUDA_GRAPHS", "0")
    steps, stock = [], StaticCache.compute

    def compute(cache, *arguments) -> None:
        before = gpu.operators.total()
        stock(cache, *arguments)
        steps.append(gpu.operators.total() - before)

    monkeypatch.setattr(StaticCache, "compute", compute)
    expected = generator_of("beam", decoder_of_ofa_base(**more)).generate(None, photo_batch())
    with PretendGPU() as gpu:
        model = gpu.move(decoder_of_ofa_base(**more))
        found = generator_of("beam", model).generate(None, gpu.move(photo_batch()))
    assert_same(found, expected)
    assert set(steps) == {120}


@pytest.mark.parametrize("name", ["beam", "top-k", "codes", "trie"])
def test_a_token_takes_few_launches_at_the_depth_of_ofa_base(name, graphs, monkeypatch):
    with PretendGPU() as gpu:
        model = gpu.move(decoder_of_ofa_base())
        generator, sample = generator_of(name, model), {**gpu.move(photo_batch()), **SEEDS}
        generator.generate(None, sample)
        look = lambda: (sum(gpu.operators.values()), sum(gpu.waits.values()))  # noqa: E731
        seen = steps_of(monkeypatch, look)
        generator.generate(None, sample)
    steps = [(more - some, later - before) for (some, before), (more, later) in pairwise(seen)]
    assert max(launched for launched, _ in steps[1:]) <= LAUNCHES
    assert {waits for _, waits in steps[1:]} == {1}


def test_a_trie_that_was_compiled_before_is_not_waited_for(graphs):
    with PretendGPU() as gpu:
        sample = {**gpu.move(photo_batch()), **SEEDS}
        generator = generator_of("trie", gpu.move(build_awake(VOCAB)))
        generator.generate(None, sample)
        gpu.reset()
        generator.generate(None, sample)
    assert not [place for place in gpu.waits if "trie" in place or "constraints" in place]


def test_a_hook_is_asked_for_images_that_remain(graphs):
    asked: list[tuple[int, int]] = []

    def hook(row: int, tokens: torch.Tensor) -> list[int]:
        asked.append((row, len(tokens)))
        return [EOS] if row == 1 and len(tokens) > 2 else [20 + row, 30, 40]

    options = GenerationOptions(beam=1, max_len_b=5, prefix_allowed_tokens_fn=hook)
    expected = SequenceGenerator([build_awake(VOCAB)], options, VOCAB).generate(None, photo_batch())
    on_cpu, asked = asked, []
    with PretendGPU() as gpu:
        generator = SequenceGenerator([gpu.move(build_awake(VOCAB))], options, VOCAB)
        found = generator.generate(None, gpu.move(photo_batch()))
    assert_same(found, expected)
    assert asked == on_cpu and (1, 4) not in asked and not graphs and not gpu.mixed


def test_where_recording_fails_the_steps_run_by_themselves(graphs, monkeypatch, caplog):
    def refuse(*unused: Any, **also_unused: Any) -> None:
        raise RuntimeError("CUDA error: operation not supported")

    monkeypatch.setattr(PretendGraph, "capture_begin", refuse)
    expected = generator_of("beam", build_awake(VOCAB)).generate(None, photo_batch())
    with PretendGPU() as gpu:
        generator = generator_of("beam", gpu.move(build_awake(VOCAB)))
        assert_same(generator.generate(None, gpu.move(photo_batch())), expected)
    assert caplog.text.count("operation not supported") == 1


def test_graphs_can_be_switched_off(graphs, monkeypatch):
    monkeypatch.setenv("OFA_CUDA_GRAPHS", "0")
    with PretendGPU() as gpu:
        generator_of("beam", gpu.move(build_awake(VOCAB))).generate(None, gpu.move(photo_batch()))
    assert not graphs


def test_hypotheses_are_copied_to_the_host_in_two_pieces(monkeypatch):
    with PretendGPU() as gpu:
        model, sample = gpu.move(build_awake(VOCAB)), gpu.move(photo_batch())
        generator = generator_of("beam", model)
        encoded = generator.encode(None, sample)
        gpu.reset()
        waits = steps_of(monkeypatch, lambda: sum(gpu.waits.values()))
        (first, *_), *_ = generator.generate(None, sample, encoded=encoded)
    assert first["tokens"].device == first["score"].device == torch.device("cpu")
    copies = [n for place, n in gpu.waits.items() if "search.py" in place]
    assert sum(copies) == 2 and len(waits) > 3


def test_answers_are_ranked_without_waiting_once_the_tables_are_there():
    with PretendGPU() as gpu:
        model, sample = gpu.move(build_awake(VOCAB)), gpu.move(photo_batch())
        ranker, prompts = AnswerRanker(answers(), BOS, nodes_at_once=2), [[BOS], [BOS], [BOS, 20]]
        generator = generator_of("trie", model)
        encoded = generator.encode(None, sample)
        ranker.scores([model], sample, prompts, encoded)
        gpu.reset()
        ranker.scores([model], sample, prompts, encoded)
    places = {place for place in gpu.waits if "ranking" in place}
    assert not places and not gpu.mixed
