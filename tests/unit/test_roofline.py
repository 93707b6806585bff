"""What benchmarks/roofline.py works out on meta tensors, compared with counts of real ones."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
frame, roofline = map(importlib.import_module, ("frame", "roofline"))

BATCH, PIXELS, SOURCE, TARGET = 2, 64, 5, 6
PRODUCTS = "mm", "addmm", "convolution", "convolution_backward"


@pytest.fixture(scope="module")
def costs():
    return roofline.step_costs("ofa_nano", BATCH, PIXELS, SOURCE, TARGET)


def test_flops_of_products_are_those_of_a_real_step(costs):
    model = frame.random_model("ofa_nano", **frame.DROPOUT).train()
    inputs = frame.caption_inputs(BATCH, PIXELS, SOURCE)
    target = torch.full((BATCH, TARGET), 5)
    with FlopCounterMode(display=False) as counter:
        logits = model(**inputs, prev_output_tokens=target)[0]
        F.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    real = {op.__name__: flops for op, flops in counter.get_flop_counts()["Global"].items()}
    assert real["mm"] > 0 and real["convolution"] > 0
    assert {name: costs.flops[name] for name in PRODUCTS} == {name: real[name] for name in PRODUCTS}


def test_flops_of_attention_follow_its_lengths(costs):
    heads, depth, positions = 4, 32, (PIXELS // 16) ** 2 + SOURCE
    pairs = positions**2 + 3 * (TARGET**2 + TARGET * positions)  # of 1 encoder and 3 decoder layers
    expected = 4 * BATCH * heads * depth * pairs
    assert costs.flops["_scaled_dot_product_efficient_attention"] == expected


def test_kept_bytes_count_a_storage_once_and_no_weights():
    model, costs = nn.Linear(8, 8), roofline.Costs()
    x = torch.ones(4, 8)
    hook = roofline.note_kept(model, costs)
    with torch.autograd.graph.saved_tensors_hooks(hook, lambda tensor: tensor):
        y = model(x).relu()  # keeps x, then its output
        y.view(2, -1).exp()  # keeps its own output
    assert costs.kept == 3 * 4 * 8 * 4
