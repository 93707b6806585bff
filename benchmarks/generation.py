"""How long beam search takes, compared with encoding the images alone.

    python benchmarks/generation.py [--threads 2] [--repeats 7] [--json FILE] [--profile]

Captioning with 5 beams, 16 tokens and no repeated trigram, of synthetic batches with random
weights: ofa_tiny with 8 images of 256 px, ofa_base with 4 images of 384 px. The figure is (whole
generation) / (the encoder's forward), each the fastest of ``--repeats`` alternating runs; the floor
is what ordinary output projections alone would add. The ratio of processor time is printed as well:
other work on the machine disturbs it less.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ofa.models.config import ModelConfig
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions
from ofa.models.ofa_model import OFAModel

VOCAB_SIZE = 59457  # upstream's English vocabulary
SOURCE_TOKENS, TARGET_TOKENS, BEAM = 12, 16, 5
SETTINGS = {"ofa_tiny": (8, 256), "ofa_base": (4, 384)}  # images, pixels a side
RUN_SCRIPT_SWITCHES = {
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "disable_entangle": True,
}


def batch_of(images: int, pixels: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        "src_tokens": torch.randint(4, 50000, (images, SOURCE_TOKENS), generator=generator),
        "patch_images": torch.randn(images, 3, pixels, pixels, generator=generator),
        "patch_masks": torch.ones(images, dtype=torch.bool),
    }


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def fastest(
    works: dict[str, Callable[[], object]], repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Wall time and processor time of each, the fastest of ``repeats`` alternating runs."""
    wall = dict.fromkeys(works, float("inf"))
    cpu = dict(wall)
    for _ in range(repeats):
        for name, work in works.items():
            wall_time, cpu_time = seconds(work)
            wall[name], cpu[name] = min(wall[name], wall_time), min(cpu[name], cpu_time)
    return wall, cpu


@torch.inference_mode()
def measure(arch: str, repeats: int, profile: bool) -> dict[str, float]:
    images, pixels = SETTINGS[arch]
    torch.manual_seed(0)
    model = OFAModel(ModelConfig.from_namespace(RUN_SCRIPT_SWITCHES, arch), VOCAB_SIZE).eval()
    batch = batch_of(images, pixels)
    options = GenerationOptions(
        beam=BEAM, max_len_b=TARGET_TOKENS, min_len=TARGET_TOKENS, no_repeat_ngram_size=3
    )
    generator = SequenceGenerator([model], options, VOCAB_SIZE)
    states = torch.randn(images * BEAM, model.config.decoder_embed_dim)
    works = {
        "encoder": lambda: model.encode(**batch),
        "generation": lambda: generator.generate([model], {"net_input": batch}),
        "projection": lambda: model.decoder.output_projection(states),
    }
    best, cpu = fastest(works, repeats)
    if profile:
        with torch.profiler.profile() as profiler:
            works["generation"]()
        print(
            profiler.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40
            )
        )
    floor = 1 + (TARGET_TOKENS + 1 / BEAM) * best["projection"] / best["encoder"]
    ratios = {
        "ratio": best["generation"] / best["encoder"],
        "cpu_ratio": cpu["generation"] / cpu["encoder"],
    }
    return {**best, **ratios, "floor": floor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--arch", choices=list(SETTINGS), action="append", help="default: both")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--profile", action="store_true", help="also show where the time goes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    figures = {}
    for arch in args.arch or SETTINGS:
        found = figures[arch] = measure(arch, args.repeats, args.profile)
        images, pixels = SETTINGS[arch]
        print(
            f"{arch}, {images} x {pixels} px: encoder {found['encoder']:.3f} s, generation"
            f" {found['generation']:.3f} s, ratio {found['ratio']:.2f} (target 1.4, floor by output"
            f" projections {found['floor']:.2f}), of processor time {found['cpu_ratio']:.2f}"
        )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
