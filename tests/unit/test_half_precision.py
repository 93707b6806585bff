"""What an evaluation in half precision rounds, and what it must not."""

import torch

from ofa.inference.predictor import to_device


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
