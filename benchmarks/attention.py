"""How long attention with a position bias takes, compared with torch's attention without any.

    python benchmarks/attention.py [--threads 2] [--repeats 15] [--json FILE]

Self-attention of ofa_base at 384 px: 4 images x 12 heads x 588 positions x 64, the projections left
out. ``written out`` is the same with the softmax in separate operations, as upstream's code has
it.
"""

import torch
from frame import Works, arguments, fastest, write_figures
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

    def written_out() -> torch.Tensor:
        return (query * attention.scale @ key.transpose(-1, -2) + bias).softmax(-1) @ value

    return {
        "plain": lambda: F.scaled_dot_product_attention(query, key, value),
        "ours": lambda: attention(x, (key, value), bias),
        "written out": written_out,
    }


def main() -> None:
    args = arguments(__doc__, threads=2, repeats=15)
    with torch.inference_mode():
        found, _ = fastest(works(), args.repeats)
    found["ratio"] = found["ours"] / found["plain"]
    print(
        ", ".join(f"{name} {found[name] * 1e3:.1f} ms" for name in ("plain", "ours", "written out"))
    )
    print(
        f"ours / plain {found['ratio']:.2f} (target 1), "
        f"written out / plain {found['written out'] / found['plain']:.2f}"
    )
    write_figures(args, found)


if __name__ == "__main__":
    main()
