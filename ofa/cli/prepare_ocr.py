"""``ofa prepare ocr | synthetic-words``: the training files of text recognition."""

from dataclasses import dataclass
from typing import Any

from ofa.cli.prepare_flags import (
    SourceOptions,
    WriteOptions,
    add_kind,
    images_and_problems,
    summary,
    write_found,
)
from ofa.errors import UserError
from ofa.io.flags import command, option

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class OcrOptions(SourceOptions):
    """Lists of images and texts."""

    train: str | None = option(None, "images and texts of ocr_train.tsv")
    val: str | None = option(None, "images and texts of ocr_val.tsv")
    test: str | None = option(None, "images and texts of ocr_test.tsv")
    images: tuple[str, ...] = option((), "folders of the image files, if not that of each list")


@dataclass(frozen=True, kw_only=True)
class WordsOptions(WriteOptions):
    """Synthetic words."""

    train: int = option(10000, "training images", least=1)
    val: int = option(100, "validation images", least=1)
    test: int = option(300, "test images", least=1)
    width: int = option(96, "width of the images in pixels", least=1)
    height: int = option(32, "height of the images in pixels", least=1)
    letters: str | None = option(None, "small letters and digits of the words, if not all")
    shortest: int = option(3, "letters of a word at least", least=1)
    longest: int = option(6, "letters of a word at most", least=1)
    plain: bool = option(False, "black on white, one place, one size: learned much sooner")


def add_ocr(add: Any) -> None:
    """Add text recognition to ``ofa prepare``."""
    add_kind(
        add,
        "ocr",
        OcrOptions,
        prepare_ocr,
        "images of text and lists of what is written on them",
        "ocr_train.tsv, ocr_val.tsv, ocr_test.tsv (of the lists that are given)",
        "ofa prepare ocr --train rec_gt_train.txt --val rec_gt_val.txt --images words --out "
        "dataset/ocr_data. A list has lines 'image TAB text', as PaddleOCR's, or 'image, "
        '"text"\', as those of ICDAR.',
    )
    command(
        add(
            "synthetic-words",
            aliases=["sign-world"],
            help="synthetic words as images: text recognition",
        ),
        WordsOptions,
        prepare_synthetic_words,
        "example: ofa prepare synthetic-words --letters abdhkosx --shortest 3 --longest 3 --plain "
        "--out dataset/signs",
        "Writes ocr_train.tsv, ocr_val.tsv, ocr_test.tsv and texts.txt (the training texts). No "
        "word of validation and test occurs in training.",
    )


def prepare_ocr(args: OcrOptions) -> int:
    """Read the lists that are given, look at every image, write the files."""
    from ofa.prepare.ocr_lists import read_label_lists

    lists = {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    if not lists:
        raise UserError(
            "expected a list of images and texts, found none; give at least one of --train, "
            "--val, --test"
        )
    return write_found(read_label_lists(lists, *images_and_problems(args)), args)


def prepare_synthetic_words(args: WordsOptions) -> int:
    """Draw the words of three splits."""
    from ofa.synthetic.words import World
    from ofa.synthetic.words_files import write_signs

    given = {} if args.letters is None else {"letters": args.letters}
    world = World(
        args.seed,
        args.width,
        args.height,
        shortest=args.shortest,
        longest=args.longest,
        plain=args.plain,
        **given,
    )
    summary(
        write_signs(args.out, {split: getattr(args, split) for split in SPLITS}, world, args.jobs)
    )
    return 0
