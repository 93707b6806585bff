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


class Part(nn.Module):
    """What is exported of a network."""

    def __init__(self, network) -> None:
        super().__init__()
        self.network = network.eval()


class Encode(Part):
    def forward(self, tokens, images=None):
        output = self.network.encoder(tokens, images)
        return output.states, output.padding_mask, output.positions


class Prefill(Part):
    """The first tokens, by one beam. Returns: logits, and keys and values of these tokens."""

    def forward(self, tokens, *encoded):
        cache = self.network.decoder.start(EncoderOutput(*encoded), BEAM, MAX_LEN)
        logits = self.network.decoder.step(tokens, cache)
        return logits, cache.buffer[:, :, :, :1, :, : cache.length]


class Step(Part):
    """The next token of every beam. Args: fed: keys and values of all tokens before."""

    def forward(self, tokens, fed, *encoded):
        cache = self.network.decoder.start(EncoderOutput(*encoded), BEAM, MAX_LEN)
        cache.length = fed.size(-2)
        cache.buffer[..., : cache.length, :] = fed
        logits = self.network.decoder.step(tokens, cache)
        return logits, cache.buffer[..., : cache.length, :]


BEAM, MAX_LEN = 3, 12
ROWS = Dim("rows", min=2, max=64)
SOURCE, FED = Dim("source", min=2, max=128), Dim("fed", min=2, max=MAX_LEN - 2)
ENCODED = {0: ROWS, 1: SOURCE}, {0: ROWS, 1: SOURCE}, {1: SOURCE}  # states, padding, positions


def prefilled(network, source: int, target: int, rows: int) -> tuple:
    """Inputs of ``Prefill``."""
    tokens = torch.randint(4, 50, (rows, 1, target))
    return tokens, *Encode(network)(batch(source, rows=rows)["src_tokens"])


def check_export(part: Part, inputs: tuple, others: tuple, shapes: tuple) -> None:
    """What is exported with some inputs does with others what the part does."""
    program = export(part, inputs, dynamic_shapes=shapes)
    for one, other in zip(program.module()(*others), part(*others), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_exported_encoder_takes_batches_and_texts_of_any_size(network):
    inputs, others = batch(), batch(source=7, rows=3)
    shapes = ({0: ROWS, 1: SOURCE}, {0: ROWS})
    names = "src_tokens", "patch_images"
    check_export(Encode(network), *(tuple(map(x.get, names)) for x in (inputs, others)), shapes)


@torch.no_grad()
def test_the_exported_first_pass_takes_batches_and_texts_of_any_size(network):
    inputs, others = prefilled(network, 4, 3, rows=2), prefilled(network, 7, 5, rows=3)
    shapes = {0: ROWS, 2: FED}, ENCODED
    check_export(Prefill(network), inputs, others, shapes)


@torch.no_grad()
def test_the_exported_step_takes_batches_and_texts_of_any_size(network):
    def inputs(*sizes: int, rows: int) -> tuple:
        tokens, *encoded = prefilled(network, *sizes, rows=rows)
        fed = Prefill(network)(tokens, *encoded)[1].repeat_interleave(BEAM, 3)
        return torch.randint(4, 50, (rows, BEAM)), fed, *encoded

    shapes = {0: ROWS}, {2: ROWS, 5: FED}, ENCODED
    check_export(Step(network), inputs(4, 3, rows=2), inputs(7, 5, rows=3), shapes)


@torch.no_grad()
def test_first_pass_and_step_are_those_of_generation(network):
    """Some tokens and one more: the logits of all at once."""
    tokens, *encoded = prefilled(network, 4, 5, rows=2)
    fed = Prefill(network)(tokens[..., :4], *encoded)[1].repeat_interleave(BEAM, 3)
    found, _ = Step(network)(tokens[..., 4].expand(-1, BEAM), fed, *encoded)
    expected, _ = Prefill(network)(tokens, *encoded)
    torch.testing.assert_close(found, expected.expand_as(found), atol=1e-5, rtol=1e-5)
