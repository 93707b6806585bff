"""Synthetic shapes: ``ofa prepare synthetic-shapes`` makes it, ``ofa synthetic-shapes check`` looks
at drawings."""

import argparse
import functools
import json
import os
from pathlib import Path

from ofa.cli.prepare_flags import add_common, count, summary
from ofa.errors import UserError
from ofa.io.json_files import load_json


def add_parser(subparsers) -> None:
    """Add ``synthetic-shapes`` to the commands of ``ofa``."""
    parser = subparsers.add_parser("synthetic-shapes", help="check drawings of colored shapes")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help=(
            "count the things of each caption that its drawing shows in the right color and shape"
        ),
        description=(
            "Looks at the first image of every entry of a result file of 'ofa evaluate' or 'ofa"
            " draw', without any model."
        ),
        epilog=(
            "example: ofa synthetic-shapes check results/test_predict.json --out"
            " results/drawings.json"
        ),
    )
    check.add_argument("result", metavar="RESULT.json", help="entries with caption and files")
    check.add_argument("--out", metavar="FILE.json", help="figures to write")
    check.add_argument(
        "--gen-images-path",
        dest="images",
        metavar="DIR",
        action="append",
        default=[],
        help="folder of generated images that lie outside that of the result file",
    )
    check.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Print and write the figures. Raises: UserError if the file has no images."""
    from ofa.io.atomic import replacing
    from ofa.io.images import open_image, read_image_file
    from ofa.io.paths import path_within
    from ofa.synthetic.shapes_oracle import check

    path = Path(args.result)
    try:
        entries = load_json(path.read_text(encoding="utf-8"))
        captions, files = (
            [entry["caption"] for entry in entries],
            [entry["files"][0] for entry in entries],
        )
        files = [
            path_within(path.parent, file, f"{path}: entry {number}", args.images)
            for number, file in enumerate(files, 1)
        ]
        images = [open_image(read_image_file(file), str(file), upright=True) for file in files]
    except UserError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path}: expects entries with a caption and files of images, as 'ofa draw' writes"
            f" them, found something else ({type(error).__name__}: {error}); draw them again"
        ) from None
    checks = check(images, captions)
    things = sum(one.named for one in checks)
    found = {
        "drawings": len(checks),
        "things": things,
        "things_right": sum(one.right for one in checks) / max(1, things),
        "all_things_there": sum(one.right == one.named for one in checks) / max(1, len(checks)),
        "exact": sum(one.exact for one in checks) / max(1, len(checks)),
    }
    print(
        f"{found['drawings']} drawings, {things} things named: {100 * found['things_right']:.1f} %"
        " in the right color and shape; drawings with all of them"
        f" {100 * found['all_things_there']:.1f} %, with all of them and nothing else"
        f" {100 * found['exact']:.1f} %"
    )
    if args.out:
        with replacing(args.out) as file:
            json.dump(found, file, indent=1)
            file.write("\n")
    return 0


# ----------------------------------------------------------------------------------------------
# making it


def add_synthetic_shapes(kinds) -> None:
    """Add ``synthetic-shapes`` to what ``ofa prepare`` prepares."""
    parser = kinds.add_parser(
        "synthetic-shapes",
        help="made-up scenes of colored shapes: captions, questions, boxes",
        description=(
            "Writes the files of coco-captions, vqa_*.tsv with ans2label.json, refcoco_*.tsv, "
            "the texts of both, and scenes.jsonl (shapes, colors, boxes)."
        ),
    )
    parser.add_argument(
        "--train", type=count, default=10000, metavar="N", help="training scenes (%(default)s)"
    )
    parser.add_argument(
        "--val", type=count, default=100, metavar="N", help="validation scenes (%(default)s)"
    )
    parser.add_argument(
        "--test", type=count, default=300, metavar="N", help="test scenes (%(default)s)"
    )
    parser.add_argument(
        "--size",
        type=count,
        default=64,
        metavar="PX",
        help="side of the square images (%(default)s)",
    )
    parser.add_argument(
        "--image-format", choices=("jpeg", "png"), default="jpeg", help="(%(default)s)"
    )
    parser.add_argument(
        "--language",
        choices=("en", "zh"),
        default="en",
        help="of captions, questions and expressions (%(default)s)",
    )
    parser.add_argument(
        "--pretrain",
        action="store_true",
        help=(
            "also the files of pretraining: vision_language_, text_ and "
            "detection_examples.tsv and negative_sample/, for validation and test as well"
        ),
    )
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help=(
            "image tokenizer (ofa tokenizer train), with --pretrain: also image_examples.tsv with"
            " the codes of the middle, and image_gen_*.tsv with those of the whole image"
        ),
    )
    parser.add_argument(
        "--drawings",
        type=count,
        default=0,
        metavar="N",
        help="with --tokenizer: further scenes, in image_gen_train.tsv alone (%(default)s)",
    )
    add_common(parser)
    parser.set_defaults(run=prepare_synthetic_shapes)


def prepare_synthetic_shapes(args: argparse.Namespace) -> int:
    """Draw the scenes of three splits and write what is said and asked of them."""
    from ofa.synthetic.shapes_files import write_world

    if args.tokenizer and not args.pretrain:
        raise UserError(
            "--tokenizer: codes of images are for pretraining; add --pretrain, or leave it out"
        )
    if args.drawings and not args.tokenizer:
        raise UserError(
            "--drawings: scenes to learn drawing from are files of codes; give a --tokenizer, or"
            " leave it out"
        )
    if args.pretrain and args.language != "en":
        raise UserError(
            "--pretrain: the texts of pretraining are English; leave it out, or make them with"
            " --language en"
        )
    tokenizer = _world_tokenizer(args) if args.tokenizer else None
    counts = {split: getattr(args, split) for split in ("train", "val", "test")}
    summary(
        write_world(
            args.out, counts, args.size, args.seed, args.image_format, args.jobs, args.language
        )
    )
    if args.pretrain:
        from ofa.synthetic.shapes_pretraining import write_pretraining

        summary(write_pretraining(args.out, counts, args.size, args.seed, args.image_format))
        _build_negatives(args.out)
    if tokenizer is not None:
        _write_codes(tokenizer, counts, args)
    return 0


def _world_tokenizer(args: argparse.Namespace):
    """Raises: UserError if it is none, or does not fit the images."""
    from ofa.models.image_tokenizer.codec import load_image_tokenizer

    tokenizer = load_image_tokenizer(args.tokenizer)
    if args.size % (2 * tokenizer.factor):
        raise UserError(
            f"--size {args.size}: a tokenizer of {tokenizer.factor} pixels per code expects a"
            f" multiple of {2 * tokenizer.factor} (codes of the image and of its middle); choose"
            " another size"
        )
    return tokenizer


def _build_negatives(folder: str) -> None:
    from ofa.cli.negatives import build_negatives

    pairs, objects = (
        os.path.join(folder, f"{name}_examples.tsv") for name in ("vision_language", "detection")
    )
    build_negatives([pairs], [objects], os.path.join(folder, "negative_sample"))


def _write_codes(tokenizer, counts: dict[str, int], args: argparse.Namespace) -> None:
    from ofa.models.image_tokenizer.codec import encode_images
    from ofa.synthetic.shapes_pretraining import digest_of, write_codes

    summary(
        write_codes(
            args.out,
            counts,
            args.size,
            args.seed,
            args.image_format,
            functools.partial(encode_images, tokenizer),
            digest_of(args.tokenizer),
            args.drawings,
        )
    )
