"""``ofa prepare ocr | synthetic-words``: the training files of text recognition."""

import argparse

from ofa.cli.prepare_flags import add_common, count, summary
from ofa.errors import UserError

SPLITS = ("train", "val", "test")


def add_ocr(kinds) -> None:
    """Add ``ocr`` to what ``ofa prepare`` prepares."""
    parser = kinds.add_parser(
        "ocr",
        help="images of text and lists of what is written on them",
        description=(
            "Writes ocr_train.tsv, ocr_val.tsv, ocr_test.tsv (of the lists that are given) and"
            " manifest.json. Image files are embedded as they are; those with an EXIF orientation"
            " are turned upright. A list has lines 'image TAB text', as PaddleOCR's, or 'image,"
            ' "text"\', as those of ICDAR.'
        ),
        epilog=(
            "example: ofa prepare ocr --train rec_gt_train.txt --val rec_gt_val.txt --images words"
            " --out dataset/ocr_data"
        ),
    )
    for split in SPLITS:
        parser.add_argument(
            f"--{split}", metavar="LIST", help=f"images and texts of ocr_{split}.tsv"
        )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="DIR",
        help="folders of the image files, at any depth (default: that of each list)",
    )
    parser.add_argument(
        "--skip-broken",
        action="store_true",
        help="leave unreadable images and wrong entries out instead of stopping",
    )
    add_common(parser)
    parser.set_defaults(run=prepare_ocr)


def add_synthetic_words(kinds) -> None:
    """Add ``synthetic-words`` to what ``ofa prepare`` prepares."""
    parser = kinds.add_parser(
        "synthetic-words",
        help="made-up words as images: text recognition",
        description=(
            "Writes ocr_train.tsv, ocr_val.tsv, ocr_test.tsv and texts.txt (the training texts). No"
            " word of validation and test occurs in training."
        ),
        epilog=(
            "example: ofa prepare synthetic-words --letters abdhkosx --shortest 3 --longest 3"
            " --plain --out dataset/signs"
        ),
    )
    parser.add_argument(
        "--train", type=count, default=10000, metavar="N", help="training images (%(default)s)"
    )
    parser.add_argument(
        "--val", type=count, default=100, metavar="N", help="validation images (%(default)s)"
    )
    parser.add_argument(
        "--test", type=count, default=300, metavar="N", help="test images (%(default)s)"
    )
    parser.add_argument(
        "--width", type=count, default=96, metavar="PX", help="of the images (%(default)s)"
    )
    parser.add_argument(
        "--height", type=count, default=32, metavar="PX", help="of the images (%(default)s)"
    )
    parser.add_argument(
        "--letters",
        metavar="TEXT",
        help="small letters and digits that words are made of (all of them)",
    )
    parser.add_argument(
        "--shortest",
        type=count,
        default=3,
        metavar="N",
        help="letters of a word at least (%(default)s)",
    )
    parser.add_argument(
        "--longest",
        type=count,
        default=6,
        metavar="N",
        help="letters of a word at most (%(default)s)",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="black on white, all in one place and of one size: learned much sooner",
    )
    add_common(parser)
    parser.set_defaults(run=prepare_synthetic_words)


def prepare_ocr(args: argparse.Namespace) -> int:
    """Read the lists that are given, look at every image, write the files."""
    from ofa.io.image_files import ImageFolders
    from ofa.prepare.ocr_lists import read_label_lists
    from ofa.prepare.prepared_dataset import Problems
    from ofa.prepare.write_dataset import prepare

    lists = {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    if not lists:
        raise UserError(
            "expected a list of images and texts, found none; give at least one of --train,"
            " --val, --test"
        )
    images = ImageFolders(args.images) if args.images else None
    summary(
        prepare(
            read_label_lists(lists, images, Problems(args.skip_broken)),
            args.out,
            args.jobs,
            args.skip_broken,
        )
    )
    return 0


def prepare_synthetic_words(args: argparse.Namespace) -> int:
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
