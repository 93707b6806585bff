"""The network on a real GPU: what the CPU computes, by every way of attention, and in 16 bits."""

import copy

import pytest
import torch
from small_network import build_awake

from ofa.devices import has_bf16
from ofa.models import attention, attention_trial
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
VOCAB = 60


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """float32 as on the CPU, without TF32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def make_batch(device: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Two images and texts, one of which is shorter."""
    generator = torch.Generator().manual_seed(1)
    found = {
        "src_tokens": torch.randint(4, VOCAB, (2, 6), generator=generator),
        "prev_output_tokens": torch.randint(4, VOCAB, (2, 5), generator=generator),
        "patch_images": torch.randn(2, 3, 64, 64, generator=generator).to(dtype),
        "patch_masks": torch.tensor([True, True]),
    }
    found["src_tokens"][1, 4:] = found["prev_output_tokens"][1, 3:] = 1
    return {name: value.to(device) for name, value in found.items()}


def step(device: str, **sizes: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients on the CPU."""
    model = build_awake(VOCAB, **sizes).train().to(device)
    output, _ = model(**make_batch(device))
    loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), output.argmin(-1).flatten())
    loss.backward()
    gradients = {
        name: one.grad.cpu() for name, one in model.named_parameters() if one.grad is not None
    }
    return loss.detach().cpu(), gradients


def captions(device: str, static: bool | None = None) -> list[dict]:
    """The best caption of each image. Args: static: as of ``SequenceGenerator``."""
    model = build_awake(VOCAB).to(device)
    options = GenerationOptions(beam=5, max_len_b=8, no_repeat_ngram_size=3)
    generator = SequenceGenerator([model], options, VOCAB)
    generator.static = static
    inputs = make_batch(device)
    del inputs["prev_output_tokens"]
    for _ in range(2):  # the second time with the graphs of the first
        found = generator.generate([model], {"net_input": inputs})
    return [beams[0] for beams in found]


def test_loss_and_gradients_are_those_of_the_cpu():
    (loss, gradients), (expected, right) = step("cuda"), step("cpu")
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == right.keys()
    for name, gradient in gradients.items():
        largest = float(right[name].abs().max())
        torch.testing.assert_close(gradient, right[name], rtol=1e-3, atol=1e-3 * largest + 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [32, 64, 80])
@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_in_parts_passes_its_trial(dtype, width, causal):
    if attention_trial.capability_of(torch.device("cuda")) < (8, 0):
        pytest.skip("no FlexAttention before sm_80")
    kind = attention_trial.Kind(causal, per_sample=causal)
    found = attention_trial.tried(torch.device("cuda"), dtype, width, kind)
    print(f"\nbias in parts, {dtype}, {width}, {kind}: {found.times:.2f} of the time")
    assert found.right


@pytest.mark.parametrize("choice", ["shared", "masked", "flex"])
def test_every_way_of_attention_gives_loss_and_gradients_of_the_usual_one(monkeypatch, choice):
    sizes = dict(encoder_embed_dim=64)  # heads of 16, the least for Triton
    loss, gradients = step("cuda", **sizes)
    monkeypatch.setattr(attention, "CHOICE", choice)
    found, others = step("cuda", **sizes)
    torch.testing.assert_close(found, loss, rtol=1e-4, atol=1e-5)
    for name, gradient in others.items():
        largest = float(gradients[name].abs().max())
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-3, atol=1e-3 * largest + 1e-6)


@pytest.mark.parametrize("static", [True, False], ids=["CUDA graph", "eager"])
def test_captions_are_those_of_the_cpu(static):
    for found, expected in zip(captions("cuda", static), captions("cpu"), strict=True):
        assert found["tokens"].tolist() == expected["tokens"].tolist()
        assert float(found["score"]) == pytest.approx(float(expected["score"]), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_log_probabilities_in_16_bits_are_near_those_of_float32(dtype):
    if dtype == torch.bfloat16 and not has_bf16("cuda"):
        pytest.skip("no bfloat16 here")
    model, inputs = build_awake(VOCAB), make_batch("cuda", dtype)
    with torch.no_grad():
        half = copy.deepcopy(model).to("cuda", dtype)(**inputs)[0]
        exact = model.to("cuda")(**make_batch("cuda"))[0]
    error = (half.float().log_softmax(-1) - exact.log_softmax(-1)).abs()
    visible = inputs["prev_output_tokens"] != 1
    assert half.isfinite().all()
    assert float(error[visible].mean()) < {torch.float16: 0.02, torch.bfloat16: 0.15}[dtype]


def test_cudnn_makes_no_plan_for_every_shape():
    assert not torch.backends.cuda.cudnn_sdp_enabled()
