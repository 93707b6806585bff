"""How long generation takes, each time the fastest of ``--repeats`` alternating runs, of models
with random weights; ratios of processor time as well, which other work disturbs less.

captions: 5 beams, 16 tokens, no repeated trigram; over the encoder's forward (target 1.4). The
floor is what ordinary output projections alone would add.
codes: 256 sampled for one caption (top-k 256), the encoder included; over reading the decoder's
weights once per code, all of them (target 1.5), and without the output rows of other tokens.
"""

from typing import Any

import frame
import torch
from torch import nn
from torch.nn import functional as F

TOKENS, BEAM = 16, 5
CAPTIONS = {"ofa_tiny": (8, 256), "ofa_base": (4, 384)}  # images, pixels a side
CODES, CODE_RANGE = 256, (50265, 58457)
# not read in every step
ONCE = ("encoder_attn.k_proj", "encoder_attn.v_proj", "pos_q_linear", "pos_k_linear")


@torch.inference_mode()
def captions(arch: str, repeats: int) -> dict[str, float]:
    images, pixels = CAPTIONS[arch]
    model, batch = frame.random_model(arch).eval(), frame.caption_inputs(images, pixels)
    options = {"max_len_b": TOKENS, "min_len": TOKENS, "no_repeat_ngram_size": 3}
    generator = frame.generator_of(model, beam=BEAM, **options)
    states = torch.randn(images * BEAM, model.config.decoder_embed_dim)
    works = {
        "encoder": lambda: model.encode(**batch),
        "generation": lambda: generator.generate([model], {"net_input": batch}),
        "projection": lambda: model.decoder.output_projection(states),
    }
    wall, cpu = frame.fastest(works, repeats)
    return frame.print_times(
        f"{arch}, {images} x {pixels} px",
        wall,
        ratio=wall["generation"] / wall["encoder"],
        cpu_ratio=cpu["generation"] / cpu["encoder"],
        floor=1 + (TOKENS + 1 / BEAM) * wall["projection"] / wall["encoder"],
    )


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
def codes(arch: str, repeats: int) -> dict[str, float]:
    model = frame.random_model(arch, code_image_size=128).eval()
    options = {
        "gen_code": True,
        "min_len": CODES,
        "max_len_b": CODES,
        "constraint_range": CODE_RANGE,
    }
    generator = frame.generator_of(model, sampling=True, sampling_topk=256, beam=1, **options)
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
    ratios = {
        f"{kind}_over_{floor}": times["generation"] / times[floor]
        for kind, times in (("ratio", wall), ("cpu_ratio", cpu))
        for floor in ("floor", "needed")
    }
    return frame.print_times(f"{arch}, {CODES} codes", wall, **ratios)


@frame.program(
    threads=2,
    repeats=7,
    arch=(str, "one of ofa_tiny, ofa_base; else both"),
    codes=(False, "of images, not captions"),
)
def main(args: frame.Args) -> dict:
    measure, archs = codes if args.codes else captions, [args.arch] if args.arch else CAPTIONS
    return {arch: measure(arch, args.repeats) for arch in archs}
