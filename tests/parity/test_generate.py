"""Generation against upstream's model's hypotheses: equal tokens, scores within 1e-3."""

from argparse import Namespace
from functools import lru_cache

import numpy as np
import pytest
import torch
from conftest import bpe_folder
from fill import fill_state_dict, images_from_u8
from golden import load, names

from ofa.models.config import ModelConfig
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions
from ofa.models.ofa_model import OFAModel
from ofa.tokens.trie import Trie

VOCAB_SIZE = 59457  # upstream's English vocabulary
CASES = [name for name in names("generate_*") if "allcand" not in name and "seeded" not in name]
SEARCHES = {"beam": {}, "sampling top-k 1": {"sampling": True, "sampling_topk": 1}}


def parse_flags(flags: list[str]) -> dict:
    """``--encoder-layers=2 --scale-attn`` -> ``{"encoder_layers": 2, "scale_attn": True}``."""
    values = {}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        kinds = (int, float, str)
        values[name.replace("-", "_")] = (
            True if not value else next(v for v in map(read_as(value), kinds) if v is not None)
        )
    return values


def read_as(text: str):
    def read(kind):
        try:
            return kind(text)
        except ValueError:
            return None

    return read


@lru_cache(maxsize=2)
def build_model(
    arch: str, flags: tuple[str, ...], seed: int, logit_scale: float, rows: tuple, scales: tuple
) -> OFAModel:
    model = OFAModel(ModelConfig.from_namespace(Namespace(**parse_flags(flags)), arch), VOCAB_SIZE)
    fill_state_dict(model.state_dict(), seed, logit_scale, dict(rows), dict(scales))
    return model.eval()


def models_of(meta: dict) -> list[OFAModel]:
    flags = tuple(
        f
        for f in meta["flags"]
        if not f.startswith(("--constraint-range", "--prompt-type", "--val", "--uncon"))
    )
    rows, scales = tuple(meta["row_scale"].items()), tuple(meta["name_scale"].items())
    seeds = meta.get("ensemble_seeds", [meta["seed"]])
    return [
        build_model(meta["arch"], flags, seed, meta["logit_scale"], rows, scales) for seed in seeds
    ]


def generator_of(meta: dict, models: list[OFAModel]) -> SequenceGenerator:
    arguments = dict(meta["gen_args"])
    arguments |= SEARCHES[arguments.pop("search", "beam")]
    constraint_range = parse_flags(meta["flags"]).get("constraint_range")
    options = GenerationOptions.from_namespace(
        Namespace(**arguments), constraint_range=constraint_range
    )
    generator = SequenceGenerator(models, options, VOCAB_SIZE)
    generator.zero_shot = meta.get("zero_shot", False)
    return generator


def batch_of(case: dict) -> dict:
    net_input = {
        "src_tokens": torch.from_numpy(case["src_tokens"]),
        "src_lengths": torch.from_numpy(case["src_lengths"]),
    }
    if "patch_images_u8" in case:
        net_input["patch_images"] = torch.from_numpy(images_from_u8(case["patch_images_u8"]))
        net_input["patch_masks"] = torch.from_numpy(case["patch_masks"])
    return {"net_input": net_input}


def prefix_of(case: dict) -> torch.Tensor | None:
    return torch.from_numpy(case["prefix_tokens"]) if "prefix_tokens" in case else None


def check(hypotheses: list[list[dict]], case: dict) -> None:
    for row, best in enumerate(hypotheses):
        assert len(best) == case["out_tokens"].shape[1]
        for rank, hypothesis in enumerate(best):
            length = case["out_lengths"][row, rank]
            expected = case["out_tokens"][row, rank, :length]
            assert hypothesis["tokens"].tolist() == expected.tolist(), f"row {row}, rank {rank}"
            np.testing.assert_allclose(
                hypothesis["score"].item(), case["out_scores"][row, rank], rtol=0, atol=1e-3
            )
            positional = case["out_positional_scores"][row, rank, :length]
            np.testing.assert_allclose(
                hypothesis["positional_scores"].numpy(), positional, rtol=0, atol=1e-3
            )


def run(case: dict, trie: Trie | None = None) -> list[list[dict]]:
    models = models_of(case["meta"])
    generator = generator_of(case["meta"], models)
    generator.constraint_trie = trie
    return generator.generate(models, batch_of(case), prefix_tokens=prefix_of(case))


@pytest.mark.parametrize("name", [name for name in CASES if "trie" not in name])
def test_hypotheses_are_those_of_upstream(name):
    case = load(name)
    check(run(case), case)


@pytest.mark.parametrize("name", [name for name in CASES if "trie" in name])
def test_answers_from_a_trie_are_those_of_upstream(name):
    from ofa.tokens.bpe import load_bpe
    from ofa.tokens.vocabulary import Vocabulary

    folder, case = bpe_folder("gpt2"), load(name)
    bpe, vocabulary = load_bpe(folder), Vocabulary.from_folder(folder)
    answers = [
        [0, *vocabulary.ids(bpe.encode(" " + answer)), 2]
        for answer in case["meta"]["ans2label_dict"]
    ]
    check(run(case, Trie(2, answers)), case)


@pytest.mark.parametrize("name", [name for name in CASES if "trie" in name])
def test_a_trie_of_the_recorded_answers_alone_gives_them_back(name):
    """The answers as token ids are those that were generated: no BPE is needed. Fewer answers,
    other
    normalization: the scores may only rise, and without renormalization they stay.
    """
    case = load(name)
    prefix = case.get("prefix_tokens")
    answers = set()
    for row, hypotheses in enumerate(case["out_tokens"]):
        skip = 0 if prefix is None else int((prefix[row] != 1).sum())
        answers |= {tuple(int(t) for t in hypothesis[skip:] if t >= 0) for hypothesis in hypotheses}
    hypotheses = run(case, Trie(2, [[0, *answer] for answer in sorted(answers)]))
    for row, best in enumerate(hypotheses):
        recorded = {
            tuple(int(t) for t in tokens if t >= 0): score
            for tokens, score in zip(case["out_tokens"][row], case["out_scores"][row])
        }
        for hypothesis in best:
            score = recorded.pop(tuple(hypothesis["tokens"].tolist()), None)
            if score is not None and case["meta"].get("zero_shot"):
                assert abs(hypothesis["score"].item() - score) < 1e-3
            elif score is not None:
                assert hypothesis["score"].item() > score - 1e-3
        if case["meta"].get("zero_shot"):
            assert not recorded
