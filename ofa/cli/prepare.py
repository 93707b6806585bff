"""``ofa prepare``: training files from a data set as one downloads it, from people's own tables,
or from synthetic shapes."""

import argparse
import logging
import os

from ofa.cli.prepare_flags import (
    add_box_format,
    add_common,
    add_id_prefix,
    add_images,
    add_skip_broken,
    add_val_fraction,
    character,
    column,
    count,
    given_splits,
    images_and_problems,
    new_kind,
    write_found,
)

logger = logging.getLogger(__name__)


def add_parser(subparsers) -> None:
    from ofa.cli.prepare_chinese import add_muge, add_refcoco_cn
    from ofa.cli.prepare_ocr import add_ocr, add_synthetic_words
    from ofa.cli.prepare_texts import add_texts
    from ofa.cli.shapes import add_synthetic_shapes

    parser = subparsers.add_parser(
        "prepare",
        help="write training files (TSV with embedded images)",
        description="Write training files. An interrupted call is continued by the same call.",
    )
    kinds = parser.add_subparsers(title="what to prepare", metavar="KIND", required=True)
    _add_coco_captions(kinds)
    _add_vqa2(kinds)
    for kind, title in (
        ("refcoco", "RefCOCO"),
        ("refcocoplus", "RefCOCO+"),
        ("refcocog", "RefCOCOg"),
    ):
        _add_refer(kinds, kind, title)
    _add_snli_ve(kinds)
    _add_imagenet(kinds)
    add_ocr(kinds)
    add_muge(kinds)
    add_refcoco_cn(kinds)
    for kind in ("csv", "jsonl"):
        _add_own_table(kinds, kind)
    add_synthetic_shapes(kinds)
    add_synthetic_words(kinds)
    add_texts(kinds)


def _add_coco_captions(kinds) -> None:
    parser = new_kind(
        kinds,
        "coco-captions",
        "captions in COCO's format and a folder of images",
        "caption_stage1_train.tsv, caption_stage2_train.tsv, caption_val.tsv, caption_test.tsv, "
        "*_caption_coco_format.json, captions.txt",
        "ofa prepare coco-captions --split dataset_coco.json --images coco --out"
        " dataset/caption_data",
        prepare_coco_captions,
    )
    parser.add_argument(
        "--annotations",
        nargs="+",
        default=[],
        metavar="JSON",
        help="captions_train2014.json and the like; may be left out with --split",
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the image files")
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument(
        "--split", metavar="JSON", help="Karpathy's dataset_coco.json (restval counts as training)"
    )
    split.add_argument(
        "--val-fraction", type=float, metavar="F", help="part of the images kept for validation"
    )
    add_id_prefix(parser, "the images of each file of --annotations")
    parser.add_argument(
        "--test-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="with --val-fraction: for testing",
    )
    add_skip_broken(parser)
    add_common(parser)


def _add_vqa2(kinds) -> None:
    parser = new_kind(
        kinds,
        "vqa2",
        "questions and answers in the format of VQA v2",
        "vqa_train.tsv, vqa_val.tsv, vqa_test.tsv (as far as there are such questions),"
        " trainval_ans2label.json",
        "ofa prepare vqa2 --questions v2_OpenEnded_mscoco_*_questions.json --annotations"
        " v2_mscoco_*_annotations.json --images train2014 val2014 test2015 --out dataset/vqa_data",
        prepare_vqa2,
    )
    parser.add_argument(
        "--questions",
        nargs="+",
        required=True,
        metavar="JSON",
        help="question files, of any splits",
    )
    parser.add_argument(
        "--annotations",
        nargs="+",
        default=[],
        metavar="JSON",
        help="annotation files; none for test questions",
    )
    add_images(parser)
    add_id_prefix(parser, "each file of --questions, and the file of --annotations at its place")
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="of all questions; else as 'data_subtype' says",
    )
    add_val_fraction(split)
    parser.add_argument(
        "--answers-as-written",
        action="store_true",
        help="keep answers as people typed them; else lower case, without articles and punctuation",
    )
    answers = parser.add_mutually_exclusive_group()
    answers.add_argument(
        "--ans2label-file",
        metavar="FILE",
        help="answer set (.pkl or .json): training keeps only answers that are in it",
    )
    answers.add_argument(
        "--min-answer-count",
        type=count,
        default=1,
        metavar="N",
        help=(
            "the answer set is what N training questions teach (%(default)s; 9 is usual for VQA v2)"
        ),
    )
    add_skip_broken(parser)
    add_common(parser)


def _add_refer(kinds, kind: str, title: str) -> None:
    from ofa.prepare.refcoco import SPLIT_BY

    parser = new_kind(
        kinds,
        kind,
        f"{title} as the REFER toolkit ships it",
        f"{kind}_SPLIT.tsv for every split",
        f"ofa prepare {kind} --data refer/data --images train2014 --out dataset/{kind}_data",
        prepare_refer,
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder with refs(...).p and instances.json"
    )
    parser.add_argument(
        "--split-by",
        choices=SPLIT_BY[kind],
        default=SPLIT_BY[kind][0],
        help="whose split: the name in refs(...).p (%(default)s)",
    )
    parser.add_argument(
        "--sentences",
        choices=("raw", "sent"),
        default="raw",
        help=(
            "expressions as people wrote them, or as the toolkit's authors cleaned them"
            " (%(default)s)"
        ),
    )
    add_images(parser)
    add_skip_broken(parser)
    add_common(parser)
    parser.set_defaults(kind=kind)


def _add_snli_ve(kinds) -> None:
    parser = new_kind(
        kinds,
        "snli-ve",
        "SNLI-VE and the images of Flickr30k",
        "snli_ve_train.tsv, snli_ve_dev.tsv, snli_ve_test.tsv",
        "ofa prepare snli-ve --train snli_ve_train.jsonl --dev snli_ve_dev.jsonl --test"
        " snli_ve_test.jsonl --images flickr30k_images --out dataset/snli_ve_data",
        prepare_snli_ve,
    )
    for split in ("train", "dev", "test"):
        parser.add_argument(f"--{split}", metavar="JSONL", help=f"snli_ve_{split}.jsonl")
    add_images(parser)
    add_skip_broken(parser)
    add_common(parser)


def _add_imagenet(kinds) -> None:
    parser = new_kind(
        kinds,
        "imagenet",
        "ImageNet, or any folders named by class",
        "imagenet_1k_train.tsv, imagenet_1k_val.tsv, class2label.json",
        "ofa prepare imagenet --train ILSVRC/train --val LOC_val_solution.csv --images ILSVRC/val "
        "--synsets LOC_synset_mapping.txt --out dataset/imagenet_1k_data",
        prepare_imagenet,
    )
    for split in ("train", "val", "test"):
        parser.add_argument(
            f"--{split}",
            metavar="DIR|LIST",
            help=(
                "a folder with one sub-folder per synset, or a list of lines 'file synset' or 'file"
                " label'"
            ),
        )
    parser.add_argument(
        "--synsets",
        required=True,
        metavar="FILE",
        help="lines 'synset words', in the order of the labels",
    )
    parser.add_argument("--images", nargs="+", metavar="DIR", help="where the files of a list lie")
    parser.add_argument(
        "--first-label",
        type=int,
        choices=(0, 1),
        default=0,
        help="of the numbers in a list (%(default)s)",
    )
    parser.add_argument(
        "--first-words-only", action="store_true", help="only the words before the first comma"
    )
    add_skip_broken(parser)
    add_common(parser)


def _add_own_table(kinds, kind: str) -> None:
    from ofa.prepare.csv_jsonl import FIELDS

    needs = "; ".join(f"{task}: {', '.join(fields.needs)}" for task, fields in FIELDS.items())
    parser = new_kind(
        kinds,
        kind,
        f"your own data: a {kind.upper()} file that names images",
        "the files of the task: caption_*.tsv, vqa_*.tsv, refcoco_*.tsv, snli_ve_*.tsv,"
        " image_classify_*.tsv or ocr_*.tsv",
        f"ofa prepare {kind} photos.{kind} --task vqa_gen --images photos --columns image=file"
        f" answer=reply --val-fraction 0.1 --out data/photos. Columns that a task needs - {needs}",
        prepare_own_table,
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="one entry per row" if kind == "csv" else "one object per line",
    )
    parser.add_argument(
        "--task", required=True, choices=tuple(FIELDS), help="what the data are for"
    )
    add_images(parser)
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        type=column,
        metavar="NAME=COLUMN",
        help="columns of the file that are not called as the task calls them",
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="train",
        help="of entries that have no column 'split' (%(default)s)",
    )
    add_val_fraction(split)
    add_box_format(parser)
    add_id_prefix(parser, "each file")
    parser.add_argument(
        "--keep-case",
        action="store_true",
        help="answers with capitals as they are; else in lower case",
    )
    if kind == "csv":
        parser.add_argument(
            "--delimiter",
            metavar="C",
            type=character,
            help="between columns (a tab in .tsv files, else a comma)",
        )
    add_skip_broken(parser)
    add_common(parser)
    parser.set_defaults(kind=kind)


# ---------------------------------------------------------------------------------- data sets and
# tables


def prepare_coco_captions(args: argparse.Namespace) -> int:
    """Read annotations, look at every image, write the files. Nothing is written if an image
    is broken."""
    from ofa.errors import UserError
    from ofa.prepare import coco_captions as coco
    from ofa.prepare.prepared_dataset import PreparedDataset, Problems
    from ofa.prepare.tsv_writer import CaptionCleaner

    if not args.split and not args.annotations:
        raise UserError(
            "--annotations: expected a captions file with --val-fraction; found none; give one"
        )
    if not os.path.isdir(args.images):
        raise UserError(f"{args.images}: expected the folder of the image files; check --images")
    if args.split and args.id_prefix is not None:
        raise UserError(
            "--id-prefix: expected --val-fraction, found --split, whose ids are those of"
            " --annotations; leave it out"
        )
    cleaner, problems = CaptionCleaner(), Problems(args.skip_broken)
    images = coco.images_from_coco(args.annotations, args.images, cleaner, problems, args.id_prefix)
    if args.split:
        splits = coco.split_by_karpathy(args.split, args.images, cleaner, images, problems)
    else:
        splits = coco.split_by_fraction(images, args.val_fraction, args.test_fraction, args.seed)
    problems.settle()
    coco.check_unique(splits)
    if not splits["train"]:
        raise UserError(
            f"{args.split or args.annotations[0]}: no image with a caption for training"
        )
    logger.info("captions: %s", cleaner.report())
    inputs = [*args.annotations, *([args.split] if args.split else [])]
    settings = (
        {}
        if args.split
        else {name: getattr(args, name) for name in ("val_fraction", "test_fraction", "seed")}
    )
    counts = {
        "captions_cleaned": cleaner.whitespace + cleaner.joined,
        "captions_empty": cleaner.empty,
        **problems.counts(),
    }
    return write_found(
        PreparedDataset(
            "coco-captions", inputs=inputs, settings=settings, counts=counts, images_of=splits
        ),
        args,
    )


def prepare_vqa2(args: argparse.Namespace) -> int:
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


def prepare_refer(args: argparse.Namespace) -> int:
    """RefCOCO, RefCOCO+, RefCOCOg."""
    from ofa.prepare.refcoco import locate, read_refer

    refs, instances = locate(args.kind, args.data, args.split_by)
    return write_found(
        read_refer(
            args.kind, refs, instances, *images_and_problems(args), sentences=args.sentences
        ),
        args,
    )


def prepare_snli_ve(args: argparse.Namespace) -> int:
    """SNLI-VE: the splits that are given."""
    from ofa.prepare.snli_ve import read_snli_ve

    return write_found(
        read_snli_ve(given_splits(args, "train", "dev", "test"), *images_and_problems(args)), args
    )


def prepare_imagenet(args: argparse.Namespace) -> int:
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


def prepare_own_table(args: argparse.Namespace) -> int:
    """A CSV or JSONL file of people's own."""
    from ofa.prepare.csv_jsonl import read_own_table

    found = read_own_table(
        args.kind,
        args.files,
        args.task,
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
    return write_found(found, args)
