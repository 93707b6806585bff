"""``ofa prepare muge | refcoco-cn``: the Chinese data sets."""

import argparse

from ofa.cli.prepare_flags import (
    add_box_format,
    add_common,
    add_images,
    add_skip_broken,
    column,
    given_splits,
    images_and_problems,
    new_kind,
    write_found,
)

REFCOCO_CN = ("train", "val", "testA", "testB")  # its splits


def add_muge(kinds) -> None:
    parser = new_kind(
        kinds,
        "muge",
        "MUGE's Chinese captions of goods (ECommerce-IC)",
        "the files of coco-captions, as far as there are such texts",
        "ofa prepare muge --train IC_train.jsonl --val IC_valid.jsonl --test IC_test.tsv --images"
        " IC_train.tsv IC_valid.tsv --out dataset/muge_data",
        prepare_muge,
    )
    parser.add_argument(
        "--train",
        required=True,
        metavar="JSONL",
        help="lines with image_id and text (one, or a list)",
    )
    for split in ("val", "test"):
        parser.add_argument(
            f"--{split}",
            metavar="JSONL|TSV",
            help="the same; or images without texts, as MUGE's test set",
        )
    add_images(parser)
    add_skip_broken(parser)
    add_common(parser)


def add_refcoco_cn(kinds) -> None:
    parser = new_kind(
        kinds,
        "refcoco-cn",
        "RefCOCO-CN, grounding in Chinese",
        "refcoco_cn_SPLIT.tsv for every split",
        "ofa prepare refcoco-cn --train refcoco_cn_train.jsonl --val refcoco_cn_val.jsonl --images"
        " train2014 --out dataset/refcoco_cn_data",
        prepare_refcoco_cn,
    )
    for split in REFCOCO_CN:
        parser.add_argument(
            f"--{split}",
            metavar="JSONL|TSV",
            help=(
                "lines with id, image, text and box; or a published file: id, text, box, image in"
                " base64"
            ),
        )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="DIR|TSV",
        help="images of JSONL files: folders, or image ids with base64",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        type=column,
        metavar="NAME=KEY",
        help="keys of JSONL files that are not called id, image, text, box",
    )
    add_box_format(parser)
    add_skip_broken(parser)
    add_common(parser)


def prepare_muge(args: argparse.Namespace) -> int:
    """MUGE: the splits that are given."""
    from ofa.prepare.muge import read_muge

    return write_found(
        read_muge(given_splits(args, "train", "val", "test"), *images_and_problems(args)), args
    )


def prepare_refcoco_cn(args: argparse.Namespace) -> int:
    """RefCOCO-CN: the splits that are given."""
    from ofa.prepare.refcoco_cn import read_refcoco_cn

    found = read_refcoco_cn(
        given_splits(args, *REFCOCO_CN),
        *images_and_problems(args),
        columns=dict(args.columns),
        box_format=args.box_format,
    )
    return write_found(found, args)
