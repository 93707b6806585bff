"""How many operators clipping, Adam, 16-bit copies and averages launch: few, and no more of them
for more tensors."""

from types import SimpleNamespace

import pytest
import torch
from fairseq import optim
from fairseq_setup import configuration
from pretend_gpu import PretendGPU, pretend_cuda

from ofa.trainer import fairseq_adam as adam
from ofa.trainer.fairseq_weights import ModelAverages


@pytest.fixture
def gpu(monkeypatch):
    with PretendGPU() as gpu:
        pretend_cuda(monkeypatch, gpu)
        yield gpu


def network(gpu, layers: int, kind: torch.dtype) -> torch.nn.Module:
    return gpu.move(torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(layers))).to(kind))


def update(gpu, layers: int, *flags: str) -> int:
    """Operators of an update after backward. Args: layers: each has two parameters."""
    words = "--task=caption --arch=ofa_nano --optimizer=adam --lr=0.01 --adam-betas=(0.9,0.999)"
    cfg = configuration(["a.tsv,b.tsv", *words.split(), *flags])
    efficient = cfg.common.memory_efficient_fp16 or cfg.common.memory_efficient_bf16
    kind = torch.bfloat16 if cfg.common.bf16 else torch.float16
    params = list(network(gpu, layers, kind).parameters())
    build = optim.MemoryEfficientFP16Optimizer if efficient else optim.FP16Optimizer
    optimizer = build.build_optimizer(cfg, params)
    adam.use_few_operators(optimizer)
    for _ in range(2):  # the first makes the moments
        optimizer.zero_grad()
        optimizer.backward(sum(param.float().sum() for param in params))
        gpu.reset()
        optimizer.multiply_grads(0.5)
        optimizer.clip_grad_norm(1.0)
        optimizer.step()
    assert not gpu.mixed
    return gpu.operators.total()


@pytest.mark.parametrize(
    "flags",
    [
        ("--fp16", "--fp16-no-flatten-grads"),
        ("--bf16",),
        ("--memory-efficient-fp16",),
        ("--memory-efficient-bf16",),
    ],
    ids=" ".join,
)
def test_an_update_launches_as_many_operators_for_any_number_of_tensors(gpu, flags):
    few, many = update(gpu, 2, *flags), update(gpu, 40, *flags)
    assert few == many <= 30


@pytest.mark.parametrize("fp32", [True, False])
def test_averages_launch_at_most_four_operators_and_wait_for_nothing(gpu, fp32):
    model = network(gpu, 40, torch.float16)
    config = SimpleNamespace(
        ema_decay=0.9, ema_fp32=fp32, ema_seed_model=None, ema_start_update=0, ema_update_freq=1
    )
    averages = ModelAverages(model, config)
    averages.step(model, updates=1)
    gpu.reset()
    averages.step(model, updates=2)
    assert gpu.operators.total() <= 4 and not gpu.waits
