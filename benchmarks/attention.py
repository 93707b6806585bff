"""How long attention with a position bias takes, compared with torch's attention without any.

    python benchmarks/attention.py [--threads 2] [--repeats 15] [--json FILE]

Self-attention of ofa_base at 384 px: 4 images x 12 heads x 588 positions x 64, the projections left
out. ``written out`` is the same with the softmax in separate operations, as upstream's code has
it.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa.models.attention import MultiheadAttention
from ofa.models.positions import split_heads

IMAGES, HEADS, POSITIONS, WIDTH = 4, 12, 588, 64


def written_out(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    return (query * scale @ key.transpose(-1, -2) + bias).softmax(-1) @ value


def works() -> dict[str, Callable[[], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, keys, values = torch.randn(3, IMAGES, POSITIONS, HEADS * WIDTH, generator=generator)
    bias = torch.randn(IMAGES, HEADS, POSITIONS, POSITIONS, generator=generator)
    attention = MultiheadAttention(
        HEADS * WIDTH, HEADS, dropout=0.0, scale_factor=2.0, scale_heads=False
    ).eval()
    attention.q_proj = attention.out_proj = nn.Identity()
    query, *source = (split_heads(part, HEADS) for part in (x, keys, values))
    return {
        "plain": lambda: F.scaled_dot_product_attention(query, *source),
        "ours": lambda: attention(x, tuple(source), bias),
        "written out": lambda: written_out(query, *source, bias, attention.scale),
    }


@torch.inference_mode()
def measure(repeats: int) -> dict[str, float]:
    """Seconds of each, the fastest of alternating runs, and the ratio that counts."""
    todo = works()
    best = {name: float("inf") for name in todo}
    for _ in range(repeats):
        for name, work in todo.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return {**best, "ratio": best["ours"] / best["plain"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args.repeats)
    print(
        ", ".join(f"{name} {found[name] * 1e3:.1f} ms" for name in ("plain", "ours", "written out"))
    )
    print(
        f"ours / plain {found['ratio']:.2f} (target 1), "
        f"written out / plain {found['written out'] / found['plain']:.2f}"
    )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
