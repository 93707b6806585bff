"""What a training row costs by size and image size: parameters, FLOPs, bytes kept for backward.

The numbers of ``ofa.trainer.plan.COSTS``. The forward pass of one and of two rows in float32 tells
what a further row keeps; ``--peak`` measures the resident peak of whole steps beside the estimate.
"""

import multiprocessing
import resource

import frame
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

SOURCE, TARGET = 12, 20  # tokens
ARCHS = ("ofa_nano", "ofa_tiny", "ofa_medium", "ofa_base", "ofa_large", "ofa_huge")


def inputs(rows: int, side: int) -> dict[str, torch.Tensor]:
    """A batch of random tokens and pixels."""
    return {
        "src_tokens": torch.randint(4, frame.VOCAB_SIZE, (rows, SOURCE)),
        "patch_images": torch.randn(rows, 3, side, side),
        "patch_masks": torch.ones(rows, dtype=torch.bool),
        "prev_output_tokens": torch.randint(4, frame.VOCAB_SIZE, (rows, TARGET)),
    }


def cost(model: torch.nn.Module, rows: int, side: int) -> tuple[int, int]:
    """Bytes that a forward pass keeps for the backward pass, and its FLOPs."""
    owned = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model(**inputs(rows, side), features_only=True)  # logits are counted apart
    del output
    return sum(storage.nbytes() for storage in kept.values()), counter.get_total_flops()


def measure(arch: str, sides: list[int]) -> None:
    torch.manual_seed(1)
    model = frame.random_model(arch, **frame.DROPOUT).train()
    width = model.config.encoder_embed_dim
    count = sum(weight.numel() for weight in model.parameters()) - frame.VOCAB_SIZE * width
    print(f"{arch}: width {width}, {count / 1e6:.2f} M parameters besides the token table")
    for side in sides:
        (kept1, flops1), (kept2, flops2) = cost(model, 1, side), cost(model, 2, side)
        kept, flops = (kept2 - kept1) / 1e6, (flops2 - flops1) / 1e9
        print(f"  {side} px: {kept:8.1f} MB and {flops:8.2f} GFLOP forward a row", flush=True)


def peak(arch: str, rows: int, side: int) -> None:
    """The resident peak of two steps with Adam."""
    torch.manual_seed(1)
    model = frame.random_model(arch, **frame.DROPOUT).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        batch = inputs(rows, side)
        target = batch["prev_output_tokens"].roll(-1, dims=1).flatten()
        logits, _ = model(**batch)
        F.cross_entropy(logits.flatten(0, 1), target, label_smoothing=0.1).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{arch} {rows} x {side} px: peak {grown / 2**20:.2f} GiB above the weights", flush=True)


@frame.program(
    threads=1,
    archs=(",".join(ARCHS), "sizes, with commas"),
    sides=("96,128,256,384,480", "pixels, with commas"),
    peak=("", "ROWS,SIDE: the resident peak of a step of each size instead"),
)
def main(args: frame.Args) -> None:
    sides = [int(side) for side in args.sides.split(",")]
    for arch in args.archs.split(","):
        what = (peak, (arch, *map(int, args.peak.split(",")))) if args.peak else None
        target, given = what or (measure, (arch, sides))
        process = multiprocessing.get_context("spawn").Process(target=target, args=given)
        process.start()
        process.join()
