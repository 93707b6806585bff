"""Batch norms of the image stem in a 16-bit network."""

import pytest
import torch

from ofa.models import image_stems
from ofa.models.image_stems import BatchNorm, FrozenBatchNorm, ResNet, SyncedBatchNorm

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
STATISTICS = "running_mean", "running_var"


def stem(**switches) -> ResNet:
    torch.manual_seed(0)
    made = ResNet("resnet18", 8, **switches)
    for name, tensor in made.state_dict().items():
        if "bn" in name and name.endswith(("weight", "bias")):
            tensor += torch.rand_like(tensor) - 0.5
    return made.train()


def images(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The same numbers in each type."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(4, 3, 48, 48, generator=generator) * 2 + 1).bfloat16().to(dtype)


def statistics(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in network.named_buffers() if name.endswith(STATISTICS)}


@HALVES
@pytest.mark.parametrize("kind", [BatchNorm, FrozenBatchNorm, SyncedBatchNorm])
def test_statistics_keep_their_numbers_and_type_when_a_norm_becomes_16_bit(kind, dtype):
    norm = kind(5)
    norm.running_mean += torch.rand(5)
    before = norm.running_mean.clone()
    assert norm.to(dtype).weight.dtype == dtype
    assert torch.equal(norm.running_mean, before) and norm.running_var.dtype == torch.float32
    assert norm.to("meta").running_mean.is_meta
    assert kind(5).double().running_mean.dtype == torch.float64


def test_statistics_of_a_bfloat16_training_follow_those_of_float32():
    exact, rounded = stem(), stem().bfloat16()
    for seed in range(12):
        exact(images(seed))
        rounded(images(seed, torch.bfloat16))
    found = statistics(rounded)
    for name in ("bn1.running_mean", "bn1.running_var", "layer1.0.bn1.running_var"):
        wanted = statistics(exact)[name]
        # kept in bfloat16 they are off by 0.02
        assert (found[name] - wanted).abs().max() < 0.003 * wanted.abs().max(), name


@HALVES
@pytest.mark.parametrize("switches", [{}, {"frozen_bn": True}, {"sync_bn": True}])
def test_a_16_bit_stem_is_that_of_float32_but_for_rounding(switches, dtype):
    exact, rounded = stem(**switches), stem(**switches).to(dtype)
    for training in (True, False):
        wanted = exact.train(training)(images(0))
        found = rounded.train(training)(images(0, dtype))
        assert found.dtype == dtype
        assert (found - wanted).abs().mean() < 0.02 * wanted.abs().max()


@HALVES
def test_checkpoints_of_both_types_load(dtype):
    source, state = stem(), {}
    source(images(0))
    for name, tensor in source.state_dict().items():
        state[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    for given in (source.state_dict(), state):
        network = stem().to(dtype)
        assert not any(network.load_state_dict(given))
        for name, tensor in statistics(network).items():
            assert tensor.dtype == torch.float32 and torch.equal(tensor, given[name].float())


@HALVES
def test_one_copy_of_all_weights_gives_what_a_copy_of_each_does(dtype, monkeypatch):
    shared, single = stem().to(dtype), stem().to(dtype)
    outputs = [shared(images(0, dtype))]
    monkeypatch.setattr(image_stems, "share_float32", lambda network: [])
    outputs.append(single(images(0, dtype)))
    assert torch.equal(*outputs)
    for output in outputs:
        output.float().square().mean().backward()
    for (name, one), other in zip(shared.named_parameters(), single.parameters()):
        assert one.grad.dtype == dtype and torch.equal(one.grad, other.grad), name
    assert all(norm.float32 is None for norm in shared.modules() if isinstance(norm, BatchNorm))
