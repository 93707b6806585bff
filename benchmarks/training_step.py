"""A training step - forward, loss, backward - in FLOP/s, divided by FLOP/s of a 2048 x 2048 fp32
matrix product in the same run (the median of those between the steps), and its peak memory.

Targets: ratio >= 0.65 (stretch 0.75) for captions, 0.7 for pretraining; ofa_base peak <= 5.5 GB.
"""

import multiprocessing
import resource
from types import SimpleNamespace

import frame
import torch
from torch.nn import functional as F

import ofa
from ofa.data.collate import IMAGE_ROWS
from ofa.task.pretraining_tasks import TASKS

CAPTIONS = {"tiny": ("ofa_tiny", 8, 256), "base": ("ofa_base", 4, 384)}  # arch, images, pixels
CODES, CODE_SIDE = range(50265, 58457), 256  # token ids; pixels of the images of auxiliary rows
PATCHES, TEXT = 87, range(4, 50000)
# (task, source tokens, target tokens), as in upstream's data: captions of 12 tokens, questions of
# 8, boxes of 4, texts of 100, ten objects. The two samples of a row show one image.
PAIRS = [("caption", 8, 13), ("image_text_matching", 20, 2)] * 4
PAIRS += [("qa", 9, 3), ("image_text_matching", 21, 2)] * 2
PAIRS += [("visual_grounding", 14, 5), ("grounded_captioning", 15, 8)] * 2
AUXILIARY = [("text_infilling", 85, 101)] * 2
AUXILIARY += [("image_infilling", 11, 257), ("detection", 10, 56)]


def caption_works(case: str) -> frame.Works:
    """The step of a caption batch, with torch's label-smoothed cross-entropy."""
    arch, images, side = CAPTIONS[case]
    model = frame.random_model(arch, **frame.DROPOUT).train()
    target = torch.randint(4, 50000, (images, 16))
    inputs = {**frame.caption_inputs(images, side), "prev_output_tokens": target.roll(1, dims=1)}

    def step() -> None:
        logits, _ = model(**inputs)
        F.cross_entropy(logits.flatten(0, 1), target.flatten(), label_smoothing=0.1).backward()
        model.zero_grad(set_to_none=True)

    return {f"{arch} {images} x {side} px": step}


def pretraining_works(side: int) -> frame.Works:
    """The step of all eight tasks by the training's criterion: 8 rows of pairs with their second
    samples, and an auxiliary batch; then the image stem alone, which most of its work is."""
    ofa.register_fairseq_plugin()
    from ofa.criterions.fairseq_label_smoothed import AdjustLabelSmoothedCrossEntropyCriterion

    dictionary = SimpleNamespace(pad=lambda: 1, eos=lambda: 2)
    task = SimpleNamespace(target_dictionary=dictionary, parts=TASKS)
    loss_of = AdjustLabelSmoothedCrossEntropyCriterion(
        task, sentence_avg=False, label_smoothing=0.0, sample_patch_num=PATCHES
    )
    model = frame.random_model("ofa_tiny", **frame.DROPOUT).train()
    batches = batch_of(PAIRS, side), batch_of(AUXILIARY, CODE_SIDE)
    images = [part["net_input"]["patch_images"][part[IMAGE_ROWS].unique()] for part in batches]

    def step() -> None:
        loss_of(model, batches)[0].backward()
        model.zero_grad(set_to_none=True)

    def stem() -> None:
        sum(model.encoder.embed_images(one).sum() for one in images).backward()
        model.zero_grad(set_to_none=True)

    what = f"ofa_tiny, 16 samples of pairs at {side} px and 4 of auxiliary rows"
    return {what: step, "its image stem": stem}


def batch_of(kinds: list[tuple[str, int, int]], side: int) -> dict:
    """A padded batch of random tokens and pixels."""
    names, count = [name for name, *_ in kinds], len(kinds)

    def tokens(rows: list[tuple[range, int]]) -> torch.Tensor:
        made = [torch.randint(ids.start, ids.stop, (length,)) for ids, length in rows]
        return torch.nn.utils.rnn.pad_sequence(made, batch_first=True, padding_value=1)

    is_code = torch.tensor([name == "image_infilling" for name in names])
    target = tokens([(CODES if code else TEXT, t) for code, (*_, t) in zip(is_code, kinds)])
    images, rows = torch.randn(count, 3, side, side), torch.arange(count)
    if is_code.any():  # the two texts show no image
        rows[:2] = 2
    else:
        rows = rows // 2 * 2
        images = images[rows]
    net_input = {
        "src_tokens": tokens([(TEXT, length) for _, length, _ in kinds]),
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


def measure(case: str, args: frame.Args) -> None:
    torch.set_num_threads(args.threads)
    works = pretraining_works(args.side) if case == "pretraining" else caption_works(case)
    frame.compare_with_matmul(works, args.repeats)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB", flush=True)


@frame.program(
    threads=2,
    repeats=3,
    case=(str, "one of tiny, base, pretraining; else the first two"),
    side=(256, "pixels of the images of pairs in pretraining"),
)
def main(args: frame.Args) -> None:
    for case in [args.case] if args.case else CAPTIONS:
        # a process of its own, so that its peak memory is its own
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(case, args))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{case}: ended with exit code {process.exitcode}")
