"""The network on a GPU: it waits for nothing, and mixes no devices, in any of its modes."""

import random

import pytest
import torch
from flex_written_out import flex_written_out
from pretend_gpu import PretendGPU, host
from small_network import build_small

from ofa.data.collate import facts_of
from ofa.models import attention, attention_trial, flex_attention

PROMPTS = dict(
    encoder_prompt=True, decoder_prompt=True, encoder_prompt_length=3, decoder_prompt_length=3
)
# name -> fields of the configuration, of the batch, further arguments
MODES: dict[str, tuple[dict, dict, dict]] = {
    "image and text": ({}, {}, {}),
    "text": ({}, dict(images=0), {}),
    "no padding": ({}, dict(padded=False), {}),
    "two images": (dict(num_image_types=2), dict(images=2), {}),
    "image codes": ({}, dict(codes=[True, True]), {}),
    "codes and texts": ({}, dict(codes=[True, False]), {}),
    "some patches": ({}, {}, dict(sample_patch_num=5)),
    "chosen positions": ({}, {}, dict(output_positions=torch.tensor([0, 3, 5]))),
    "attention": ({}, {}, dict(return_attention=True, return_all_hiddens=True)),
    "prompts": (PROMPTS, {}, {}),
    "adapters": (dict(adapter=True), {}, {}),
    "LoRA": (dict(lora_rank=2, lora_targets="q,k,v,out,fc1,fc2,image", lora_dropout=0.1), {}, {}),
    "dropout": (dict(dropout=0.1, attention_dropout=0.1, encoder_drop_path_rate=0.1), {}, {}),
    "frozen statistics": (dict(freeze_resnet=True), {}, {}),
    "image paths dropped": (dict(resnet_drop_path_rate=0.2), {}, {}),
    "layers dropped": (dict(encoder_layerdrop=0.3, decoder_layerdrop=0.3), {}, {}),
    "checkpoints": (dict(checkpoint_activations=True), {}, {}),
    "entangled positions": (dict(disable_entangle=False, entangle_position_embedding=True), {}, {}),
    "stretched positions": (dict(interpolate_position=True, orig_patch_image_size=32), {}, {}),
    "norm behind": (dict(encoder_normalize_before=False, decoder_normalize_before=False), {}, {}),
}


def batch(images: int = 1, codes: list[bool] | None = None, padded: bool = True) -> dict:
    torch.manual_seed(1)
    found = {
        "src_tokens": torch.randint(4, 30, (2, 6)),
        "prev_output_tokens": torch.randint(4, 30, (2, 5)),
    }
    if padded:
        found["src_tokens"][1, 4:] = found["prev_output_tokens"][1, 3:] = 1
    for name in ("patch_images", "patch_images_2")[:images]:
        found[name] = torch.randn(2, 3, 64, 64)
    if images:
        found["patch_masks"] = torch.tensor([True, not padded])
    if codes:
        found["code_masks"] = torch.tensor(codes)
    return found


def run(mode: str, knows: bool = True):
    """Forward and backward on the pretend GPU. Returns: what it counted, the output."""
    switches, shape, more = MODES[mode]
    model, inputs = build_small(30, **switches).train(), batch(**shape)
    facts = {"facts": facts_of(inputs, pad=1)} if knows else {}
    torch.manual_seed(2)
    random.seed(2)
    with PretendGPU() as gpu:
        model, inputs = gpu.move(model), gpu.move({**inputs, **more})
        output, _ = model(**inputs, **facts)
        output.logsumexp(-1).sum().backward()
    return gpu, host(output).detach()


@pytest.mark.parametrize("mode", MODES)
def test_a_step_waits_for_nothing_and_mixes_no_devices(mode):
    gpu, output = run(mode)
    assert not gpu.mixed and not gpu.waits
    assert output.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_with_a_bias_in_parts_it_waits_for_nothing_either(mode, monkeypatch):
    expected = run(mode)[1]
    monkeypatch.setattr(attention, "CHOICE", "flex")
    monkeypatch.setattr(attention_trial, "tried", lambda *kind: attention_trial.Trial(True, 0.9))
    monkeypatch.setattr(attention_trial, "is_in_torch_dispatch_mode", lambda: False)
    monkeypatch.setattr(flex_attention, "compiled_flex", lambda: noted)
    calls = []

    def noted(*inputs, **options):
        calls.append(inputs)
        return flex_written_out(*inputs, **options)

    gpu, output = run(mode)
    assert not gpu.mixed and not gpu.waits
    assert bool(calls) == (mode != "dropout")  # of attention weights
    torch.testing.assert_close(output, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mode", ["image and text", "no padding", "two images"])
def test_without_facts_it_does_not_wait_either(mode):
    gpu, output = run(mode, knows=False)
    assert not gpu.waits
    torch.testing.assert_close(output, run(mode)[1], rtol=0, atol=2e-6)


def test_a_batch_without_padding_is_not_masked_where_that_is_known():
    def fills(**how) -> int:
        return run("no padding", **how)[0].operators["masked_fill"]

    assert fills(knows=False) > fills()
