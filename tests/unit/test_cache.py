"""Generating step by step must give what the decoder gives for whole targets."""

import pytest
import torch
from small_network import build_awake

from ofa.models.ofa_model import OFAModel

SWITCHES = {
    "run-script switches": dict(
        scale_attn=True, scale_fc=True, scale_heads=True, disable_entangle=True
    ),
    "no switches": dict(),
    "norms at the end": dict(
        encoder_normalize_before=False, decoder_normalize_before=False, scale_resids=True
    ),
    "prefix": dict(
        encoder_prompt=True,
        decoder_prompt=True,
        encoder_prompt_length=3,
        decoder_prompt_length=5,
        decoder_prompt_projection=True,
    ),
    "adapter": dict(adapter=True, adapter_dim=8, scale_heads=True),
    "own output table": dict(share_all_embeddings=False, share_decoder_input_output_embed=False),
    "two images": dict(num_image_types=2),
}
B, K, T, VOCAB = 3, 2, 40, 60


def sample(two_images: bool = False) -> dict:
    torch.manual_seed(1)
    src_tokens = torch.randint(4, VOCAB, (B, 7))
    src_tokens[1, 4:] = 1
    batch = {
        "src_tokens": src_tokens,
        "patch_images": torch.randn(B, 3, 32, 64),
        "patch_masks": torch.tensor([True, True, False]),
    }
    if two_images:
        batch["patch_images_2"] = torch.randn(B, 3, 48, 32)
    return batch


def in_full(model: OFAModel, batch: dict, tokens: torch.Tensor, code_masks=None) -> torch.Tensor:
    """Logits (B, K, T, V), every beam as a sample of its own."""
    beams = [
        model(**batch, prev_output_tokens=tokens[:, k], code_masks=code_masks)[0]
        for k in range(tokens.size(1))
    ]
    return torch.stack(beams, dim=1)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize(
    "code_masks",
    [None, torch.tensor([True] * B), torch.tensor([False, True, True])],
    ids=["text", "codes", "mixed"],
)
@torch.no_grad()
def test_steps_equal_the_full_forward(name, code_masks):
    model, batch = build_awake(VOCAB, **SWITCHES[name]), sample(name == "two images")
    tokens = torch.randint(4, VOCAB, (B, K, T))
    expected = in_full(model, batch, tokens, code_masks)
    cache = model.decoder.start(model.encode(**batch), K, T, code_masks)
    found = [model.decoder.step(tokens[:, :, :3], cache)]
    found += [model.decoder.step(tokens[:, :, t], cache) for t in range(3, T)]
    assert cache.length == T
    torch.testing.assert_close(torch.stack(found, 2), expected[:, :, 2:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_reordered_beams_continue_their_parents():
    model, batch = build_awake(VOCAB, **SWITCHES["prefix"]), sample()
    # fewer beams and tokens than will come
    cache = model.decoder.start(model.encode(**batch), 2, 4)
    first = torch.randint(4, VOCAB, (B, 1))
    model.decoder.step(first, cache)
    cache.reorder(torch.zeros(B, 3, dtype=torch.long))
    second = torch.randint(4, VOCAB, (B, 3))
    model.decoder.step(second, cache)
    parents = torch.tensor([[2, 0, 0], [1, 1, 2], [0, 1, 2]])
    cache.reorder(parents)
    third = torch.randint(4, VOCAB, (B, 3, 4))
    found = model.decoder.step(third, cache)
    history = torch.cat(
        [first[:, None].expand(B, 3, 1), second.gather(1, parents)[:, :, None], third], dim=2
    )
    torch.testing.assert_close(
        found, in_full(model, batch, history)[:, :, -1], atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "code_masks", [None, torch.tensor([False, True, True])], ids=["text", "mixed"]
)
def test_finished_images_can_leave_the_batch(code_masks):
    model, batch = build_awake(VOCAB, **SWITCHES["run-script switches"]), sample()
    tokens = torch.randint(4, VOCAB, (B, K, T))
    expected = in_full(model, batch, tokens, code_masks)
    cache = model.decoder.start(model.encode(**batch), K, T, code_masks)
    model.decoder.step(tokens[:, :, :2], cache)
    left = torch.tensor([2, 1])
    cache.select(left)
    found = [model.decoder.step(tokens[left, :, t], cache) for t in range(2, T)]
    torch.testing.assert_close(torch.stack(found, 2), expected[left, :, 2:], atol=1e-5, rtol=1e-4)
    cache.select(torch.tensor([1]))
    assert cache.images == 1


@torch.no_grad()
def test_a_prefix_can_grow_beams_beyond_the_announced_room():
    model, batch = build_awake(VOCAB), sample()
    tokens = torch.randint(4, VOCAB, (B, 4, 9))
    cache = model.decoder.start(model.encode(**batch), 1, 2)
    found = model.decoder.step(tokens, cache)
    torch.testing.assert_close(found, in_full(model, batch, tokens)[:, :, -1], atol=1e-5, rtol=1e-4)
