"""What is compiled for ``--compile``, and how often."""

import copy
import pickle

import pytest
import torch
from small_network import build_small
from torch import nn
from torch._dynamo.testing import CompileCounter

from ofa.errors import UserError
from ofa.models.compiling import compile_network
from ofa.models.inference_weights import inference_network

CPU = torch.device("cpu")
PARTS = dict(scale_attn=True, scale_fc=True, scale_heads=True, scale_resids=True)
CHANCE = dict(dropout=0.1, encoder_drop_path_rate=0.2, decoder_drop_path_rate=0.2)


def batch(source: int, target: int, rows: int, padded: bool) -> dict:
    found = {
        "src_tokens": torch.randint(4, 50, (rows, source)),
        "prev_output_tokens": torch.randint(4, 50, (rows, target)),
        "facts": {"source_padding": padded, "target_padding": padded},
    }
    if padded:
        found["src_tokens"][-1, -1] = found["prev_output_tokens"][-1, -1] = 1
    return found


@pytest.fixture
def counter():
    """Counts programs and runs them without a compiler."""
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


@pytest.mark.slow  # seconds of tracing
@pytest.mark.parametrize("switches", [{}, PARTS | CHANCE], ids=["plain", "all parts, dropout"])
def test_layers_of_a_kind_and_texts_of_all_lengths_share_programs(counter, switches):
    network = build_small(60, encoder_layers=4, decoder_layers=4, **switches)
    compile_network(network, CPU, counter)
    for size in ((9, 7, 2), (12, 8, 2), (20, 5, 3), (30, 18, 4), (8, 20, 4)):
        for padded in (True, False):
            network(**batch(*size, padded))[0].sum().backward()
    assert 2 <= counter.frame_count <= 2 + 3  # encoder and decoder, and what is compiled again


@pytest.mark.slow
@pytest.mark.parametrize("switches", [PARTS, dict(checkpoint_activations=True)], ids=str)
def test_outputs_and_gradients_are_those_without(counter, switches):
    inputs = batch(9, 7, 2, True) | {"patch_images": torch.randn(2, 3, 64, 64)}

    def step(network):
        x, extra = network(**inputs, return_attention=True)
        y, _ = network(**inputs)
        y.logsumexp(-1).sum().backward()
        return x, y, extra["attn"][0], *(one.grad for one in network.parameters())

    network = build_small(60, **switches)
    expected = step(copy.deepcopy(network))
    compile_network(network, CPU, counter)
    for one, other in zip(step(network), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 2


@pytest.mark.slow
def test_processes_compile_each_layer_whole(counter, tmp_path, monkeypatch):
    """torch would cut a program where DistributedDataParallel cuts its messages, after 1 MB at
    first."""
    monkeypatch.setattr(torch._dynamo.config, "optimize_ddp", True)
    sizes = dict(encoder_ffn_embed_dim=1 << 14, decoder_ffn_embed_dim=1 << 14)
    network = build_small(60, encoder_layers=1, decoder_layers=1, **sizes)
    compile_network(network, CPU, counter)
    meeting = f"file://{tmp_path / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        shared = nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)
        shared(**batch(9, 7, 2, True))[0].sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert counter.frame_count == 2


def test_names_of_weights_stay_and_a_network_can_be_copied_and_pickled():
    network = build_small(60)
    names = list(network.state_dict())
    compile_network(network, CPU, "eager")
    for one in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert list(one.state_dict()) == names and one.encoder.compiled_by == "eager"


def test_a_network_for_inference_is_compiled_too():
    network = build_small(60)
    compile_network(network, CPU, "eager")
    assert inference_network(network).encoder.compiled_by == "eager"


def test_a_machine_without_compiler_is_told_which_one_is_missing(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="--compile: expects the C\\+\\+ compiler no-such-compiler"):
        compile_network(build_small(60), CPU)


def test_a_device_without_compiler_is_refused():
    with pytest.raises(UserError, match="--compile: expects a CPU or an NVIDIA GPU, found mps"):
        compile_network(build_small(60), torch.device("mps"))


def test_a_network_of_others_is_refused():
    with pytest.raises(UserError, match="--compile: expects --arch ofa_..., found Linear"):
        compile_network(nn.Linear(2, 2), CPU)
