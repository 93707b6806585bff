"""Training step: forward, loss and backward of a caption batch, against a matrix product in the
same run.

    python benchmarks/training_step.py [--repeats 3] [--threads 2] [--case tiny|base]

Prints FLOP/s of the step divided by FLOP/s of a 2048 x 2048 fp32 matrix product, and the peak
memory of the process.
Targets: ratio >= 0.65 (stretch 0.75); ofa_base peak <= 5.5 GB.
"""

import argparse
import multiprocessing
import resource
import time

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel

VOCAB_SIZE = 59457
CASES = {"tiny": ("ofa_tiny", 8, 256), "base": ("ofa_base", 4, 384)}  # arch, images, pixels a side
SWITCHES = dict(
    scale_attn=True,
    scale_fc=True,
    scale_heads=True,
    disable_entangle=True,
    dropout=0.1,
    encoder_drop_path_rate=0.1,
    decoder_drop_path_rate=0.1,
)


def caption_batch(images: int, side: int) -> tuple[dict, torch.Tensor]:
    """12 source and 16 target tokens."""
    torch.manual_seed(0)
    target = torch.randint(4, 50000, (images, 16))
    inputs = {
        "src_tokens": torch.randint(4, 50000, (images, 12)),
        "prev_output_tokens": target.roll(1, dims=1),
        "patch_images": torch.randn(images, 3, side, side),
        "patch_masks": torch.ones(images, dtype=torch.bool),
    }
    return inputs, target


def step(model: OFAModel, inputs: dict, target: torch.Tensor) -> None:
    logits, _ = model(**inputs)
    F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=0.1).backward()
    model.zero_grad(set_to_none=True)


def matmul_rate(repeats: int = 20) -> float:
    """FLOP/s of a 2048 x 2048 fp32 product."""
    a = torch.randn(2048, 2048)
    a @ a
    start = time.perf_counter()
    for _ in range(repeats):
        a @ a
    return repeats * 2 * 2048**3 / (time.perf_counter() - start)


def measure(case: str, repeats: int, threads: int) -> None:
    """One case, in a process of its own so that its peak memory is its own."""
    torch.set_num_threads(threads)
    arch, images, side = CASES[case]
    model = OFAModel(ModelConfig.from_namespace(SWITCHES, arch), VOCAB_SIZE).train()
    inputs, target = caption_batch(images, side)
    step(model, inputs, target)
    seconds, rates = [], []
    for _ in range(repeats):
        rates.append(matmul_rate())
        start = time.perf_counter()
        step(model, inputs, target)
        seconds.append(time.perf_counter() - start)
    rates.append(matmul_rate())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with FlopCounterMode(display=False) as counter:
        step(model, inputs, target)
    flop, best, rate = counter.get_total_flops(), min(seconds), sorted(rates)[len(rates) // 2]
    print(
        f"{arch} {images} x {side} px: {flop / 1e9:.0f} GFLOP in {best:.2f} s, "
        f"matmul {rate / 1e9:.0f} GFLOP/s, "
        f"ratio {flop / best / rate:.2f}, peak {peak:.2f} GB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", choices=CASES)
    arguments = parser.parse_args()
    for case in [arguments.case] if arguments.case else CASES:
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(case, arguments.repeats, arguments.threads)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
