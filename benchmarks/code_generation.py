"""How long the codes of an image take to generate, compared with reading the decoder's weights once
per code.

    python benchmarks/code_generation.py [--arch ofa_base] [--images 1] [--threads 2] [--repeats 5]

256 codes are sampled (top-k 256) by a model with random weights, for one caption, the encoder's
time included. The floor reads the decoder's weights once per code: one row is multiplied with every
matrix that is used in a step, 257 times. A second, lower floor takes of the output projection the
rows of codes alone, as generation does, since nothing else may follow. Times are the fastest of
``--repeats`` alternating runs; ratios of processor time are printed as well.
"""

from typing import Any

import frame
import torch
from torch import nn
from torch.nn import functional as F

CODES, SIDE = 256, 128  # of an image, pixels a side
CODE_RANGE = (50265, 58457)
# not read in every step
ONCE = ("encoder_attn.k_proj", "encoder_attn.v_proj", "pos_q_linear", "pos_k_linear")


def weights_of_a_step(decoder: Any, rows: slice) -> list[torch.Tensor]:
    """The matrices that a step multiplies with. Args: rows: of the output projection."""
    layers = [
        module.weight
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in ONCE)
        if name != "output_projection"
    ]
    return [*layers, decoder.output_projection.weight[rows]]


@torch.inference_mode()
def measure(arch: str, images: int, repeats: int, profiled: bool) -> dict[str, float]:
    model = frame.random_model(arch, code_image_size=SIDE).eval()
    sampling = {"sampling": True, "sampling_topk": 256, "beam": images}
    codes = {"gen_code": True, "min_len": CODES, "max_len_b": CODES, "constraint_range": CODE_RANGE}
    generator = frame.generator_of(model, **sampling, **codes)
    source = {"src_tokens": torch.randint(4, 50000, (1, 20))}
    every = weights_of_a_step(model.decoder, slice(None))
    needed = weights_of_a_step(model.decoder, slice(*CODE_RANGE))
    rows = {width: torch.randn(1, width) for width in {weight.size(1) for weight in every}}

    def read(weights: list[torch.Tensor]) -> None:
        for _ in range(CODES + 1):
            for weight in weights:
                F.linear(rows[weight.size(1)], weight)

    def generate() -> None:
        generator.generate([model], {"net_input": source, "seeds": [1]})

    works = {"floor": lambda: read(every), "needed": lambda: read(needed), "generation": generate}
    wall, cpu = frame.fastest(works, repeats)
    if profiled:
        frame.profile(generate)
    ratios = {
        f"{kind}_over_{floor}": times["generation"] / times[floor]
        for kind, times in (("ratio", wall), ("cpu_ratio", cpu))
        for floor in ("floor", "needed")
    }
    return {**wall, **ratios}


def main() -> None:
    flags = {"arch": "ofa_base", "images": (1, "samples of the caption"), "repeats": 5}
    args = frame.arguments(__doc__, threads=2, **flags, profile=(False, "show where the time goes"))
    found = measure(args.arch, args.images, args.repeats, args.profile)
    print(
        f"{args.arch}, {CODES} codes of {args.images} images: {found['generation']:.2f} s,"
        f" reading the decoder's weights {found['floor']:.2f} s, ratio"
        f" {found['ratio_over_floor']:.2f} (target 1.5; of processor time"
        f" {found['cpu_ratio_over_floor']:.2f}); without the rows of other tokens"
        f" {found['needed']:.2f} s, ratio {found['ratio_over_needed']:.2f}"
        f" ({found['cpu_ratio_over_needed']:.2f})"
    )
    frame.write_figures(args, found)


if __name__ == "__main__":
    main()
