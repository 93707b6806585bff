"""Training step: forward, loss and backward of a caption batch, against a matrix product in the
same run.

    python benchmarks/training_step.py [--repeats 3] [--threads 2] [--case tiny|base]

Prints FLOP/s of the step divided by FLOP/s of a 2048 x 2048 fp32 matrix product, and the peak
memory of the process.
Targets: ratio >= 0.65 (stretch 0.75); ofa_base peak <= 5.5 GB.
"""

import multiprocessing
import resource

import frame
import torch
from torch.nn import functional as F

CASES = {"tiny": ("ofa_tiny", 8, 256), "base": ("ofa_base", 4, 384)}  # arch, images, pixels a side


def measure(case: str, repeats: int, threads: int) -> None:
    torch.set_num_threads(threads)
    arch, images, side = CASES[case]
    model = frame.random_model(arch, **frame.DROPOUT).train()
    target = torch.randint(4, 50000, (images, 16))
    inputs = {**frame.caption_inputs(images, side), "prev_output_tokens": target.roll(1, dims=1)}

    def step() -> None:
        logits, _ = model(**inputs)
        F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=0.1).backward()
        model.zero_grad(set_to_none=True)

    rate, found = frame.compare_with_matmul({"step": step}, repeats)
    flop, best, ratio = found["step"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{arch} {images} x {side} px: {flop / 1e9:.0f} GFLOP in {best:.2f} s, "
        f"matmul {rate / 1e9:.0f} GFLOP/s, ratio {ratio:.2f}, peak {peak:.2f} GB",
        flush=True,
    )


def main() -> None:
    args = frame.arguments(
        __doc__, repeats=3, threads=2, case=(str, "one of tiny, base; else both")
    )
    for case in [args.case] if args.case else CASES:
        # of its own, so that its peak memory is its own
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(case, args.repeats, args.threads)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
