"""Rows of every task, whole ones, and how they are read: the first kind of input that is
damaged."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caption_files import make_image
from PIL import Image

from ofa.data.negatives import NegativeSampler
from ofa.data.pretraining import PretrainingBuilder
from ofa.data.sample import SampleBuilder
from ofa.task.pretraining_tasks import PretrainingOptions
from ofa.task.task_spec import TaskOptions, mixture_spec
from ofa.tasks import declared_specs
from ofa.tasks.pretraining import EXTRAS, PAIRS
from ofa.tokens.bpe import load_language

# Values of columns by name, as whole files have them. A column of another task that has the same
# name has the same kind of value.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("17", "391895_0", "img-3"),
    "image": (make_image("red", (40, 30)), make_image("blue", (32, 32))),
    "caption": ("A red ball on the table.", "Two dogs, playing.&&a cat"),
    "source": ("two dogs and a red car", "the image"),
    "target": ("a red car", "dogs"),
    "text": ("the red car", "a red ball on the table"),
    "text1": ("a red ball", "what is it?"),
    "text2": ("the ball is red", "a car"),
    "label": ("yes", "0", "1"),
    "question": ("What color is the ball?", "is it red"),
    "answers": ("1.0|!+yes", "0.6|!+yes&&1.0|!+no"),
    "objects": ("ball&&table", "2,3,20,22,1,cube&&15,10,28,28,2,table"),
    "box": ("5,4,30,25", "0.0,0.5,20.25,29"),
    "instruction": ("what does the image describe?", "where is [5,4,30,25]?"),
    "answer": ("a red ball", "<bin_3> <bin_4>"),
    "hypothesis": ("a ball is red", "dogs play"),
    "code": ("0 15 3 7", ""),
    "codes": ("0 15 3 7", "1 1 1 1"),
    "dataset": ("coco", "cc12m"),
    "type": ("caption", "qa", "visual_grounding"),
}
LABELS = {
    "sst2": ("0", "1"),
    "rte": ("entailment", "not_entailment"),
    "qnli": ("entailment", "not_entailment"),
    "snli_ve": ("entailment", "neutral"),
}
SMALL = {
    "patch_image_size": 32,
    "max_src_length": 20,
    "max_tgt_length": 12,
    "num_bins": 20,
    "code_dict_size": 16,
    "code_image_size": 16,
    "max_image_size": 64,
}


@dataclass(frozen=True)
class RowTarget:
    """One way of reading rows.

    Args: columns: names in order. whole: column -> values of whole rows. read: (row, place,
    open_image or None) -> samples.
        vocabulary: number of tokens, which no token of a sample may reach.
    """

    name: str
    columns: tuple[str, ...]
    whole: Mapping[str, tuple[str, ...]]
    read: Callable[[Mapping[str, str], str, Any], list[Mapping[str, Any]]]
    vocabulary: int

    def whole_row(self, rng: random.Random) -> dict[str, str]:
        return {name: rng.choice(self.whole[name]) for name in self.columns}


def stand_in(size: tuple[int, int], field: str) -> Image.Image:
    """For the many runs that are not about images: an image of a fixed size, whatever the field
    holds."""
    return Image.new("RGB", size)


def row_targets(folders: Mapping[str, Path], negatives: Path) -> list[RowTarget]:
    """Every task in training and in evaluation, and the four kinds of pretraining rows. Args:
    folders: of vocabularies."""
    found = []
    for kind, folder in folders.items():
        bpe, vocabulary = load_language(folder, None, SMALL["code_dict_size"], SMALL["num_bins"])
        for spec in declared_specs():
            options = set_options(spec.options())
            whole = COLUMNS | ({"label": LABELS[spec.name]} if spec.name in LABELS else {})
            columns = spec.names_of(4 if spec.generates_images else len(spec.columns), "")
            for split in ("train", "valid"):
                builder = SampleBuilder(spec, options, vocabulary, bpe, split)
                read = partial(read_row, builder, spec)
                found.append(
                    RowTarget(f"{spec.name} {split} {kind}", columns, whole, read, len(vocabulary))
                )
        for split in ("train", "valid"):
            found += pretraining_targets(split, kind, bpe, vocabulary, negatives)
    return found


def set_options(options: TaskOptions) -> TaskOptions:
    for name, value in SMALL.items():
        if hasattr(options, name):
            setattr(options, name, value)
    for name in ("eval_acc", "eval_cider", "add_object"):
        if hasattr(options, name):
            setattr(options, name, True)
    return options


def read_row(
    builder: SampleBuilder, spec, row: Mapping[str, str], where: str, open_image: Any
) -> list[Mapping[str, Any]]:
    """The sample, and the references as an evaluation reads them."""
    sample = builder(row, 3, where=where, open_image=open_image)
    spec.row_references(row)
    return [sample]


def pretraining_targets(split: str, kind: str, bpe, vocabulary, negatives: Path) -> list[RowTarget]:
    options = set_options(PretrainingOptions())
    builder = PretrainingBuilder(
        mixture_spec("unify_task", PretrainingOptions),
        options,
        vocabulary,
        bpe,
        split,
        NegativeSampler(negatives),
    )

    def read(reader, row, where, open_image):
        return builder.samples(reader, row, builder.streams(1, len(row["id"]) % 7, "pairs"), where)

    targets = []
    for name, rows in {"pairs": PAIRS, **EXTRAS}.items():
        whole = COLUMNS | ({"objects": COLUMNS["objects"][1:]} if name == "detection" else {})
        whole |= {"image": COLUMNS["image"][1:]} if name == "image_infilling" else {}
        whole |= (
            {"answers": (*COLUMNS["answers"], "5,4,30,25"), "question": COLUMNS["question"]}
            if name == "pairs"
            else {}
        )
        targets.append(
            RowTarget(
                f"pretraining {name} {split} {kind}",
                rows.column_names,
                whole,
                partial(read, rows.read),
                len(vocabulary),
            )
        )
    return targets


def faults_of(sample: Mapping[str, Any], vocabulary: int) -> list[str]:
    """What is wrong with a sample that was accepted: tokens outside of the vocabulary, numbers
    that are not finite."""
    faults = []
    for name, value in sample.items():
        if isinstance(value, (torch.Tensor, np.ndarray)):
            tensor = torch.as_tensor(value)
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                faults.append(f"{name} is not finite: {tensor.flatten()[:4].tolist()}")
            if (
                name
                in ("source", "target", "prev_output_tokens", "prefix_tokens", "decoder_prompt")
                and tensor.numel()
            ):
                if tensor.min() < 0 or tensor.max() >= vocabulary:
                    faults.append(f"{name} has the token {int(tensor.max())} of {vocabulary}")
    confidence = sample.get("conf")
    if confidence is not None and float(confidence[0]) < 0:
        faults.append(f"conf is {float(confidence[0])}")
    return faults
