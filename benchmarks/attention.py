"""How long attention with a position bias takes, compared with torch's attention without any.

Self-attention of ofa_base at 384 px, the projections left out. ``written out`` is the same with the
softmax in separate operations, as upstream's code has it. Target of ours / plain: 1.
"""

import torch
from frame import Args, Works, fastest, print_times, program
from torch import nn
from torch.nn import functional as F

from ofa.models.attention import MultiheadAttention
from ofa.models.positions import split_heads

IMAGES, HEADS, POSITIONS, WIDTH = 4, 12, 588, 64


def works() -> Works:
    generator = torch.Generator().manual_seed(0)
    x, keys, values = torch.randn(3, IMAGES, POSITIONS, HEADS * WIDTH, generator=generator)
    bias = torch.randn(IMAGES, HEADS, POSITIONS, POSITIONS, generator=generator)
    attention = MultiheadAttention(
        HEADS * WIDTH, HEADS, dropout=0.0, scale_factor=2.0, scale_heads=False
    ).eval()
    attention.q_proj = attention.out_proj = nn.Identity()
    query, key, value = (split_heads(part, HEADS) for part in (x, keys, values))
    scale = attention.scale
    return {
        "plain": lambda: F.scaled_dot_product_attention(query, key, value),
        "ours": lambda: attention(x, (key, value), bias),
        "written out": lambda: (query * scale @ key.transpose(-1, -2) + bias).softmax(-1) @ value,
    }


@program(threads=2, repeats=15)
def main(args: Args) -> dict:
    with torch.inference_mode():
        times, _ = fastest(works(), args.repeats)
    ratios = {name: times[name] / times["plain"] for name in ("ours", "written out")}
    return print_times("attention", times, ratio=ratios["ours"], written=ratios["written out"])
