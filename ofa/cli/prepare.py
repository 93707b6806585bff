"""``ofa prepare``: training files from a data set as one downloads it, from people's own tables,
or from synthetic shapes."""

import argparse
import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ofa.cli.prepare_flags import (
    BoxOptions,
    ColumnOptions,
    ImageOptions,
    SourceOptions,
    add_kind,
    given_splits,
    images_and_problems,
    summary,
    write_found,
)
from ofa.io.flags import Parser, option

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CocoCaptionsOptions(SourceOptions):
    """Captions in COCO's format."""

    annotations: tuple[str, ...] = option(
        (), "captions_train2014.json and the like; optional with --split"
    )
    images: str = option(help="folder of the image files")
    split: str | None = option(
        None, "Karpathy's dataset_coco.json (restval counts as training)", exclusive="split"
    )
    val_fraction: float | None = option(
        None, "part of the images kept for validation", exclusive="split"
    )
    test_fraction: float = option(0.0, "part of the images kept for testing, with --val-fraction")
    id_prefix: tuple[str, ...] | None = option(
        None, "prefix of the ids of each --annotations file; alone: the files' names", empty=True
    )


@dataclass(frozen=True, kw_only=True)
class Vqa2Options(ImageOptions):
    """Questions and answers in the format of VQA v2."""

    questions: tuple[str, ...] = option(help="question files, of any splits")
    annotations: tuple[str, ...] = option((), "annotation files; none for test questions")
    id_prefix: tuple[str, ...] | None = option(
        None, "prefix of the ids of each pair of files; alone: the files' names", empty=True
    )
    split: Literal["train", "val", "test"] | None = option(
        None, "split of all questions, if not as 'data_subtype' tells", exclusive="split"
    )
    val_fraction: float | None = option(
        None, "part of the images, at random, for validation", exclusive="split"
    )
    answers_as_written: bool = option(False, "keep case, articles and punctuation of answers")
    ans2label_file: str | None = option(
        None, "answer set (.pkl or .json); training keeps only its answers", exclusive="answers"
    )
    min_answer_count: int = option(
        1, "training questions of each answer of the set (9 is usual)", exclusive="answers", least=1
    )


@dataclass(frozen=True, kw_only=True)
class RefcocoOptions(ImageOptions):
    """RefCOCO, RefCOCO+ or RefCOCOg."""

    data: str = option(help="folder with refs(...).p and instances.json")
    split_by: Literal["unc", "google", "umd"] | None = option(
        None, "whose split: the name in refs(...).p, if not the usual one"
    )
    sentences: Literal["raw", "sent"] = option(
        "raw", "expressions as written, or as cleaned by the toolkit"
    )


@dataclass(frozen=True, kw_only=True)
class SnliVeOptions(ImageOptions):
    """SNLI-VE and the images of Flickr30k."""

    train: str | None = option(None, "snli_ve_train.jsonl")
    dev: str | None = option(None, "snli_ve_dev.jsonl")
    test: str | None = option(None, "snli_ve_test.jsonl")


CLASS_FOLDERS = "a folder per synset, or a list of lines 'file synset' or 'file label'"


@dataclass(frozen=True, kw_only=True)
class ImagenetOptions(SourceOptions):
    """ImageNet, or any folders named by class."""

    train: str | None = option(None, CLASS_FOLDERS, metavar="DIR|LIST")
    val: str | None = option(None, CLASS_FOLDERS, metavar="DIR|LIST")
    test: str | None = option(None, CLASS_FOLDERS, metavar="DIR|LIST")
    synsets: str = option(help="lines 'synset words', in the order of the labels")
    images: tuple[str, ...] = option((), "folders of the files of a list")
    first_label: Literal[0, 1] = option(0, "first of the labels in a list")
    first_words_only: bool = option(False, "only the words before the first comma")


@dataclass(frozen=True, kw_only=True)
class JsonlOptions(ImageOptions, ColumnOptions, BoxOptions):
    """People's own table."""

    files: tuple[str, ...] = option(help="a row or a line per entry", positional=True)
    task: str = option(help="task that the data are for: caption, vqa, refcoco, ...")
    images: tuple[str, ...] = option((), "folders or TSV files of the images, if there are any")
    split: Literal["train", "val", "test"] = option(
        "train", "split of entries that have no column 'split'", exclusive="split"
    )
    val_fraction: float | None = option(
        None, "part of the images, at random, for validation", exclusive="split"
    )
    id_prefix: tuple[str, ...] | None = option(
        None, "prefix of the ids of each file; alone: the files' names", empty=True
    )
    keep_case: bool = option(False, "keep capitals in answers; else lower case")


@dataclass(frozen=True, kw_only=True)
class CsvOptions(JsonlOptions):
    """The same as CSV."""

    delimiter: str | None = option(
        None,
        "between columns, if not a tab in .tsv files or else a comma",
        parse=lambda text: character(text),
    )


def set_up(parser: Parser) -> None:
    """The kinds of ``ofa prepare``."""
    from ofa.cli.prepare_chinese import add_chinese
    from ofa.cli.prepare_ocr import add_ocr
    from ofa.cli.prepare_texts import add_texts
    from ofa.cli.shapes import add_shapes

    parser.description = "Write training files. An interrupted call is resumed by the same call."
    add = parser.add_actions("KIND")
    add_kind(
        add,
        "coco-captions",
        CocoCaptionsOptions,
        prepare_coco_captions,
        "captions in COCO's format and a folder of images",
        "caption_stage1_train.tsv, caption_stage2_train.tsv, caption_val.tsv, caption_test.tsv, "
        "*_caption_coco_format.json, captions.txt",
        "ofa prepare coco-captions --split dataset_coco.json --images coco --out "
        "dataset/caption_data",
    )
    add_kind(
        add,
        "vqa2",
        Vqa2Options,
        prepare_vqa2,
        "questions and answers in the format of VQA v2",
        "vqa_train.tsv, vqa_val.tsv, vqa_test.tsv (of the questions that there are), "
        "trainval_ans2label.json",
        "ofa prepare vqa2 --questions v2_OpenEnded_mscoco_*_questions.json --annotations "
        "v2_mscoco_*_annotations.json --images train2014 val2014 test2015 --out dataset/vqa_data",
    )
    for kind, title in (
        ("refcoco", "RefCOCO"),
        ("refcocoplus", "RefCOCO+"),
        ("refcocog", "RefCOCOg"),
    ):
        add_kind(
            add,
            kind,
            RefcocoOptions,
            partial(prepare_refer, kind),
            f"{title} as the REFER toolkit ships it",
            f"{kind}_SPLIT.tsv for every split",
            f"ofa prepare {kind} --data refer/data --images train2014 --out dataset/{kind}_data",
        )
    add_kind(
        add,
        "snli-ve",
        SnliVeOptions,
        prepare_snli_ve,
        "SNLI-VE and the images of Flickr30k",
        "snli_ve_train.tsv, snli_ve_dev.tsv, snli_ve_test.tsv",
        "ofa prepare snli-ve --train snli_ve_train.jsonl --dev snli_ve_dev.jsonl --test "
        "snli_ve_test.jsonl --images flickr30k_images --out dataset/snli_ve_data",
    )
    add_kind(
        add,
        "imagenet",
        ImagenetOptions,
        prepare_imagenet,
        "ImageNet, or any folders named by class",
        "imagenet_1k_train.tsv, imagenet_1k_val.tsv, class2label.json",
        "ofa prepare imagenet --train ILSVRC/train --val LOC_val_solution.csv --images ILSVRC/val "
        "--synsets LOC_synset_mapping.txt --out dataset/imagenet_1k_data",
    )
    add_ocr(add)
    add_chinese(add)
    for kind, options in (("csv", CsvOptions), ("jsonl", JsonlOptions)):
        add_kind(
            add,
            kind,
            options,
            partial(prepare_own_table, kind),
            f"your own data: a {kind.upper()} file that names images",
            "the files of the task, such as vqa_train.tsv and vqa_val.tsv",
            f"ofa prepare {kind} photos.{kind} --task vqa_gen --images photos --columns image=file "
            f"answer=reply "
            "--val-fraction 0.1 --out data/photos",
        )
    add_shapes(add)
    add_texts(add)


def character(text: str) -> str:
    """One character, also as ``\\t``."""
    text = text.replace("\\t", "\t")
    if len(text) != 1 or text in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character such as ; or a tab")
    return text


# ---------------------------------------------------------------------------------- data sets and
# tables


def prepare_coco_captions(args: CocoCaptionsOptions) -> int:
    """Read annotations, look at every image, write the files. Nothing is written if an image
    is broken."""
    from ofa.errors import UserError
    from ofa.prepare import coco_captions as coco
    from ofa.prepare.prepared_dataset import PreparedDataset, Problems
    from ofa.prepare.tsv_writer import CaptionCleaner

    if args.split is None and args.val_fraction is None:
        raise UserError("expected --split or --val-fraction, found neither; give one of them")
    if not args.split and not args.annotations:
        raise UserError(
            "--annotations: expected a captions file with --val-fraction; found none; give one"
        )
    if not os.path.isdir(args.images):
        raise UserError(f"{args.images}: expected the folder of the image files; check --images")
    if args.split and args.id_prefix is not None:
        raise UserError(
            "--id-prefix: expected --val-fraction, found --split, whose ids are those of "
            "--annotations; leave it out"
        )
    cleaner, problems = CaptionCleaner(), Problems(args.skip_broken)
    images = coco.images_from_coco(args.annotations, args.images, cleaner, problems, args.id_prefix)
    if args.split:
        splits = coco.split_by_karpathy(args.split, args.images, cleaner, images, problems)
    else:
        assert args.val_fraction is not None
        splits = coco.split_by_fraction(images, args.val_fraction, args.test_fraction, args.seed)
    problems.settle()
    coco.check_unique(splits)
    if not splits["train"]:
        raise UserError(
            f"{args.split or args.annotations[0]}: no image with a caption for training"
        )
    inputs = [*args.annotations, *([args.split] if args.split else [])]
    settings = (
        {}
        if args.split
        else {name: getattr(args, name) for name in ("val_fraction", "test_fraction", "seed")}
    )
    counts = {**cleaner.counts(), **problems.counts()}
    return write_found(
        PreparedDataset(
            "coco-captions", inputs=inputs, settings=settings, counts=counts, images_of=splits
        ),
        args,
    )


def prepare_vqa2(args: Vqa2Options) -> int:
    """VQA v2: ten answers become confidences."""
    from ofa.prepare.vqa2 import read_vqa2

    found = read_vqa2(
        args.questions,
        args.annotations,
        *images_and_problems(args),
        split=args.split,
        val_fraction=args.val_fraction,
        seed=args.seed,
        as_written=args.answers_as_written,
        answer_set=args.ans2label_file,
        min_count=args.min_answer_count,
        id_prefix=args.id_prefix,
    )
    return write_found(found, args)


def prepare_refer(kind: str, args: RefcocoOptions) -> int:
    """RefCOCO, RefCOCO+, RefCOCOg."""
    from ofa.prepare.refcoco import SPLIT_BY, locate, read_refer

    refs, instances = locate(kind, args.data, args.split_by or SPLIT_BY[kind][0])
    return write_found(
        read_refer(kind, refs, instances, *images_and_problems(args), sentences=args.sentences),
        args,
    )


def prepare_snli_ve(args: SnliVeOptions) -> int:
    """SNLI-VE: the splits that are given."""
    from ofa.prepare.snli_ve import read_snli_ve

    return write_found(
        read_snli_ve(given_splits(args, "train", "dev", "test"), *images_and_problems(args)), args
    )


def prepare_imagenet(args: ImagenetOptions) -> int:
    """ImageNet: the splits that are given."""
    from ofa.prepare.imagenet import read_imagenet

    found = read_imagenet(
        given_splits(args, "train", "val", "test"),
        args.synsets,
        *images_and_problems(args),
        first_label=args.first_label,
        first_only=args.first_words_only,
    )
    return write_found(found, args)


def prepare_own_table(kind: str, args: JsonlOptions) -> int:
    """A CSV or JSONL file of people's own."""
    from ofa.prepare.csv_jsonl import read_own_table
    from ofa.prepare.text_files import prepare_texts
    from ofa.tasks import spec_of

    spec = spec_of(args.task)
    found = read_own_table(
        kind,
        args.files,
        spec,
        *images_and_problems(args),
        columns=dict(args.columns),
        split=args.split,
        val_fraction=args.val_fraction,
        seed=args.seed,
        box_format=args.box_format,
        delimiter=getattr(args, "delimiter", None),
        id_prefix=args.id_prefix,
        keep_case=args.keep_case,
    )
    if spec.has("image"):
        return write_found(found, args)
    readers = {name: partial(rows_of, groups) for name, groups in found.files.items()}
    inputs, settings = found.inputs, found.settings
    summary(prepare_texts(found.kind, args.out, inputs, settings, readers, args.skip_broken))
    return 0


def rows_of(groups, problems):
    """The rows of a file of texts alone; their problems are settled."""
    return (row for group in groups for row in group.rows)
