"""Captions in COCO's format, and Karpathy's split of them -> caption files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.image_archives import members
from ofa.io.image_files import ImageFolders
from ofa.io.paths import path_within
from ofa.io.values import Ids, RowError, id_key, name_and_value, text_of, words_of
from ofa.prepare.annotations import RIGHT_FILE, Problems, list_of, read_prefixes, read_record
from ofa.prepare.dataset import PreparedDataset, split_at_random
from ofa.prepare.hugging_face import captions_of_dataset, dataset_files
from ofa.prepare.source import DivideOptions, SourceOptions, source
from ofa.prepare.tsv_writer import CaptionCleaner, CaptionedImage

KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
CAPTIONS_FILE = "is this a captions file?"


@dataclass(frozen=True, kw_only=True)
class CocoCaptionsOptions(SourceOptions, DivideOptions):
    annotations: tuple[str, ...] = option(
        (),
        "captions_train2014.json and the like, or a ZIP archive; optional with --split",
        metavar="JSON|ZIP",
    )
    images: tuple[str, ...] = option(
        (), "folders or ZIP archives of the image files", metavar="DIR|ZIP"
    )
    dataset: tuple[str, ...] = option(
        (), "Hugging Face dataset with its images, instead of both", metavar="DIR|PARQUET"
    )
    columns: tuple[tuple[str, str], ...] = option(
        (),
        "columns of --dataset for image, caption and image_id",
        parse=name_and_value("NAME=COLUMN, such as caption=sentences"),
        metavar="NAME=COLUMN",
    )
    split: str | None = option(
        None,
        "Karpathy's dataset_coco.json (restval counts as training), or its archive",
        exclusive="split",
    )
    test_fraction: float = option(0.0, "part of the images kept for testing, with --val-fraction")


@source(CocoCaptionsOptions, "coco-captions")
def read_coco_captions(options: CocoCaptionsOptions, problems: Problems) -> PreparedDataset:
    """Captions of the annotations, divided by Karpathy's file or at random; or a Hugging Face
    dataset of images and captions.

    Writes caption_stage1_train.tsv, caption_stage2_train.tsv, caption_val.tsv, caption_test.tsv,
    *_caption_coco_format.json, captions.txt and manifest.json.

    example: ofa prepare coco-captions --split dataset_coco.json --images coco --out
    dataset/caption_data
    """
    check_options(options)
    cleaner = CaptionCleaner()
    splits: dict[str, list[CaptionedImage]] = {}
    images: list[CaptionedImage] = []
    if options.dataset:
        columns = dict(options.columns)
        splits = captions_of_dataset(options.dataset, columns, cleaner, problems)
        images = [image for some in splits.values() for image in some]
    else:
        folders = ImageFolders(options.images)
        images = images_from_coco(options, folders, cleaner, problems)
    if options.split:
        splits = split_by_karpathy(options.split, folders, cleaner, images, problems)
    elif options.val_fraction is not None:
        keys = [(len(image.image_id), image.image_id) for image in images]
        val = options.val_fraction
        splits = split_at_random(images, keys, val, options.seed, options.test_fraction)
    problems.settle()
    inputs = [*options.annotations, *filter(None, [options.split])]
    found = PreparedDataset(inputs=inputs or [path for path, _ in dataset_files(options.dataset)])
    found.add_captions(splits)
    if not splits["train"]:
        raise UserError(f"{found.inputs[-1]}: no image with a caption for training")
    found.counts = cleaner.counts()
    return found


def check_options(options: CocoCaptionsOptions) -> None:
    if options.dataset and (options.annotations or options.images or options.split):
        raise UserError(
            "--dataset: expected alone, for it holds images and captions, found --annotations,"
            " --images or --split as well; leave them out"
        )
    if options.dataset and options.id_prefix is not None:
        raise UserError(
            "--id-prefix: expected --annotations, found --dataset, whose ids are those of its"
            " column image_id; leave it out"
        )
    if options.dataset:
        return
    if options.columns:
        raise UserError(
            "--columns: expected --dataset, whose columns it names, found none; leave it out"
        )
    if options.split is None and options.val_fraction is None:
        raise UserError(
            "expected --split, --val-fraction or --dataset, found none; give one of them"
        )
    if not options.split and not options.annotations:
        raise UserError(
            "--annotations: expected a captions file with --val-fraction; found none; give one"
        )
    if not options.images:
        raise UserError("--images: expected the folder of the image files, found none; give it")
    if options.split and options.id_prefix is not None:
        raise UserError(
            "--id-prefix: expected --val-fraction, found --split, whose ids are those of "
            "--annotations; leave it out"
        )


def annotation_files(paths: Sequence[str], pattern: str) -> list[str]:
    """The files, those in ZIP archives by a pattern of their names. Raises: UserError."""
    found = []
    for path in paths:
        if not path.endswith(".zip"):
            found.append(path)
            continue
        inner = members(path).items()
        named = [one for name, one in inner if fnmatch(os.path.basename(name), pattern)]
        if not named:
            raise UserError(f"{path}: expected {pattern} in the archive, found none; {RIGHT_FILE}")
        found += named
    return found


def image_at(images: ImageFolders, where: str, *names: str) -> str:
    """Path of the image by the first of its names that is there; one that is missing is told with
    the broken ones. Raises: UserError for a name that leads elsewhere."""
    path = images.find(*names)
    if path is None and images.folders:
        path = str(path_within(images.folders[0], names[0], where))
    return path or f"{[*images.archives, *images.tables][0]}:{names[-1]}"


def captions_of(
    path: str | Path, record: Mapping[str, Any], cleaner: CaptionCleaner, problems: Problems
) -> dict[str, list[str]]:
    """Image id -> captions of a COCO caption file, in its order; empty captions are left out."""
    captions: dict[str, list[str]] = {}
    needs = ("image_id", "caption")
    for entry in list_of(path, record["annotations"], "annotation", needs, CAPTIONS_FILE):
        with problems.at(entry.where):
            image_id = words_of(entry["image_id"], "an image_id")
            text = cleaner(text_of(entry["caption"], "a caption", "caption", "raw"))
            if text:
                captions.setdefault(image_id, []).append(text)
    return captions


def images_from_coco(
    options: CocoCaptionsOptions, folders: ImageFolders, cleaner: CaptionCleaner, problems: Problems
) -> list[CaptionedImage]:
    """Images of the annotations in the order of their ids. Several files may caption one image."""
    paths, ids = annotation_files(options.annotations, "captions_*.json"), Ids("image")
    # by prefix and ``id_key``: image id and file; place of the first caption, and all captions
    names: dict[str, tuple[str, str]] = {}
    captions: dict[str, tuple[str, list[str]]] = {}
    for path, prefix in zip(paths, read_prefixes(options.id_prefix, paths)):
        record = read_record(path, "images", "annotations")
        for entry in list_of(path, record["images"], "image", ("id", "file_name"), CAPTIONS_FILE):
            try:
                image_id = words_of(entry["id"], "an id")
                name = words_of(entry["file_name"], "a file_name")
            except RowError as error:
                raise UserError(f"{entry.where}: expected {error}; correct the file") from None
            key = prefix + id_key(image_id)
            if names.get(key, ("", ""))[1] != name:
                ids.add(image_id, f"{entry.where} ({name})", prefix)
                names[key] = prefix + image_id, name
        for image_id, texts in captions_of(path, record, cleaner, problems).items():
            place = f"{path}: annotation of image {image_id}"
            captions.setdefault(prefix + id_key(image_id), (place, []))[1].extend(texts)
    images = []
    for key, (place, texts) in captions.items():
        if key not in names:
            raise UserError(f"{place}, which is not in 'images'; the file is incomplete")
        image_id, name = names[key]
        file = image_at(folders, paths[0], name)
        images.append(CaptionedImage(image_id, tuple(texts), file))
    return sorted(images, key=lambda image: (len(image.image_id), image.image_id))


def split_by_karpathy(
    path: str,
    images: ImageFolders,
    cleaner: CaptionCleaner,
    annotated: Sequence[CaptionedImage],
    problems: Problems,
) -> dict[str, list[CaptionedImage]]:
    """Karpathy's ``dataset_coco.json``. Captions come from the annotation files where they have
    the image, otherwise from the split file itself."""
    known = {id_key(captioned.image_id): captioned for captioned in annotated}
    splits: dict[str, list[CaptionedImage]] = {"train": [], "val": [], "test": []}
    files = annotation_files([path], "dataset_coco.json")
    if len(files) > 1:
        raise UserError(
            f"{path}: expected one dataset_coco.json in the archive, found {len(files)}"
            f" ({', '.join(files)}); unpack the right one and give that"
        )
    path = files[0]
    for number, entry in enumerate(list_of(path, read_record(path, "images")["images"], "image")):
        try:
            numbered = entry.get("cocoid", entry.get("imgid", number))
            image_id = words_of(numbered, "a cocoid or imgid")
            split = KARPATHY_SPLITS[entry["split"]]
            texts = [sentence["raw"] for sentence in entry["sentences"]]
            name = words_of(entry["filename"], "a filename")
            nested = os.path.join(text_of(entry.get("filepath", ""), "a filepath"), name)
        except (KeyError, TypeError, RowError) as error:
            raise UserError(
                f"{entry.where}: expected 'filename', 'split' (one of"
                f" {', '.join(KARPATHY_SPLITS)}) and 'sentences' with 'raw', found a problem with"
                f" {error}; is this dataset_coco.json?"
            ) from None
        # images/val2014/NAME as in COCO's archives, or images/NAME when all lie in one folder
        file = image_at(images, entry.where, nested, name)
        captioned = known.get(id_key(image_id))
        if captioned and Path(captioned.source).name != Path(file).name:
            raise UserError(
                f"{entry.where}: expected image {image_id} of --annotations,"
                f" {Path(captioned.source).name}, found {entry['filename']}; do both files number"
                " the same images?"
            )
        with problems.at(entry.where):
            if captioned:
                captions = captioned.captions
            else:
                cleaned = [cleaner(text_of(text, "a sentence", "raw")) for text in texts]
                captions = tuple(filter(None, cleaned))
            if captions:
                splits[split].append(CaptionedImage(image_id, captions, file))
    return splits
