"""What an evaluation in half precision rounds, and what it must not."""

from types import SimpleNamespace

import pytest
import torch
from small_network import build_small

from ofa.inference import predictor
from ofa.inference.predictor import to_device
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions


def test_only_what_the_network_sees_has_its_precision():
    batch = {
        "id": ["a"],
        "net_input": {
            "src_tokens": torch.tensor([[5]]),
            "patch_images": torch.ones(1, 3, 2, 2),
            "patch_images_2": None,
        },
        "region_coords": torch.tensor([[100.25, 7.0, 639.9, 427.3]]),
        "w_resize_ratios": torch.tensor([512 / 639]),
    }
    moved = to_device(batch, torch.device("cpu"), torch.bfloat16)
    assert (
        moved["net_input"]["patch_images"].dtype == torch.bfloat16
        and moved["net_input"]["src_tokens"].dtype == torch.int64
    )
    assert torch.equal(moved["region_coords"], batch["region_coords"]) and moved["id"] == ["a"]
    assert round(512 / moved["w_resize_ratios"].item()) == 639
    assert batch["net_input"]["patch_images"].dtype == torch.float32, (
        "the given batch stays as it is"
    )


@pytest.mark.parametrize(
    "device, wanted, expected",
    [
        ("cpu", None, "fp32"),
        ("mps", None, "fp32"),
        ("cuda", None, "fp16"),
        ("cuda:1", "fp32", "fp32"),
        ("cuda", "fp32", "fp32"),
        ("cpu", "bf16", "bf16"),
    ],
)
def test_predictions_are_made_in_fp16_on_gpus_unless_another_format_is_given(
    device, wanted, expected
):
    assert predictor.inference_precision(torch.device(device), wanted) == expected


def test_tf32_is_for_gpus_alone(monkeypatch):
    matmul, cudnn = SimpleNamespace(allow_tf32=False), SimpleNamespace(allow_tf32=False)
    monkeypatch.setattr(torch.backends, "cuda", SimpleNamespace(matmul=matmul))
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    predictor.use_tf32(torch.device("cpu"))
    assert not matmul.allow_tf32 and not cudnn.allow_tf32
    predictor.use_tf32(torch.device("cuda"))
    assert matmul.allow_tf32 and cudnn.allow_tf32


def test_activations_beyond_float16_are_named_and_no_constraint_is_blamed(caplog):
    network = build_small(30, encoder_normalize_before=True).half().eval()
    for layer in network.encoder.layers:
        layer.fc2.bias.data.fill_(6e4)  # two of them are more than 65504
    source = {"src_tokens": torch.tensor([[0, 5, 6, 2]])}
    with torch.inference_mode():
        generator = SequenceGenerator([network], GenerationOptions(beam=2, max_len_b=3), 30)
        generator.generate([network], {"net_input": source})
    warnings = [record.message for record in caplog.records if "end early" in record.message]
    assert len(warnings) == 1 and "float16 ends at 65504" in warnings[0]
    assert "--precision" in warnings[0] and "constraint" not in warnings[0]
