"""RefCOCO, RefCOCO+ and RefCOCOg as the REFER toolkit ships them -> rows of the grounding files.

``refs(unc).p`` is a pickled list of references, ``instances.json`` has images and boxes ``[x, y,
width, height]``::

    {"ref_id": 79, "ann_id": 1, "image_id": 60623, "split": "val", "sentences": [{"sent": ...,
    "raw": ...}], ...}

    79_0 <tab> 60623 <tab> the bowl with a lit candle <tab> 409.0,237.0,545.0,353.0 <tab>
    /9j/4AAQ...
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.image_files import ImageFolders, stored_form, turned_box
from ofa.io.numbers import read_decimal, read_integer
from ofa.io.pickles import read_plain_pickle
from ofa.io.values import Ids, RowError, finding, id_key, words_of
from ofa.prepare.coco_captions import read_json
from ofa.prepare.prepared_dataset import PreparedDataset, Problems, checked_box, entries_of, grouped
from ofa.prepare.tsv_writer import IMAGE

SPLITS = ("train", "val", "testA", "testB", "test")
SPLIT_BY = {"refcoco": ("unc", "google"), "refcocoplus": ("unc",), "refcocog": ("umd", "google")}
# as the toolkit calls them
FOLDERS = {"refcoco": "refcoco", "refcocoplus": "refcoco+", "refcocog": "refcocog"}


def locate(kind: str, data: str, split_by: str) -> tuple[str, str]:
    """``refs(unc).p`` and ``instances.json`` in a folder, or in its sub-folder ``refcoco+``.

    Raises: UserError that says what lies there instead.
    """
    for folder in (Path(data), Path(data) / FOLDERS[kind]):
        refs = folder / f"refs({split_by}).p"
        if refs.is_file():
            return str(refs), str(folder / "instances.json")
    there = ", ".join(sorted(path.name for path in Path(data).glob("**/refs(*).p"))) or "none"
    raise UserError(
        f"{data}: expected refs({split_by}).p and instances.json, found of such files: {there};"
        f" give the folder of {FOLDERS[kind]} as --data, and --split-by"
        f" {' or '.join(SPLIT_BY[kind])}"
    )


def read_refer(
    kind: str,
    refs: str,
    instances: str,
    images: ImageFolders,
    problems: Problems,
    sentences: str = "raw",
) -> PreparedDataset:
    """One file per split, ``refcoco_train.tsv`` and so on, one row per sentence.

    Boxes are in upright pixels, as the images are written (``turned_box``).

    Args: kind: ``refcoco``, ``refcocoplus`` or ``refcocog``. sentences: ``raw`` as written, or
        ``sent`` as cleaned by the toolkit's authors.
    """
    boxes, image_entries = _read_instances(instances)
    found = PreparedDataset(kind, inputs=[refs, instances], settings={"sentences": sentences})
    rows: dict[str, list] = {}
    forms: dict[str | None, tuple] = {None: ((0, 0), 1)}
    ids = Ids("reference", "is the list put together of two?")
    for number, reference in enumerate(_read_refs(refs)):
        where = f"{refs}: reference {reference['ref_id']}"
        split = reference["split"]
        if split not in SPLITS:
            raise UserError(
                f"{where}: expected a split ({', '.join(SPLITS)}), found {split!r}; "
                "is it the file of another data set?"
            )
        try:
            ref_id, image_id = (
                words_of(reference["ref_id"], "a ref_id"),
                words_of(reference["image_id"], "an image_id"),
            )
            ids.add(ref_id, f"{refs}: entry {number}")
            path = (
                images.find(image_entries[id_key(image_id)]["file_name"])
                if id_key(image_id) in image_entries
                else None
            )
            if path is not None and path not in forms:
                forms[path] = stored_form(path)
            box = _box(reference, boxes, image_entries, instances, forms[path])
            if path is None:
                raise RowError(
                    f"an image {image_entries[id_key(image_id)]['file_name']} below {images}, found"
                    " none"
                )
            texts = [
                words_of(_written(sentence, sentences), "sentences with words")
                for sentence in reference["sentences"]
            ]
        except RowError as error:
            problems.add(f"{where}: expected {error}")
            continue
        found.sizes[path] = image_entries[id_key(image_id)]["size"]
        rows.setdefault(split, []).extend(
            (path, (f"{ref_id}_{i}", image_id, text, box, IMAGE)) for i, text in enumerate(texts)
        )
    found.counts |= problems.counts()
    problems.settle()
    for split in (split for split in SPLITS if split in rows):
        found.files[f"{kind}_{split}.tsv"] = grouped(rows[split])
        found.counts[f"{split}_sentences"] = len(rows[split])
    return found


def _read_refs(path: str) -> Sequence[dict[str, Any]]:
    """The references, each with the entries that are used. The pickle runs no code."""
    refs = read_plain_pickle(path, "the REFER toolkit's pickled list of references")
    needed = ("ref_id", "ann_id", "image_id", "split", "sentences")
    for number, reference in enumerate(refs if isinstance(refs, list) else [None]):
        missing = [key for key in needed if not isinstance(reference, dict) or key not in reference]
        sentences = [] if missing else reference["sentences"]
        if (
            missing
            or not isinstance(sentences, list)
            or not all(isinstance(sentence, dict) and "sent" in sentence for sentence in sentences)
        ):
            raise UserError(
                f"{path}: expected a list of references with {', '.join(needed)}, found entry"
                f" {number} without {missing[0] if missing else 'sent in its sentences'!r}; is it"
                " refs(...).p of the REFER toolkit?"
            )
    return refs


def _written(sentence: dict[str, Any], key: str) -> Any:
    """The sentence as ``raw`` or ``sent``; where there is no ``raw`` one, as ``sent``."""
    return sentence["sent"] if sentence.get(key) in (None, "") else sentence[key]


def _read_instances(path: str) -> tuple[dict, dict]:
    """Annotation id -> image id and ``bbox``, image id -> image with ``file_name`` and size; ids
    as ``id_key``."""
    record = read_json(path, ("images", "annotations"))
    boxes: dict[str, Any] = {}
    image_entries: dict[str, Any] = {}
    try:
        for entries, what, kept in (
            ("annotations", "annotation", boxes),
            ("images", "image", image_entries),
        ):
            ids = Ids(what, "is the file put together of two?")
            for number, entry in enumerate(entries_of(record, entries, path)):
                entry_id = words_of(entry["id"], "an id")
                ids.add(entry_id, f"{path}: {what} {number}")
                kept[id_key(entry_id)] = (
                    _boxed(entry)
                    if kept is boxes
                    else {
                        "file_name": words_of(entry["file_name"], "a file_name"),
                        "size": _size_of(entry),
                    }
                )
    except (KeyError, TypeError, ValueError, RowError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: expected 'annotations' with id, image_id and bbox, 'images' with id,"
            f" file_name, width and height, found a problem with {error}; is it instances.json of"
            " the REFER toolkit?"
        ) from None
    return boxes, image_entries


def _boxed(entry: dict) -> tuple[str, list[float]]:
    if not isinstance(entry["bbox"], list):
        raise RowError(f"a bbox of four numbers, found {finding(entry['bbox'])}")
    return id_key(words_of(entry["image_id"], "an image_id")), [
        read_decimal(number) for number in entry["bbox"]
    ]


def _size_of(entry: dict) -> tuple[int, int]:
    return read_integer(entry["width"]), read_integer(entry["height"])


def _box(reference: dict, boxes: dict, image_entries: dict, instances: str, form: tuple) -> str:
    """The box column of a reference. Args: form: of its image, see ``stored_form``. Raises:
    RowError that says what was expected."""
    ann_id, image_id = (
        words_of(reference["ann_id"], "an ann_id"),
        words_of(reference["image_id"], "an image_id"),
    )
    hint = "is that the file of another data set?"
    if id_key(image_id) not in image_entries:
        raise RowError(f"its image {image_id} in {instances}, found none; {hint}")
    of_image, box = boxes.get(id_key(ann_id), ("", []))
    if of_image != id_key(image_id):
        raise RowError(
            f"its annotation {ann_id} of image {image_id} in {instances}, found none; {hint}"
        )
    if len(box) != 4:
        raise RowError(f"a box of four numbers, found {box}")
    x, y, width, height = box
    column, wrong = checked_box(
        *turned_box((x, y, x + width, y + height), image_entries[id_key(image_id)]["size"], form)
    )
    if wrong:
        raise RowError(wrong)
    return column
