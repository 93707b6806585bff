"""An update of CIDEr optimization over what it is made of: generating captions (5 of 16 tokens per
image by beam search, no repeated trigram) and a stage-1 update of the same images.

Random weights, synthetic batches, 5 references; the fastest of ``--repeats`` alternating runs.
Target: ratio <= 1.5 (upstream's code: 4.0).
"""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import frame
import torch

from ofa.metrics.document_frequency import count_document_frequencies, write_document_frequencies

TOKENS, SAMPLES, REFERENCES = 16, 5, 5
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

    texts = torch.randint(5, 3000, (2000, 10), generator=torch.Generator().manual_seed(0)).tolist()
    captions = (" ".join(map(str, text)) + " <eos>" for text in texts)
    frequencies = count_document_frequencies([text] for text in captions)
    write_document_frequencies(folder / "words.p", frequencies)
    words = Words()
    task = SimpleNamespace(target_dictionary=words, bpe=words, scst_generator=generator)
    stage1 = AdjustLabelSmoothedCrossEntropyCriterion(task, sentence_avg=False, label_smoothing=0.1)
    return stage1, ScstRewardCriterion(
        task, scst_cider_cached_tokens=str(folder / "words.p"), sentence_avg=False, scst_patience=0
    )


def batches(images: int, pixels: int) -> tuple[dict, dict]:
    """A batch of stage 1, and one of stage 2 whose targets are the joined references."""
    target = torch.randint(5, 3000, (images, TOKENS))
    target[:, -1] = EOS
    previous = target.roll(1, dims=1).index_fill(1, torch.tensor([0]), 0)
    references = torch.randint(5, 3000, (images, REFERENCES * 11))
    references[:, 10::11] = JOIN
    references[:, -1] = EOS
    stage1 = {
        "net_input": {**frame.caption_inputs(images, pixels), "prev_output_tokens": previous},
        "target": target,
        "ntokens": target.numel(),
        "nsentences": images,
    }
    return stage1, {**stage1, "target": references}


def update(model, criterion, batch) -> None:
    loss, sample_size, _ = criterion(model, batch, update_num=1)
    (loss / sample_size).backward()
    model.zero_grad(set_to_none=True)


@frame.program(
    threads=2,
    repeats=5,
    arch="ofa_tiny",
    images=4,
    pixels=(256, "side of the images"),
    freeze_resnet=(False, "batch norm with fixed statistics, as train_stage2.sh has it"),
)
def main(args: frame.Args) -> dict:
    model = frame.random_model(args.arch, dropout=0.0, freeze_resnet=args.freeze_resnet).train()
    options = {"max_len_b": TOKENS, "min_len": TOKENS, "no_repeat_ngram_size": 3}
    generator = frame.generator_of(model, beam=SAMPLES, **options)
    first, second = batches(args.images, args.pixels)
    with tempfile.TemporaryDirectory() as folder:
        stage1, stage2 = criterions(Path(folder), generator)
    works = {
        "generation": lambda: generator.generate([model], first),
        "stage-1 update": lambda: update(model, stage1, first),
        "stage-2 update": lambda: update(model, stage2, second),
    }
    times, _ = frame.fastest(works, args.repeats + 1)  # the first round warms up
    ratio = times["stage-2 update"] / (times["generation"] + times["stage-1 update"])
    title = f"{args.arch}, {args.images} images x {SAMPLES} samples, {args.pixels} px"
    return frame.print_times(title, times, ratio=ratio)
