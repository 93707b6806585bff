"""SNLI-VE: pairs of a Flickr30k image and a sentence, as downloaded -> rows of the entailment
files.

252244149.jpg#1r1n <tab> 252244149 <tab> /9j/4AAQ... <tab> hypothesis <tab> caption (premise) <tab>
neutral
"""

from collections.abc import Mapping
from typing import Any

from ofa.errors import UserError
from ofa.io.image_files import ImageFolders
from ofa.io.values import Ids, RowError, one_line, text_of, words_of
from ofa.prepare.prepared_dataset import PreparedDataset, Problems, grouped, read_json_lines
from ofa.prepare.tsv_writer import IMAGE

LABELS = ("entailment", "neutral", "contradiction")
UNDECIDED = "-"  # the annotators did not agree; such pairs are left out
KEYS = {
    "image": "Flickr30K_ID",
    "hypothesis": "sentence2",
    "caption": "sentence1",
    "label": "gold_label",
}


def read_snli_ve(
    files: Mapping[str, str], images: ImageFolders, problems: Problems
) -> PreparedDataset:
    """One file per split, ``snli_ve_train.tsv`` and so on.

    Args: files: split (``train``, ``dev``, ``test``) -> ``snli_ve_train.jsonl``.
    """
    found = PreparedDataset(
        "snli-ve", inputs=list(files.values()), settings={"splits": list(files)}
    )
    for split, path in files.items():
        rows, undecided, ids = [], 0, Ids("pair", "is the file put together of two?")
        for number, pair in read_json_lines(path):
            where = f"{path}:{number}"
            missing = [key for key in KEYS.values() if key not in pair]
            if missing:
                raise UserError(
                    f"{where}: expected a pair with {', '.join(KEYS.values())}, found none called"
                    f" {missing[0]!r}; is it a file of SNLI-VE?"
                )
            if pair[KEYS["label"]] == UNDECIDED:
                undecided += 1
                continue
            try:
                row = _row(pair, f"{split}_{number}")
            except RowError as error:
                problems.add(f"{where}: expected {error}")
                continue
            ids.add(row[0], where)
            image = images.find(f"{row[1]}.jpg", row[1])
            if image is None:
                problems.add(f"{where}: expected an image {row[1]}.jpg below {images}, found none")
            else:
                rows.append((image, row))
        found.files[f"snli_ve_{split}.tsv"] = grouped(rows)
        found.counts |= {f"{split}_pairs": len(rows), f"{split}_undecided": undecided}
    found.counts |= problems.counts()
    problems.settle()
    return found


def _row(pair: Mapping[str, Any], default_id: str) -> tuple[str, ...]:
    """The columns of a pair. Raises: RowError if a value is no text, or the label is unknown."""
    label = text_of(pair[KEYS["label"]], f"a label ({', '.join(LABELS)})")
    if label not in LABELS:
        raise RowError(f"a label ({', '.join(LABELS)}), found {label!r}")
    uniq_id = words_of(pair["pairID"], "a pairID") if pair.get("pairID") is not None else default_id
    image_id, hypothesis = (
        words_of(pair[KEYS["image"]], "a Flickr30K_ID"),
        words_of(pair[KEYS["hypothesis"]], "a sentence"),
    )
    return (
        uniq_id,
        image_id,
        IMAGE,
        hypothesis,
        one_line(text_of(pair[KEYS["caption"]], "a caption")),
        label,
    )
