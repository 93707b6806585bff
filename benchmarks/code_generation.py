"""How long the codes of an image take to generate, compared with reading the decoder's weights once
per code.

    python benchmarks/code_generation.py [--arch ofa_base] [--images 1] [--threads 2] [--repeats
    5]
                                         [--json FILE] [--profile]

256 codes are sampled (top-k 256) by a model with random weights, for one caption, the encoder's
time included. The floor reads the decoder's weights once per code: one row is multiplied with every
matrix that is used in a step, 257 times. A second, lower floor takes of the output projection the
rows of codes alone, as generation does, since nothing else may follow. Times are the fastest of
``--repeats`` alternating runs; ratios of processor time are printed as well.
"""

import argparse
import json
from pathlib import Path

import torch
from generation import RUN_SCRIPT_SWITCHES, VOCAB_SIZE, fastest
from torch import nn
from torch.nn import functional as F

from ofa.models.config import ModelConfig
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions
from ofa.models.ofa_model import OFAModel

CODES, SIDE = 256, 128  # of an image, pixels a side
CODE_RANGE = (50265, 58457)
ONCE = (
    "encoder_attn.k_proj",
    "encoder_attn.v_proj",
    "pos_q_linear",
    "pos_k_linear",
    "output_projection",
)  # not read in every step


def weights_of_a_step(model: OFAModel, rows: slice) -> list[torch.Tensor]:
    """The matrices that a step multiplies with. Args: rows: of the output projection."""
    layers = [
        module.weight
        for name, module in model.decoder.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in ONCE)
    ]
    return [*layers, model.decoder.output_projection.weight[rows]]


@torch.inference_mode()
def measure(arch: str, images: int, repeats: int, profile: bool) -> dict[str, float]:
    torch.manual_seed(0)
    config = ModelConfig.from_namespace({**RUN_SCRIPT_SWITCHES, "code_image_size": SIDE}, arch)
    model = OFAModel(config, VOCAB_SIZE).eval()
    options = GenerationOptions(
        beam=images,
        min_len=CODES,
        max_len_b=CODES,
        sampling=True,
        sampling_topk=256,
        gen_code=True,
        constraint_range=CODE_RANGE,
    )
    generator = SequenceGenerator([model], options, VOCAB_SIZE)
    source = {"src_tokens": torch.randint(4, 50000, (1, 20))}
    every, needed = (
        weights_of_a_step(model, slice(None)),
        weights_of_a_step(model, slice(*CODE_RANGE)),
    )
    rows = {width: torch.randn(1, width) for width in {weight.size(1) for weight in every}}

    def read(weights: list[torch.Tensor]) -> None:
        for _ in range(CODES + 1):
            for weight in weights:
                F.linear(rows[weight.size(1)], weight)

    def generate() -> None:
        generator.generate([model], {"net_input": source, "seeds": [1]})

    works = {"floor": lambda: read(every), "needed": lambda: read(needed), "generation": generate}
    wall, cpu = fastest(works, repeats)
    if profile:
        with torch.profiler.profile() as profiler:
            generate()
        print(
            profiler.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=40
            )
        )
    ratios = {
        f"{kind}_over_{floor}": times["generation"] / times[floor]
        for kind, times in (("ratio", wall), ("cpu_ratio", cpu))
        for floor in ("floor", "needed")
    }
    return {**wall, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="ofa_base")
    parser.add_argument(
        "--images", type=int, default=1, help="samples of the caption (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--profile", action="store_true", help="also show where the time goes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = measure(args.arch, args.images, args.repeats, args.profile)
    print(
        f"{args.arch}, {CODES} codes of {args.images} images: {found['generation']:.2f} s,"
        f" reading the decoder's weights {found['floor']:.2f} s, ratio"
        f" {found['ratio_over_floor']:.2f} (target 1.5; of processor time"
        f" {found['cpu_ratio_over_floor']:.2f}); without the rows of other tokens"
        f" {found['needed']:.2f} s, ratio {found['ratio_over_needed']:.2f}"
        f" ({found['cpu_ratio_over_needed']:.2f})"
    )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
