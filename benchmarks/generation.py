"""How long beam search takes, compared with encoding the images alone.

    python benchmarks/generation.py [--arch ofa_tiny] [--repeats 7] [--json FILE] [--profile]

Captioning with 5 beams, 16 tokens and no repeated trigram, of synthetic batches with random
weights: ofa_tiny with 8 images of 256 px, ofa_base with 4 images of 384 px. The figure is (whole
generation) / (the encoder's forward), each the fastest of ``--repeats`` alternating runs; the floor
is what ordinary output projections alone would add. The ratio of processor time is printed as well:
other work on the machine disturbs it less.
"""

import frame
import torch

TOKENS, BEAM = 16, 5
SETTINGS = {"ofa_tiny": (8, 256), "ofa_base": (4, 384)}  # images, pixels a side


@torch.inference_mode()
def measure(arch: str, repeats: int, profiled: bool) -> dict[str, float]:
    images, pixels = SETTINGS[arch]
    model, batch = frame.random_model(arch).eval(), frame.caption_inputs(images, pixels)
    options = {"max_len_b": TOKENS, "min_len": TOKENS, "no_repeat_ngram_size": 3}
    generator = frame.generator_of(model, beam=BEAM, **options)
    states = torch.randn(images * BEAM, model.config.decoder_embed_dim)
    works = {
        "encoder": lambda: model.encode(**batch),
        "generation": lambda: generator.generate([model], {"net_input": batch}),
        "projection": lambda: model.decoder.output_projection(states),
    }
    best, cpu = frame.fastest(works, repeats)
    if profiled:
        frame.profile(works["generation"])
    return {
        **best,
        "ratio": best["generation"] / best["encoder"],
        "cpu_ratio": cpu["generation"] / cpu["encoder"],
        "floor": 1 + (TOKENS + 1 / BEAM) * best["projection"] / best["encoder"],
    }


def main() -> None:
    flags = {"arch": (str, "one of ofa_tiny, ofa_base; else both"), "repeats": 7}
    args = frame.arguments(__doc__, threads=2, **flags, profile=(False, "show where the time goes"))
    figures = {}
    for arch in [args.arch] if args.arch else SETTINGS:
        found = figures[arch] = measure(arch, args.repeats, args.profile)
        images, pixels = SETTINGS[arch]
        print(
            f"{arch}, {images} x {pixels} px: encoder {found['encoder']:.3f} s, generation"
            f" {found['generation']:.3f} s, ratio {found['ratio']:.2f} (target 1.4, floor by output"
            f" projections {found['floor']:.2f}), of processor time {found['cpu_ratio']:.2f}"
        )
    frame.write_figures(args, figures)


if __name__ == "__main__":
    main()
