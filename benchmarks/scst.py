"""An update of CIDEr optimization, compared with what it is made of: generating captions and a
stage-1 update.

    python benchmarks/scst.py [--threads 2] [--repeats 5] [--arch ofa_tiny] [--images 4] [--pixels
    256] [--freeze-resnet]

A stage-2 update samples 5 captions of 16 tokens per image (beam search, no repeated trigram),
scores them by CIDEr-D against 5 references and cached document frequencies, and learns from them.
The figure is its time divided by (beam generation for the same images + forward, loss and backward
of a stage-1 update of the same images); each is the fastest of ``--repeats`` alternating runs.
Random weights, synthetic batches. Target: ratio <= 1.5 (upstream's code: 4.0).
"""

import argparse
import random
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import torch

from ofa.metrics.document_frequency import count_document_frequencies, write_document_frequencies
from ofa.models.config import ModelConfig
from ofa.models.generation.generator import SequenceGenerator
from ofa.models.generation.options import GenerationOptions
from ofa.models.ofa_model import OFAModel

VOCAB_SIZE = 59457  # upstream's English vocabulary
SOURCE_TOKENS, TARGET_TOKENS, SAMPLES, REFERENCES = 12, 16, 5, 5
RUN_SCRIPT_SWITCHES = {
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "disable_entangle": True,
}
PAD, EOS, JOIN = 1, 2, 4


class Words:
    """Dictionary and BPE in one: token 1234 is the word "1234", token 4 joins the references."""

    def __getattr__(self, name: str):
        return lambda: {"bos": 0, "pad": PAD, "eos": EOS}[name]

    def string(self, tokens) -> str:
        return " ".join(
            "&&" if token == JOIN else str(token) for token in tokens.tolist() if token > 2
        )

    def decode(self, text: str) -> str:
        return text


def criterions(folder: Path, generator) -> tuple:
    """Stage 1's and stage 2's criterion, with document frequencies of 2000 made-up images."""
    import fairseq.benchmark.dummy_lm  # noqa: F401  completes fairseq's own imports

    from ofa.criterions.fairseq_label_smoothed import AdjustLabelSmoothedCrossEntropyCriterion
    from ofa.criterions.fairseq_scst import ScstRewardCriterion

    draw = random.Random(0)
    captions = [
        " ".join(str(draw.randint(5, 3000)) for _ in range(10)) + " <eos>" for _ in range(2000)
    ]
    write_document_frequencies(
        folder / "words.p", count_document_frequencies([text] for text in captions)
    )
    words = Words()
    task = SimpleNamespace(target_dictionary=words, bpe=words, scst_generator=generator)
    stage1 = AdjustLabelSmoothedCrossEntropyCriterion(task, sentence_avg=False, label_smoothing=0.1)
    return stage1, ScstRewardCriterion(
        task, scst_cider_cached_tokens=str(folder / "words.p"), sentence_avg=False, scst_patience=0
    )


def batches(images: int, pixels: int) -> tuple[dict, dict]:
    """A batch of stage 1, and one of stage 2 whose targets are the joined references."""
    torch.manual_seed(0)
    target = torch.randint(5, 3000, (images, TARGET_TOKENS))
    target[:, -1] = EOS
    net_input = {
        "src_tokens": torch.randint(5, 50000, (images, SOURCE_TOKENS)),
        "patch_images": torch.randn(images, 3, pixels, pixels),
        "patch_masks": torch.ones(images, dtype=torch.bool),
        "prev_output_tokens": target.roll(1, dims=1).index_fill(1, torch.tensor([0]), 0),
    }
    stage1 = {
        "net_input": net_input,
        "target": target,
        "ntokens": target.numel(),
        "nsentences": images,
    }
    references = torch.randint(5, 3000, (images, REFERENCES * 11))
    references[:, 10::11] = JOIN
    references[:, -1] = EOS
    return stage1, {**stage1, "target": references}


def update(model, criterion, batch) -> None:
    loss, sample_size, _ = criterion(model, batch, update_num=1)
    (loss / sample_size).backward()
    model.zero_grad(set_to_none=True)


def measure(args: Namespace, folder: Path) -> dict[str, float]:
    """Seconds of each kind of work."""
    torch.manual_seed(0)
    switches = {**RUN_SCRIPT_SWITCHES, "dropout": 0.0, "freeze_resnet": args.freeze_resnet}
    model = OFAModel(ModelConfig.from_namespace(switches, args.arch), VOCAB_SIZE).train()
    options = GenerationOptions(
        beam=SAMPLES, max_len_b=TARGET_TOKENS, min_len=TARGET_TOKENS, no_repeat_ngram_size=3
    )
    generator = SequenceGenerator([model], options, VOCAB_SIZE)
    stage1, stage2 = criterions(folder, generator)
    stage1_batch, stage2_batch = batches(args.images, args.pixels)
    works = {
        "generation": lambda: generator.generate([model], stage1_batch),
        "stage-1 update": lambda: update(model, stage1, stage1_batch),
        "stage-2 update": lambda: update(model, stage2, stage2_batch),
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(args.repeats + 1):  # the first round warms up, and is never the fastest
        for name, work in works.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arch", default="ofa_tiny")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=256, help="side of the images")
    parser.add_argument(
        "--freeze-resnet",
        action="store_true",
        help="batch norm with fixed statistics, as train_stage2.sh has it",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder))
    ratio = found["stage-2 update"] / (found["generation"] + found["stage-1 update"])
    print(
        f"{args.arch}, {args.images} images x {SAMPLES} samples, {args.pixels} px: "
        + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items())
        + f"; ratio {ratio:.2f} (target 1.5)"
    )


if __name__ == "__main__":
    main()
