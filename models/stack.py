"""How a stack of layers is built and run: stochastic depth, layer drop, activation checkpointing."""

from contextlib import nullcontext
from typing import Callable

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from ofa.models.config import ModelConfig


def build_layers(make: Callable, config: ModelConfig, count: int, drop_path_rate: float) -> nn.ModuleList:
    """``count`` layers whose drop path rates rise linearly from 0 to ``drop_path_rate``."""
    rates = torch.linspace(0, drop_path_rate, count, device="cpu").tolist()
    return nn.ModuleList(make(config, rate) for rate in rates)


def skip_layer(training: bool, rate: float) -> bool:
    """Layer drop: in training each layer is left out with this chance (Fan et al. 2019)."""
    return training and rate > 0 and torch.rand((), device="cpu").item() < rate


def run_layer(config: ModelConfig, run: Callable, *inputs) -> Tensor:
    """``run(*inputs)``; with --checkpoint-activations its inside is recomputed in the backward pass."""
    if not (config.checkpoint_activations or config.offload_activations) or not torch.is_grad_enabled():
        return run(*inputs)
    with save_on_cpu() if config.offload_activations else nullcontext():
        return checkpoint(run, *inputs, use_reentrant=False)
