"""What torch.compile and torch.export see of the network: one graph, whatever is in the batch."""

import pytest
import torch
from small_network import build_small
from torch import nn
from torch.export import Dim, export

from ofa.data.collate import facts_of
from ofa.models.encoder import EncoderOutput

# seconds of tracing each
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network():
    layers = dict(encoder_layers=1, decoder_layers=1)
    return build_small(60, dropout=0.1, encoder_drop_path_rate=0.1, **layers)


def batch(source: int = 4, target: int = 3, rows: int = 2) -> dict:
    torch.manual_seed(1)
    found = {
        "src_tokens": torch.randint(4, 50, (rows, source)),
        "prev_output_tokens": torch.randint(4, 50, (rows, target)),
        "patch_images": torch.randn(rows, 3, 64, 64),
        "patch_masks": torch.ones(rows, dtype=torch.bool),
    }
    found["src_tokens"][-1, -1] = found["prev_output_tokens"][-1, -1] = 1
    return found


def breaks_of(call, *args, **inputs) -> list[str]:
    torch._dynamo.reset()
    found = torch._dynamo.explain(call)(*args, **inputs)
    assert found.graph_count == 1
    return [reason.reason for reason in found.break_reasons]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            "code_masks": torch.tensor([True, False]),
            "output_positions": torch.tensor([0, 3]),
            "image_rows": torch.tensor([0, 0]),
        },
    ],
    ids=["texts", "image codes too, chosen positions, a shared image"],
)
def test_a_forward_pass_of_training_is_one_graph(network, more):
    inputs = batch()
    facts = facts_of(inputs, pad=1) | ({"num_images": 1} if "image_rows" in more else {})
    assert breaks_of(network.train(), **inputs, **more, facts=facts) == []


def test_a_decoding_step_is_one_graph(network):
    network.eval()
    with torch.no_grad():
        output = network.encoder(batch()["src_tokens"])
        cache = network.decoder.start(output, beam=3, max_len=8)
        tokens = torch.randint(4, 50, (2, 3))
        assert breaks_of(lambda tokens: network.decoder.step(tokens, cache), tokens) == []


class Encode(nn.Module):
    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens, images):
        output = self.network.encoder(tokens, images)
        return output.states, output.padding_mask, output.positions


class Step(nn.Module):
    """The first step of every beam, and the network's part of the start before it."""

    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens, states, padding_mask, positions):
        output = EncoderOutput(states, padding_mask, positions)
        cache = self.network.decoder.start(output, beam=3, max_len=8)
        return self.network.decoder.step(tokens, cache)


def test_the_exported_encoder_takes_batches_and_texts_of_any_size(network):
    rows, length = Dim("rows", min=2, max=64), Dim("length", min=2, max=128)
    inputs, others = batch(), batch(source=7, rows=3)
    shapes = ({0: rows, 1: length}, {0: rows})
    call = Encode(network.eval())
    program = export(call, (inputs["src_tokens"], inputs["patch_images"]), dynamic_shapes=shapes)
    found = program.module()(others["src_tokens"], others["patch_images"])
    expected = call(others["src_tokens"], others["patch_images"])
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_exported_step_gives_the_same_logits(network):
    inputs, tokens = batch(), torch.randint(4, 50, (2, 3))
    with torch.no_grad():
        encoded = Encode(network.eval())(inputs["src_tokens"], None)
        call = Step(network)
        program = export(call, (tokens, *encoded))
        found = program.module()(tokens, *encoded)
        torch.testing.assert_close(found, call(tokens, *encoded), atol=1e-5, rtol=1e-5)
