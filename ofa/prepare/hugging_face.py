"""Hugging Face datasets, of texts or of captioned images: folders of ``save_to_disk``, and parquet
files as the hub has them, which hold the images.

data/train-00000-of-00002.parquet    image {bytes, path}    captions ["a dog", ...]    cocoid 9
mnli/train/data-00000-of-00001.arrow    premise "a dog runs"    hypothesis "it rests"    label 2
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ofa.errors import UserError
from ofa.io.image_archives import TABLES, table_columns, table_rows
from ofa.io.image_files import IMAGE_SUFFIXES, is_hidden
from ofa.io.values import RowError, id_key, texts_of, words_of
from ofa.prepare.annotations import Entry, Problems, one_of
from ofa.prepare.csv_jsonl import SPLITS
from ofa.prepare.tsv_writer import CaptionCleaner, CaptionedImage

# What the columns are called, the likeliest first; by our names.
NAMES = {
    "image": "image img jpg",
    "caption": "captions caption sentences_raw sentences text texts answer",
    "image_id": "cocoid image_id img_id imgid filename file_name id",
}
CACHE = "cache-"  # files that ``datasets`` computes beside its own
PARTS = {**SPLITS, "restval": "train", "test1": "test"}


def split_tables(folder: str | Path) -> dict[str, list[str]]:
    """Split, as the dataset calls it -> its tables; empty if the folder itself is no dataset."""
    saved, hub = Path(folder).glob("*/data*.arrow"), Path(folder).glob("*.parquet")
    found: dict[str, list[str]] = {}
    for file in sorted(file for file in [*saved, *hub] if not is_hidden(file.name)):
        name = file.parent.name if file.suffix == ".arrow" else file.stem.partition("-")[0]
        found.setdefault(name, []).append(str(file))
    return found


def split_rows(where: str, tables: Sequence[str], columns: Sequence[str]) -> Iterator[Entry]:
    """Some columns of the rows of a split. Raises: UserError if one is missing."""
    numbers = itertools.count()
    for table in tables:
        there = table_columns(table)
        if not set(columns) <= set(there):
            raise UserError(
                f"{where}: expected the columns {', '.join(columns)}, found {', '.join(there)}; is"
                " it another data set?"
            )
        for row in table_rows(table, columns):
            yield Entry(row, f"{where}: row {next(numbers)}")


def captions_of_dataset(
    paths: Sequence[str], columns: Mapping[str, str], cleaner: CaptionCleaner, problems: Problems
) -> dict[str, list[CaptionedImage]]:
    """Images of each split; rows of one split and image id caption one image.

    Args: columns: ``image``, ``caption`` or ``image_id`` -> the dataset's name. Raises: UserError.
    """
    # split and ``id_key`` -> id, image, captions
    found: dict[tuple[str, str], tuple[str, str, list[str]]] = {}
    numbers = itertools.count()  # of all rows: files of two splits may have one name
    for path, split in dataset_files(paths):
        names = {name: column_of(path, name, columns) for name in NAMES}
        wanted = [name for name in (names["caption"], names["image_id"]) if name]
        there = table_columns(path)
        wanted += ["split"] * ("split" in there)
        for number, row in enumerate(table_rows(path, wanted)):
            with problems.at(f"{path}: row {number}"):
                part = PARTS[one_of(str(row.get("split") or split).lower(), PARTS, "a split")]
                image_id = f"{part}_{next(numbers)}"
                if names["image_id"]:
                    image_id = words_of(row[names["image_id"]], "an id", "id")
                key, image = (part, id_key(image_id)), f"{path}:{names['image']}/{number}"
                texts = texts_of(row[names["caption"]], "a caption", "raw", "caption")
                captions = list(filter(None, map(cleaner, texts)))
                if not captions and key not in found and part != "test":
                    raise RowError("a caption, found none")
                found.setdefault(key, (image_id, image, []))[-1].extend(captions)
    splits: dict[str, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    for (part, _), (image_id, image, captions) in found.items():
        is_file = image_id.lower().endswith(IMAGE_SUFFIXES)  # "a.jpg" is one, "v1.0" is not
        name = Path(image_id).stem if is_file else image_id
        splits[part].append(CaptionedImage(name, tuple(captions), image))
    return splits


def dataset_files(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(file, split) of all tables, the split by the name of file or folder; else training."""
    for path in paths:
        tables = (file for file in Path(path).rglob("*") if file.suffix in TABLES)
        below = sorted(
            file
            for file in tables
            if not file.name.startswith(CACHE)
            and not any(map(is_hidden, file.relative_to(path).parts))
        )
        files = below or [file for file in [Path(path)] if file.is_file()]
        if not files:
            raise UserError(f"{path}: expected parquet or Arrow files, found none; check --dataset")
        for file in files:
            name = str(file.relative_to(path) if below else file.name).lower()
            words = re.findall(r"[a-z0-9]+", name)
            yield str(file), next((PARTS[word] for word in words if word in PARTS), "train")


def column_of(path: str, name: str, columns: Mapping[str, str]) -> str:
    """The dataset's name of one of ``NAMES``; empty for an id that it lacks. Raises: UserError."""
    there = table_columns(path)
    usual = [columns[name]] if name in columns else NAMES[name].split()
    found = next((one for one in usual if one in there), "")
    if not found and (name != "image_id" or name in columns):
        raise UserError(
            f"{path}: expected a column for {name} ({', '.join(usual)}), found {', '.join(there)};"
            f" name it with --columns {name}=..."
        )
    return found
