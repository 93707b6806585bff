"""Pretraining step: both groups of ofa_tiny with all eight tasks, forward, loss and backward,
against a matrix product.

    python benchmarks/pretraining_step.py [--repeats 3] [--threads 2] [--side 256]

A step has 8 rows of pairs with their second samples (16 samples of 8 images, 87 patches of each)
and an auxiliary batch
: two texts, an image of 256 x 256 pixels with 256 codes, one with objects. Prints FLOP/s of
the step by the criterion of the training divided by FLOP/s of a 2048 x 2048 fp32 product (the
median of those between the steps) in the same run; then the same of the image stem alone, forward
and backward, which most of the step's work is.
Target: ratio >= 0.7.
"""

import argparse
import time
from types import SimpleNamespace

import torch
from torch.utils.flop_counter import FlopCounterMode
from training_step import SWITCHES, VOCAB_SIZE, matmul_rate

import ofa
from ofa.data.collate import IMAGE_ROWS
from ofa.models.config import ModelConfig
from ofa.models.ofa_model import OFAModel
from ofa.task.pretraining_tasks import TASKS

# token ids of image codes, pixels of the images of auxiliary rows
CODES, CODE_SIDE = (range(50265, 58457), 256)
PATCHES = 87
TEXT = 50000


def batch(
    sources: list[int], targets: list[int], side: int, tasks: list[int], code_row: int | None = None
) -> dict:
    """A padded batch of random tokens and pixels. Args: sources, targets: lengths. code_row:
    whose target is image codes."""

    def tokens(lengths: list[int], ids: range) -> torch.Tensor:
        rows = [torch.randint(ids.start, ids.stop, (length,)) for length in lengths]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)

    target = tokens(targets, range(4, TEXT))
    if code_row is not None:
        target[code_row, : targets[code_row]] = torch.randint(
            CODES.start, CODES.stop, (targets[code_row],)
        )
    net_input = {
        "src_tokens": tokens(sources, range(4, TEXT)),
        "prev_output_tokens": target.roll(1, dims=1),
        "patch_images": torch.randn(len(sources), 3, side, side),
        "patch_masks": torch.tensor([code_row is None or row >= 2 for row in range(len(sources))]),
    }
    counts = {"nsentences": len(sources), "ntokens": sum(targets), "tasks": torch.tensor(tasks)}
    rows = torch.arange(len(sources))
    if code_row is None:  # the two samples of a row show one image
        rows = rows // 2 * 2
        net_input["patch_images"] = net_input["patch_images"][rows]
    else:  # and the two texts none
        rows[:2] = 2
        net_input["code_masks"] = torch.tensor([row == code_row for row in range(len(sources))])
    return {
        "net_input": net_input,
        "target": target,
        "conf": torch.ones(len(sources)),
        IMAGE_ROWS: rows,
        **counts,
    }


def pretraining_batches(side: int) -> tuple[dict, dict]:
    """Lengths as in upstream's data: captions of 12 tokens, questions of 8, boxes of 4, texts
    of 100 tokens, ten objects."""
    torch.manual_seed(0)
    kinds = [("caption", 8, 13), ("image_text_matching", 20, 2)] * 4 + [
        ("qa", 9, 3),
        ("image_text_matching", 21, 2),
    ] * 2
    kinds += [("visual_grounding", 14, 5), ("grounded_captioning", 15, 8)] * 2
    pairs = batch(
        [s for _, s, _ in kinds],
        [t for *_, t in kinds],
        side,
        [TASKS.index(name) for name, *_ in kinds],
    )
    names = ("text_infilling", "text_infilling", "image_infilling", "detection")
    extras = batch(
        [85, 85, 11, 10],
        [101, 101, 257, 56],
        CODE_SIDE,
        [TASKS.index(name) for name in names],
        code_row=2,
    )
    return pairs, extras


def criterion():
    """The criterion of the training, which weighs both groups the same."""
    ofa.register_fairseq_plugin()
    from ofa.criterions.fairseq_label_smoothed import AdjustLabelSmoothedCrossEntropyCriterion

    dictionary = SimpleNamespace(pad=lambda: 1, eos=lambda: 2)
    task = SimpleNamespace(target_dictionary=dictionary, parts=TASKS)
    return AdjustLabelSmoothedCrossEntropyCriterion(
        task, sentence_avg=False, label_smoothing=0.0, sample_patch_num=PATCHES
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=256, help="pixels of the images of pairs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = OFAModel(ModelConfig.from_namespace(SWITCHES, "ofa_tiny"), VOCAB_SIZE).train()
    batches, loss_of = pretraining_batches(arguments.side), criterion()
    distinct_images = [
        part["net_input"]["patch_images"][part[IMAGE_ROWS].unique()] for part in batches
    ]

    def step() -> None:
        loss, _, _ = loss_of(model, batches)
        loss.backward()
        model.zero_grad(set_to_none=True)

    def stem() -> None:
        sum(model.encoder.embed_images(images).sum() for images in distinct_images).backward()
        model.zero_grad(set_to_none=True)

    step()
    rates, seconds = [], {step: [], stem: []}
    for _ in range(arguments.repeats):
        for work, times in seconds.items():
            rates.append(matmul_rate())
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    rate = sorted(rates)[len(rates) // 2]
    print(
        f"ofa_tiny, 16 samples of pairs at {arguments.side} px and 4 of auxiliary rows; matmul"
        f" {rate / 1e9:.0f} GFLOP/s"
    )
    for name, work in (("step", step), ("its image stem", stem)):
        with FlopCounterMode(display=False) as counter:
            work()
        flop, best = counter.get_total_flops(), min(seconds[work])
        print(
            f"{name}: {flop / 1e9:.0f} GFLOP in {best:.2f} s, ratio {flop / best / rate:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
