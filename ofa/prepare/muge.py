"""MUGE's captions of goods (ECommerce-IC) as published -> caption files.

IC_train.jsonl   {"image_id": "007c72", "text": ["蕾丝元素，时尚气质", "性感名媛"]}  or one text
IC_train.tsv     007c72 <tab> /9j/4AAQ...   the image in base64; all there is of the test set
"""

from dataclasses import dataclass

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import TABLE, ImageFolders, table_images
from ofa.io.values import Ids, RowError, texts_of, words_of
from ofa.prepare.annotations import Problems, find_image, read_json_lines
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import ImageOptions, given_splits, source
from ofa.prepare.tsv_writer import CaptionCleaner, CaptionedImage

IDS = ("image_id", "img_id", "id")
TEXTS = ("text", "texts", "caption", "captions")


@dataclass(frozen=True, kw_only=True)
class MugeOptions(ImageOptions):
    train: str = option(help="lines with image_id and text (one, or a list)")
    val: str | None = option(None, "the same; or images without texts", metavar="JSONL|TSV")
    test: str | None = option(
        None, "the same; or images without texts, as MUGE's test set", metavar="JSONL|TSV"
    )


@source(MugeOptions, "muge")
def read_muge(options: MugeOptions, problems: Problems) -> PreparedDataset:
    """The splits that are given.

    Writes the files of coco-captions that there are texts for and manifest.json.

    example: ofa prepare muge --train IC_train.jsonl --val IC_valid.jsonl --test IC_test.tsv
    --images IC_train.tsv IC_valid.tsv --out dataset/muge_data
    """
    files = given_splits(options)
    images, cleaner = ImageFolders(options.images), CaptionCleaner()
    splits: dict[str, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    for split, path in files.items():
        if not path.endswith(TABLE):
            for image_id, (where, texts) in captions_by_image(path, cleaner, problems).items():
                with problems.at(where):
                    if split == "train" and not texts:
                        raise RowError("a text, found none")
                    image = find_image(images, image_id)
                    splits[split].append(CaptionedImage(image_id, tuple(texts), image))
        elif split == "train":
            raise UserError(
                f"--train {path}: expected a JSONL file of texts, found a TSV file; its images"
                " belong to --images"
            )
        else:
            splits[split] = [CaptionedImage(name, (), image) for name, image in table_images(path)]
    problems.settle()
    found = PreparedDataset(inputs=list(files.values()))
    found.add_captions(splits)
    found.counts = cleaner.counts()
    return found


def captions_by_image(
    path: str, cleaner: CaptionCleaner, problems: Problems
) -> dict[str, tuple[str, list[str]]]:
    """Image id -> place of its first line, and its texts. An image may come on several lines."""
    found: dict[str, tuple[str, list[str]]] = {}
    ids = Ids("image", "write the id of an image the same way everywhere")
    for entry in read_json_lines(path):
        with problems.at(entry.where):
            image_id, value = (
                next((entry[name] for name in names if name in entry), None)
                for names in (IDS, TEXTS)
            )
            image_id = words_of(image_id, '{"image_id": an id}')
            texts = texts_of(value, '{"text": "..." or ["...", ...]}', *TEXTS)
            if image_id not in found:
                ids.add(image_id, entry.where)
                found[image_id] = entry.where, []
            found[image_id][1].extend(filter(None, map(cleaner, texts)))
    return found
