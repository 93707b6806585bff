"""``ofa prepare muge | refcoco-cn``: the Chinese data sets."""

from dataclasses import dataclass
from typing import Any

from ofa.cli.prepare_flags import (
    BoxOptions,
    ColumnOptions,
    ImageOptions,
    SourceOptions,
    add_kind,
    given_splits,
    images_and_problems,
    write_found,
)
from ofa.io.flags import option

REFCOCO_CN = ("train", "val", "testA", "testB")  # its splits


@dataclass(frozen=True, kw_only=True)
class MugeOptions(ImageOptions):
    """MUGE's Chinese captions."""

    train: str = option(help="lines with image_id and text (one, or a list)")
    val: str | None = option(None, "the same; or images without texts", metavar="JSONL|TSV")
    test: str | None = option(
        None, "the same; or images without texts, as MUGE's test set", metavar="JSONL|TSV"
    )


EXPRESSIONS = "lines with id, image, text, box; or a published file (base64 images)"


@dataclass(frozen=True, kw_only=True)
class RefcocoCnOptions(SourceOptions, ColumnOptions, BoxOptions):
    """RefCOCO-CN."""

    train: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    val: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    testA: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    testB: str | None = option(None, EXPRESSIONS, metavar="JSONL|TSV")
    images: tuple[str, ...] = option(
        (), "images of JSONL files: folders, or image ids with base64", metavar="DIR|TSV"
    )


def add_chinese(add: Any) -> None:
    """Add the Chinese data sets to ``ofa prepare``."""
    add_kind(
        add,
        "muge",
        MugeOptions,
        prepare_muge,
        "MUGE's Chinese captions of goods (ECommerce-IC)",
        "the files of coco-captions that there are texts for",
        "ofa prepare muge --train IC_train.jsonl --val IC_valid.jsonl --test IC_test.tsv --images "
        "IC_train.tsv IC_valid.tsv --out dataset/muge_data",
    )
    add_kind(
        add,
        "refcoco-cn",
        RefcocoCnOptions,
        prepare_refcoco_cn,
        "RefCOCO-CN, grounding in Chinese",
        "refcoco_cn_SPLIT.tsv for every split",
        "ofa prepare refcoco-cn --train refcoco_cn_train.jsonl --val refcoco_cn_val.jsonl --images "
        "train2014 --out dataset/refcoco_cn_data",
    )


def prepare_muge(args: MugeOptions) -> int:
    """MUGE: the splits that are given."""
    from ofa.prepare.muge import read_muge

    return write_found(
        read_muge(given_splits(args, "train", "val", "test"), *images_and_problems(args)), args
    )


def prepare_refcoco_cn(args: RefcocoCnOptions) -> int:
    """RefCOCO-CN: the splits that are given."""
    from ofa.prepare.refcoco_cn import read_refcoco_cn

    found = read_refcoco_cn(
        given_splits(args, *REFCOCO_CN),
        *images_and_problems(args),
        columns=dict(args.columns),
        box_format=args.box_format,
    )
    return write_found(found, args)
