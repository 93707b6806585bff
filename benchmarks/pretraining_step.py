"""Pretraining step: both groups of ofa_tiny with all eight tasks, forward, loss and backward,
against a matrix product.

    python benchmarks/pretraining_step.py [--repeats 3] [--threads 2] [--side 256]

A step has 8 rows of pairs with their second samples (16 samples of 8 images, 87 patches of each)
and an auxiliary batch: two texts, an image of 256 x 256 pixels with 256 codes, one with objects.
Prints FLOP/s of the step by the criterion of the training divided by FLOP/s of a 2048 x 2048 fp32
product (the median of those between the steps) in the same run; then the same of the image stem
alone, forward and backward, which most of the step's work is.
Target: ratio >= 0.7.
"""

from types import SimpleNamespace

import frame
import torch

import ofa
from ofa.data.collate import IMAGE_ROWS
from ofa.task.pretraining_tasks import TASKS

CODES, CODE_SIDE = range(50265, 58457), 256  # token ids; pixels of the images of auxiliary rows
PATCHES, TEXT = 87, range(4, 50000)
# (task, source tokens, target tokens), as in upstream's data: captions of 12 tokens, questions of
# 8, boxes of 4, texts of 100, ten objects. The two samples of a row show one image.
PAIRS = [("caption", 8, 13), ("image_text_matching", 20, 2)] * 4
PAIRS += [("qa", 9, 3), ("image_text_matching", 21, 2)] * 2
PAIRS += [("visual_grounding", 14, 5), ("grounded_captioning", 15, 8)] * 2
AUXILIARY = [("text_infilling", 85, 101)] * 2
AUXILIARY += [("image_infilling", 11, 257), ("detection", 10, 56)]


def batch_of(kinds: list[tuple[str, int, int]], side: int) -> dict:
    """A padded batch of random tokens and pixels."""
    count, names = len(kinds), [name for name, *_ in kinds]

    def tokens(ids: range, length: int) -> torch.Tensor:
        return torch.randint(ids.start, ids.stop, (length,))

    def padded(rows: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)

    is_code = torch.tensor([name == "image_infilling" for name in names])
    target = padded([tokens(CODES if code else TEXT, t) for code, (*_, t) in zip(is_code, kinds)])
    images, rows = torch.randn(count, 3, side, side), torch.arange(count)
    if is_code.any():  # the two texts show no image
        rows[:2] = 2
    else:
        rows = rows // 2 * 2
        images = images[rows]
    net_input = {
        "src_tokens": padded([tokens(TEXT, length) for _, length, _ in kinds]),
        "prev_output_tokens": target.roll(1, dims=1),
        "patch_images": images,
        "patch_masks": torch.tensor([not name.startswith("text") for name in names]),
        **({"code_masks": is_code} if is_code.any() else {}),
    }
    return {
        "net_input": net_input,
        "target": target,
        "conf": torch.ones(count),
        IMAGE_ROWS: rows,
        "nsentences": count,
        "ntokens": sum(length for *_, length in kinds),
        "tasks": torch.tensor([TASKS.index(name) for name in names]),
    }


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
    args = frame.arguments(
        __doc__, threads=2, repeats=3, side=(256, "pixels of the images of pairs")
    )
    model, loss_of = frame.random_model("ofa_tiny", **frame.DROPOUT).train(), criterion()
    batches = batch_of(PAIRS, args.side), batch_of(AUXILIARY, CODE_SIDE)
    images = [part["net_input"]["patch_images"][part[IMAGE_ROWS].unique()] for part in batches]

    def step() -> None:
        loss_of(model, batches)[0].backward()
        model.zero_grad(set_to_none=True)

    def stem() -> None:
        sum(model.encoder.embed_images(one).sum() for one in images).backward()
        model.zero_grad(set_to_none=True)

    rate, found = frame.compare_with_matmul({"step": step, "its image stem": stem}, args.repeats)
    print(
        f"ofa_tiny, 16 samples of pairs at {args.side} px and 4 of auxiliary rows; matmul"
        f" {rate / 1e9:.0f} GFLOP/s"
    )
    for name, (flop, best, ratio) in found.items():
        print(f"{name}: {flop / 1e9:.0f} GFLOP in {best:.2f} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
