"""SNLI-VE: pairs of a Flickr30k image and a sentence, as downloaded -> rows of the entailment
files.

252244149.jpg#1r1n <tab> 252244149 <tab> /9j/4AAQ... <tab> hypothesis <tab> caption (premise) <tab>
neutral
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.values import Ids, one_line, text_of, words_of
from ofa.prepare.annotations import Problems, find_image, line_number, one_of, read_json_lines
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import ImageOptions, Source, given_splits
from ofa.prepare.tsv_writer import IMAGE

LABELS = ("entailment", "neutral", "contradiction")
UNDECIDED = "-"  # the annotators did not agree; such pairs are left out
KEYS = ("Flickr30K_ID", "sentence2", "sentence1", "gold_label")


@dataclass(frozen=True, kw_only=True)
class SnliVeOptions(ImageOptions):
    """SNLI-VE and the images of Flickr30k."""

    train: str | None = option(None, "snli_ve_train.jsonl")
    dev: str | None = option(None, "snli_ve_dev.jsonl")
    test: str | None = option(None, "snli_ve_test.jsonl")


def read_snli_ve(options: SnliVeOptions, problems: Problems) -> PreparedDataset:
    """One file per split, ``snli_ve_train.tsv`` and so on."""
    images, files = ImageFolders(options.images), given_splits(options, "train", "dev", "test")
    found = PreparedDataset(inputs=list(files.values()))
    for split, path in files.items():
        rows, undecided, ids = [], 0, Ids("pair", "is the file put together of two?")
        for pair in read_json_lines(path, KEYS, "is it a file of SNLI-VE?"):
            if pair["gold_label"] == UNDECIDED:
                undecided += 1
                continue
            with problems.at(pair.where):
                row = row_of(pair, default_id=f"{split}_{line_number(pair.where)}")
                ids.add(row[0], pair.where)
                rows.append((find_image(images, f"{row[1]}.jpg", row[1]), row))
        found.add_rows(f"snli_ve_{split}.tsv", rows, f"{split}_pairs")
        found.counts[f"{split}_undecided"] = undecided
    return found


def row_of(pair: Mapping[str, Any], default_id: str) -> tuple[str, ...]:
    """The columns of a pair. Raises: RowError if a value is no text, or the label is unknown."""
    label = one_of(text_of(pair["gold_label"], f"a label ({', '.join(LABELS)})"), LABELS, "a label")
    uniq_id = words_of(pair["pairID"], "a pairID") if pair.get("pairID") is not None else default_id
    return (
        uniq_id,
        words_of(pair["Flickr30K_ID"], "a Flickr30K_ID"),
        IMAGE,
        words_of(pair["sentence2"], "a sentence"),
        one_line(text_of(pair["sentence1"], "a caption")),
        label,
    )


SOURCES = {
    "snli-ve": Source(
        SnliVeOptions,
        read_snli_ve,
        "snli_ve_train.tsv, snli_ve_dev.tsv, snli_ve_test.tsv",
        "ofa prepare snli-ve --train snli_ve_train.jsonl --dev snli_ve_dev.jsonl --test "
        "snli_ve_test.jsonl --images flickr30k_images --out dataset/snli_ve_data",
    )
}
