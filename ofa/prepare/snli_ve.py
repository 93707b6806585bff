"""SNLI-VE: pairs of a Flickr30k image and a sentence, as downloaded -> rows of the entailment files
(id, image-id, image, hypothesis, caption, label)."""

from dataclasses import dataclass

from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.values import Ids, text_of, words_of
from ofa.prepare.annotations import Problems, find_image, one_of, read_json_lines
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import ImageOptions, given_splits, source
from ofa.prepare.table import TableRow, dataset_of

LABELS = ("entailment", "neutral", "contradiction")
UNDECIDED = "-"  # the annotators did not agree; such pairs are left out
KEYS = ("Flickr30K_ID", "sentence2", "sentence1", "gold_label")


@dataclass(frozen=True, kw_only=True)
class SnliVeOptions(ImageOptions):
    train: str | None = option(None, "snli_ve_train.jsonl")
    dev: str | None = option(None, "snli_ve_dev.jsonl")
    test: str | None = option(None, "snli_ve_test.jsonl")


@source(SnliVeOptions, "snli-ve")
def read_snli_ve(options: SnliVeOptions, problems: Problems) -> PreparedDataset:
    """One file per split.

    Writes snli_ve_train.tsv, snli_ve_dev.tsv, snli_ve_test.tsv and manifest.json.

    example: ofa prepare snli-ve --train snli_ve_train.jsonl --dev snli_ve_dev.jsonl --test
    snli_ve_test.jsonl --images flickr30k_images --out dataset/snli_ve_data
    """
    images, files = ImageFolders(options.images), given_splits(options)
    rows, undecided = [], dict.fromkeys(files, 0)
    for split, path in files.items():
        ids = Ids("pair", "is the file put together of two?")
        for pair in read_json_lines(path, KEYS, "is it a file of SNLI-VE?"):
            if pair["gold_label"] == UNDECIDED:
                undecided[split] += 1
                continue
            with problems.at(pair.where):
                label = text_of(pair["gold_label"], f"a label ({', '.join(LABELS)})")
                image_id = words_of(pair["Flickr30K_ID"], "a Flickr30K_ID")
                if pair.get("pairID") is None:
                    pair["pairID"] = f"{split}_{pair.where.rpartition(':')[2]}"
                values = {
                    "id": words_of(pair["pairID"], "a pairID"),
                    "image_id": image_id,
                    "hypothesis": pair["sentence2"],
                    "caption": text_of(pair["sentence1"], "a caption"),
                    "label": one_of(label, LABELS, "a label"),
                }
                ids.add(values["id"], pair.where)
                image = find_image(images, f"{image_id}.jpg", image_id)
                rows.append(TableRow(pair.where, values, split, image))
    inputs = list(files.values())
    found = dataset_of("snli_ve", rows, problems, options, inputs, "snli_ve_{}.tsv")
    found.counts |= {f"{split}_undecided": number for split, number in undecided.items()}
    return found
