"""The whole network with the kernels of a GPU, on a CPU, compared with the CPU's own."""

import random

import pytest
import torch
from small_network import build_small

from ofa.models import attention
from ofa.models.attention import flex_attention, shared_bias_attention

VOCAB, PAD = 90, 1
MODES = {
    "text": dict(images=0),
    "image": {},
    "two images": dict(images=2, num_image_types=2),
    "missing image": dict(masks=[True, False, True]),
    "sampled patches": dict(masks=[True, False, True], sample_patch_num=3),
    "prompts": dict(
        encoder_prompt=True,
        encoder_prompt_length=3,
        decoder_prompt=True,
        decoder_prompt_length=2,
        prompt_dropout=0.0,
    ),
    "image codes": dict(codes=[True] * 3),
    "image codes and text": dict(codes=[False, True, False]),
    "all parts": dict(
        scale_attn=True, scale_fc=True, scale_heads=True, scale_resids=True, disable_entangle=True
    ),
}


@pytest.fixture(autouse=True)
def small_masks_are_large(monkeypatch):
    monkeypatch.setattr(attention, "LARGE_MASK", 0)


def outputs_and_gradients(images=1, masks=None, codes=None, sample_patch_num=None, **switches):
    """Logits of what is no padding, and the gradient of every parameter."""
    model = build_small(VOCAB, **switches).train()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # away from the start, where biases are almost 0
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    tokens = torch.randint(4, VOCAB, (3, 7), generator=generator)
    tokens[1, 4:], tokens[2, 6:] = PAD, PAD
    shown = torch.randn(2, 3, 3, 48, 48, generator=generator)
    inputs = dict(zip(("patch_images", "patch_images_2"), shown[:images]))
    inputs["patch_masks"] = None if masks is None else torch.tensor(masks)
    inputs["code_masks"] = None if codes is None else torch.tensor(codes)
    random.seed(0)
    logits, _ = model(
        tokens, prev_output_tokens=tokens, sample_patch_num=sample_patch_num, **inputs
    )
    logits = logits[tokens.ne(PAD)]
    (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
    return logits, {name: one.grad for name, one in model.named_parameters()}


def check(mode, kernel, monkeypatch):
    expected, gradients = outputs_and_gradients(**MODES[mode])
    calls = []

    def choose(*inputs):
        calls.append(inputs)
        return kernel

    monkeypatch.setattr(attention, "choose_kernel", choose)
    found, found_gradients = outputs_and_gradients(**MODES[mode])
    assert calls
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    scale = max(one.abs().max() for one in gradients.values() if one is not None)
    assert found_gradients.keys() == gradients.keys()
    for name, wanted in gradients.items():
        if wanted is not None:
            difference = (found_gradients[name] - wanted).abs().max()
            assert difference < 1e-6 * scale + 1e-5 * wanted.abs().max(), name


@pytest.mark.parametrize("mode", MODES)
def test_a_bias_shared_by_all_samples_changes_no_output_and_no_gradient(mode, monkeypatch):
    check(mode, shared_bias_attention, monkeypatch)


@pytest.mark.parametrize("mode", ["missing image", "sampled patches", "prompts"])
def test_flex_attention_changes_no_output_and_no_gradient(mode, monkeypatch):
    from torch.nn.attention import flex_attention as flex

    # eager, and torch's own check lets no gradient pass on CPU
    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(attention, "compiled_flex", lambda: flex.flex_attention)
    check(mode, flex_attention, monkeypatch)
