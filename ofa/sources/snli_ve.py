"""SNLI-VE: pairs of a Flickr30k picture and a sentence, as downloaded -> rows of the entailment files.

    252244149.jpg#1r1n <tab> 252244149 <tab> /9j/4AAQ... <tab> hypothesis <tab> caption (premise) <tab> neutral
"""

from collections.abc import Mapping

from ofa.errors import UserError
from ofa.picture_files import PictureFolders
from ofa.preparation import IMAGE
from ofa.sources.found import Found, Problems, grouped, one_line, read_json_lines

LABELS = ("entailment", "neutral", "contradiction")
UNDECIDED = "-"  # the annotators did not agree; such pairs are left out
KEYS = {"image": "Flickr30K_ID", "hypothesis": "sentence2", "caption": "sentence1", "label": "gold_label"}


def read_snli_ve(files: Mapping[str, str], images: PictureFolders, problems: Problems) -> Found:
    """One file per split, ``snli_ve_train.tsv`` and so on.

    Args: files: split (``train``, ``dev``, ``test``) -> ``snli_ve_train.jsonl``.
    """
    found = Found("snli-ve", inputs=list(files.values()), settings={"splits": list(files)})
    for split, path in files.items():
        rows, undecided = [], 0
        for number, pair in read_json_lines(path):
            where = f"{path}:{number}"
            missing = [key for key in KEYS.values() if key not in pair]
            if missing:
                raise UserError(f"{where}: expected a pair with {', '.join(KEYS.values())}, found none called {missing[0]!r}; "
                                "is it a file of SNLI-VE?")
            label, image_id = pair[KEYS["label"]], str(pair[KEYS["image"]])
            if label == UNDECIDED:
                undecided += 1
                continue
            hypothesis = one_line(pair[KEYS["hypothesis"]])
            picture = images.find(f"{image_id}.jpg", image_id)
            if label not in LABELS:
                problems.add(f"{where}: expected a label ({', '.join(LABELS)}), found {label!r}")
            elif not hypothesis:
                problems.add(f"{where}: expected a sentence, found an empty text")
            elif picture is None:
                problems.add(f"{where}: expected a picture {image_id}.jpg below {images}, found none")
            else:
                uniq_id = one_line(pair.get("pairID") or f"{split}_{number}")
                caption = one_line(pair[KEYS["caption"]])
                rows.append((picture, (uniq_id, image_id, IMAGE, hypothesis, caption, label)))
        found.files[f"snli_ve_{split}.tsv"] = grouped(rows)
        found.counts |= {f"{split}_pairs": len(rows), f"{split}_undecided": undecided}
    problems.settle()
    return found
