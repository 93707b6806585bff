"""Parameter-efficient tuning learns: a network that repeats the first word of a text is taught to
judge it, by parameter-efficient tuning.

A text is four words of twelve. The base says the first one again; the new task is whether it is one
of six "good" words.
"""

import pytest
import torch
from small_network import build_small
from torch.nn import functional as F

from ofa.checkpoints.adapt import load_into
from ofa.models.ofa_model import OFAModel
from ofa.models.peft import freeze, tuned_names

WORDS, GOOD, YES, NO, VOCAB = range(4, 16), (4, 7, 8, 11, 13, 14), 16, 17, 20
SIZES = dict(
    encoder_embed_dim=32,
    encoder_ffn_embed_dim=64,
    encoder_layers=1,
    decoder_layers=1,
    init_std=0.15,
)
PROMPTS = dict(
    encoder_prompt=True,
    decoder_prompt=True,
    encoder_prompt_length=4,
    decoder_prompt_length=4,
    prompt_dropout=0.0,
)
METHODS = {  # fields of the configuration, learning rate
    "prefix": (PROMPTS, 1.0),
    "adapter": (dict(adapter=True, adapter_dim=8), 0.02),
    "bitfit": (dict(bitfit=True), 0.02),
    "lora": (dict(lora_rank=4, lora_alpha=8.0, lora_targets="q,v,fc1,fc2"), 0.02),
}


def texts(count: int, seed: int) -> torch.Tensor:
    return torch.randint(
        WORDS.start, WORDS.stop, (count, 4), generator=torch.Generator().manual_seed(seed)
    )


def judged(source: torch.Tensor) -> torch.Tensor:
    good = torch.isin(source[:, 0], torch.tensor(GOOD))
    return torch.where(good, YES, NO)


def answers(model: OFAModel, source: torch.Tensor) -> torch.Tensor:
    return model(source, prev_output_tokens=torch.zeros(len(source), 1, dtype=torch.int64))[0][:, 0]


def learn(model: OFAModel, target, rate: float, steps: int, seed: int) -> None:
    """Args: target: source -> answers."""
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate
    )
    model.train()
    for step in range(steps):
        source = texts(32, 1000 * seed + step)
        optimizer.zero_grad()
        F.cross_entropy(answers(model, source), target(source)).backward()
        optimizer.step()
    model.eval()


@torch.no_grad()
def accuracy(model: OFAModel, target) -> float:
    source = texts(500, 10**6)  # of a seed that no training has
    return (answers(model, source).argmax(-1) == target(source)).float().mean().item()


@pytest.fixture(scope="module")
def base() -> OFAModel:
    model = build_small(VOCAB, **SIZES)
    learn(model, lambda source: source[:, 0], 5e-3, 150, seed=0)
    assert accuracy(model, lambda source: source[:, 0]) > 0.95 and accuracy(model, judged) < 0.1
    return model


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", METHODS)
def test_few_parameters_learn_a_new_task(base, method, seed):
    """The constant baseline is right in half of the texts."""
    switches, rate = METHODS[method]
    model = build_small(VOCAB, **SIZES, **switches)
    load_into(model, base.state_dict())
    freeze(model)
    learn(model, judged, rate, 200, seed)
    tuned = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name in tuned_names(model)
    )
    assert tuned < sum(parameter.numel() for parameter in base.parameters()) / 5
    assert accuracy(model, judged) > 0.8
