"""RefCOCO, RefCOCO+ and RefCOCOg as the REFER toolkit ships them -> rows of the grounding files.

``refs(unc).p`` is a pickled list of references, ``instances.json`` has images and boxes ``[x, y,
width, height]``; a row per sentence: ``79_0``, ``79_1``, ...
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_files import ImageFolders
from ofa.io.json_files import read_plain
from ofa.io.values import Ids, RowError, id_key, read_box, read_integer, words_of
from ofa.prepare.annotations import Entry, Problems, find_image, list_of, read_record
from ofa.prepare.dataset import PreparedDataset
from ofa.prepare.source import ImageOptions, source
from ofa.prepare.table import TableRow, dataset_of

SPLITS = ("train", "val", "testA", "testB", "test")
NEEDS = ("ref_id", "ann_id", "image_id", "split", "sentences")
REFS_FILE = "is it refs(...).p of the REFER toolkit?"
INSTANCES_FILE = "is it instances.json of the REFER toolkit?"
# whose splits there are, the usual one first
SPLIT_BY = {"refcoco": ("unc", "google"), "refcocoplus": ("unc",), "refcocog": ("umd", "google")}


@dataclass(frozen=True, kw_only=True)
class RefcocoOptions(ImageOptions):
    data: str = option(help="folder with refs(...).p and instances.json")
    split_by: Literal["unc", "google", "umd"] | None = option(
        None, "whose split: the name in refs(...).p, if not the usual one"
    )
    sentences: Literal["raw", "sent"] = option(
        "raw", "expressions as written, or as cleaned by the toolkit"
    )


@source(RefcocoOptions, *SPLIT_BY)
def read_refcoco(kind: str, options: RefcocoOptions, problems: Problems) -> PreparedDataset:
    """One file per split, one row per sentence.

    Writes KIND_SPLIT.tsv for every split and manifest.json.

    example: ofa prepare KIND --data refer/data --images train2014 --out dataset/KIND_data
    """
    refs, instances = locate(kind, options)
    images, regions = ImageFolders(options.images), regions_of(instances)
    rows, ids = [], Ids("reference", "is the list put together of two?")
    for reference in read_references(refs):
        split, where = reference["split"], reference.where
        if split not in SPLITS:
            raise UserError(
                f"{where}: expected a split ({', '.join(SPLITS)}), found {split!r}; "
                "is it the file of another data set?"
            )
        with problems.at(where):
            ref_id = words_of(reference["ref_id"], "a ref_id")
            image_id = words_of(reference["image_id"], "an image_id")
            ids.add(ref_id, where)
            name, size, box = regions(reference, image_id)
            path = find_image(images, name)
            for i, sentence in enumerate(reference["sentences"]):
                text = sentence.get(options.sentences)
                text = sentence["sent"] if text in (None, "") else text
                values = {"id": f"{ref_id}_{i}", "image_id": image_id, "text": text, "box": box}
                rows.append(TableRow(where, values, split, path, size, box_format="xywh"))
    inputs = [refs, instances]
    return dataset_of("refcoco", rows, problems, options, inputs, f"{kind}_{{}}.tsv")


def locate(kind: str, options: RefcocoOptions) -> tuple[str, str]:
    """``refs(unc).p`` and ``instances.json`` in the folder, or in its sub-folder ``refcoco+``."""
    data, split_by = Path(options.data), options.split_by or SPLIT_BY[kind][0]
    name = kind.replace("plus", "+")  # as the toolkit calls it
    for folder in (data, data / name):
        refs = folder / f"refs({split_by}).p"
        if refs.is_file():
            return str(refs), str(folder / "instances.json")
    there = ", ".join(sorted(path.name for path in data.glob("**/refs(*).p"))) or "none"
    raise UserError(
        f"{data}: expected refs({split_by}).p and instances.json, found of such files: {there};"
        f" give the folder of {name} as --data, and --split-by"
        f" {' or '.join(SPLIT_BY[kind])}"
    )


def read_references(path: str) -> Iterator[Entry]:
    """The references, each with the entries that are used. The pickle runs no code."""
    refs = read_plain(path, "the REFER toolkit's pickled list of references")
    for reference in list_of(path, refs, "reference", NEEDS, REFS_FILE, "ref_id"):
        where = f"{reference.where}: sentences"
        sentences = list_of(where, reference["sentences"], "sentence", ("sent",), REFS_FILE)
        reference["sentences"] = list(sentences)
        yield reference


def regions_of(path: str) -> Callable[[Entry, str], tuple[str, tuple[int, int], list]]:
    """Images and boxes of ``instances.json``. Returns: reference and its image's id -> file and
    size of the image, box; raises RowError."""
    record = read_record(path, "images", "annotations")
    images = _by_id(path, record["images"], "image", ("file_name", "width", "height"), _image_of)
    boxes = _by_id(path, record["annotations"], "annotation", ("image_id", "bbox"), _box_of)

    def find(reference: Entry, image_id: str) -> tuple[str, tuple[int, int], list]:
        ann_id = words_of(reference["ann_id"], "an ann_id")
        hint = "is that the file of another data set?"
        if id_key(image_id) not in images:
            raise RowError(f"its image {image_id} in {path}, found none; {hint}")
        of_image, box = boxes.get(id_key(ann_id), ("", []))
        if of_image != id_key(image_id):
            place = f"its annotation {ann_id} of image {image_id} in {path}"
            raise RowError(f"{place}, found none; {hint}")
        return *images[id_key(image_id)], box

    return find


def _by_id(
    path: str, entries: Any, what: str, needs: Sequence[str], read: Callable[[Entry], Any]
) -> dict[str, Any]:
    """By ``id_key``."""
    found, ids = {}, Ids(what, "is the file put together of two?")
    for entry in list_of(path, entries, what, ("id", *needs), INSTANCES_FILE):
        try:
            entry_id = words_of(entry["id"], "an id")
            found[id_key(entry_id)] = read(entry)
        except (RowError, ValueError) as error:
            wrong = error if isinstance(error, RowError) else f"numbers, found {error}"
            raise UserError(f"{entry.where}: expected {wrong}; {INSTANCES_FILE}") from None
        ids.add(entry_id, entry.where)
    return found


def _image_of(entry: Entry) -> tuple[str, tuple[int, int]]:
    name = words_of(entry["file_name"], "a file_name")
    return name, (read_integer(entry["width"]), read_integer(entry["height"]))


def _box_of(entry: Entry) -> tuple[str, list]:
    return id_key(words_of(entry["image_id"], "an image_id")), list(read_box(entry["bbox"]))
