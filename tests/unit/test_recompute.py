"""Cheap values of a layer: made again in the backward pass, to the same numbers."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from small_network import build_small
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from ofa.models import layers
from ofa.models.recompute import cheap, recomputing, recomputing_pays

VOCAB = 90
SWITCHES = {
    "plain": {},
    "all parts": dict(scale_attn=True, scale_fc=True, scale_heads=True, scale_resids=True),
    "dropout": dict(dropout=0.1, activation_dropout=0.1, encoder_drop_path_rate=0.2),
    "other activation": dict(activation_fn="relu"),
    "no activation": dict(activation_fn="linear"),
    "lora": dict(lora_rank=2, lora_targets="q,v,fc1,fc2"),
    "prompts": dict(encoder_prompt=True, encoder_prompt_length=3, decoder_prompt=True),
    "after each block": dict(encoder_normalize_before=False, decoder_normalize_before=False),
}


def step(**switches):
    """Logits, and the gradient of every parameter that trains."""
    model = build_small(VOCAB, **switches).train()
    torch.manual_seed(1)
    tokens = torch.randint(4, VOCAB, (2, 6))
    logits, _ = model(tokens, prev_output_tokens=tokens, patch_images=torch.randn(2, 3, 32, 32))
    logits.logsumexp(-1).sum().backward()
    return logits, {name: one.grad for name, one in model.named_parameters()}


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_outputs_and_gradients_are_the_same_bit_for_bit(switches, monkeypatch):
    expected, gradients = step(**switches)
    monkeypatch.setattr(layers, "recomputing_pays", lambda x: True)
    found, found_gradients = step(**switches)
    assert torch.equal(found, expected)
    for name, wanted in gradients.items():
        assert wanted is found_gradients[name] or torch.equal(wanted, found_gradients[name]), name


def feed_forward(x, norm, product, activation=F.gelu):
    return product(cheap(norm, cheap(activation, x)))


def test_a_value_with_several_uses_is_made_once_per_backward_pass():
    calls = []

    def activation(x):
        calls.append(torch.is_grad_enabled())
        return F.gelu(x)

    x = torch.randn(2, 3, 8, requires_grad=True)
    with recomputing():
        y = feed_forward(x, nn.LayerNorm(8), nn.Linear(8, 8), activation).sum()
    assert calls == [True]
    y.backward(retain_graph=True)
    assert calls == [True, False]
    y.backward()
    assert calls == [True, False, False]


@pytest.mark.parametrize("recomputes", [True, False])
def test_cheap_values_are_not_kept(recomputes):
    alive = []

    def activation(x):
        y = F.gelu(x)
        alive.append(StorageWeakRef(y.untyped_storage()))
        return y

    x = torch.randn(2, 3, 8, requires_grad=True)
    with recomputing() if recomputes else nullcontext():
        result = feed_forward(x, nn.LayerNorm(8), nn.Linear(8, 8), activation)
    assert alive[0].expired() == recomputes
    result.sum().backward()


def test_large_layers_recompute_in_training_on_a_gpu_alone(monkeypatch):
    def layer_input(device, numbers):
        return SimpleNamespace(device=torch.device(device), numel=lambda: numbers)

    assert recomputing_pays(layer_input("cuda", 1 << 23))
    assert not recomputing_pays(layer_input("cuda", 1 << 20))
    assert not recomputing_pays(layer_input("cpu", 1 << 23))
    with torch.no_grad():
        assert not recomputing_pays(layer_input("cuda", 1 << 23))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    assert not recomputing_pays(layer_input("cuda", 1 << 23))
