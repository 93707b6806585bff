"""Several targets of a sample look at its one encoding; the result is that of separate samples."""

import pytest
import torch
from small_network import build_awake

from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions

B, K, T, VOCAB = 3, 2, 6, 60
SWITCHES = {
    "plain": dict(),
    "run-script switches": dict(
        scale_attn=True, scale_fc=True, scale_heads=True, disable_entangle=True
    ),
    "prefix": dict(decoder_prompt=True, decoder_prompt_length=3),
    "checkpointed": dict(checkpoint_activations=True),
}


def batch() -> dict:
    torch.manual_seed(1)
    src_tokens = torch.randint(4, VOCAB, (B, 5))
    src_tokens[1, 3:] = 1
    patch_masks = torch.tensor([True, True, False])
    return {
        "src_tokens": src_tokens,
        "patch_images": torch.randn(B, 3, 32, 32),
        "patch_masks": patch_masks,
    }


def targets() -> torch.Tensor:
    torch.manual_seed(2)
    tokens = torch.randint(4, VOCAB, (B * K, T))
    tokens[:, 0] = 0
    tokens[1, 4:] = tokens[4, 2:] = 1
    return tokens


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize(
    "code_masks", [None, torch.tensor([False, True, True])], ids=["text", "mixed"]
)
def test_logits_and_gradients_equal_those_of_repeated_samples(name, code_masks):
    """In evaluation mode, because batch norm estimates other running averages from repeated
    images."""
    found = []
    for shared in (True, False):
        model = build_awake(VOCAB, **SWITCHES[name])
        inputs, masks = batch(), code_masks
        if not shared:
            inputs = {name: value.repeat_interleave(K, 0) for name, value in inputs.items()}
            masks = None if masks is None else masks.repeat_interleave(K)
        logits, extra = model(
            **inputs, prev_output_tokens=targets(), code_masks=masks, return_attention=True
        )
        weights = torch.arange(logits.numel()).cos().view_as(logits)
        (logits * weights).sum().backward()
        found.append((logits, extra["attn"][0], model))
    (logits, attention, model), (expected, expected_attention, separate) = found
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(attention, expected_attention, atol=1e-5, rtol=1e-5)
    for (parameter_name, parameter), other in zip(model.named_parameters(), separate.parameters()):
        if parameter.grad is None:
            assert other.grad is None, parameter_name
        else:
            scale = float(other.grad.abs().max())
            torch.testing.assert_close(
                parameter.grad, other.grad, atol=1e-4 * scale + 1e-5, rtol=1e-3
            )


def test_an_uneven_number_of_targets_is_our_own_mistake():
    with pytest.raises(AssertionError, match="same number of targets"):
        build_awake(VOCAB)(**batch(), prev_output_tokens=targets()[:4])


def test_a_generator_generates_again_from_one_encoding():
    model, sample = build_awake(VOCAB), {"net_input": batch()}
    beam, greedy = (
        SequenceGenerator([model], GenerationOptions(beam=k, max_len_b=5), VOCAB) for k in (3, 1)
    )
    expected = [generator.generate([model], sample) for generator in (beam, greedy)]
    images = []
    model.encoder.register_forward_hook(
        lambda module, inputs, output: images.append(len(output.states))
    )
    encoded = beam.encode([model], sample)
    found = [generator.generate([model], sample, encoded=encoded) for generator in (beam, greedy)]
    assert images == [B]
    for some, others in zip(found, expected):
        for hypotheses, wanted in zip(some, others):
            assert [h["tokens"].tolist() for h in hypotheses] == [
                h["tokens"].tolist() for h in wanted
            ]
