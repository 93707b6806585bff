"""Synthetic shapes: ``ofa prepare synthetic-shapes`` makes it, ``ofa synthetic-shapes check`` looks
at drawings."""

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ofa.errors import UserError
from ofa.io.flags import Parser, command, option
from ofa.io.json_files import load_json
from ofa.prepare.source import WriteOptions, summary


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Generated images to check."""

    result: str = option(help="result file with captions and image files", positional=True)
    out: str | None = option(None, "figures to write")
    images: tuple[str, ...] = option(
        (),
        "folder of generated images outside that of the result file",
        flag="--gen-images-path",
        repeat=True,
    )


def set_up(parser: Parser) -> None:
    """The actions of ``ofa synthetic-shapes``."""
    add = parser.add_actions()
    command(
        add(
            "check", help="count the shapes of each caption that its image shows in the right color"
        ),
        CheckOptions,
        run_check,
        "example: ofa synthetic-shapes check results/test_predict.json --out results/drawings.json",
        "Looks at the first image of every entry of a result file of 'ofa evaluate' or 'ofa draw', "
        "without any model.",
    )


@dataclass(frozen=True, kw_only=True)
class ShapesOptions(WriteOptions):
    """Synthetic scenes."""

    train: int = option(10000, "training scenes", least=1)
    val: int = option(100, "validation scenes", least=1)
    test: int = option(300, "test scenes", least=1)
    size: int = option(64, "side of the square images in pixels", least=1)
    image_format: Literal["jpeg", "png"] = option("jpeg", "format of the images")
    language: Literal["en", "zh"] = option("en", "language of captions, questions and expressions")
    pretrain: bool = option(
        False, "also write the files of pretraining, for validation and test as well"
    )
    tokenizer: str | None = option(
        None, "image tokenizer for files with image codes, with --pretrain"
    )
    drawings: int = option(
        0, "further scenes in image_gen_train.tsv alone, with --tokenizer", least=1
    )


def add_shapes(add: Any) -> None:
    """Add the synthetic scenes to ``ofa prepare``."""
    command(
        add(
            "synthetic-shapes",
            aliases=["picture-world"],
            help="synthetic scenes of colored shapes: captions, questions, boxes",
        ),
        ShapesOptions,
        prepare_synthetic_shapes,
        description="Writes the files of coco-captions, vqa_*.tsv with ans2label.json, "
        "refcoco_*.tsv, the texts of both, and scenes.jsonl (shapes, colors, boxes). --pretrain: "
        "vision_language_, text_ and detection_examples.tsv and negative_sample/; with --tokenizer "
        "also image_examples.tsv (codes of the center) and image_gen_*.tsv (of the whole image).",
    )


def run_check(args: CheckOptions) -> int:
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


def prepare_synthetic_shapes(args: ShapesOptions) -> int:
    """Draw the scenes of three splits and write what is said and asked of them."""
    from ofa.synthetic.shapes_files import write_world

    if args.tokenizer and not args.pretrain:
        raise UserError(
            "--tokenizer: codes of images are for pretraining; add --pretrain, or leave it out"
        )
    if args.drawings and not args.tokenizer:
        raise UserError(
            "--drawings: scenes to learn drawing from are files of codes; give a --tokenizer, or "
            "leave it out"
        )
    if args.pretrain and args.language != "en":
        raise UserError(
            "--pretrain: the texts of pretraining are English; leave it out, or make them with "
            "--language en"
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


def _world_tokenizer(args: ShapesOptions):
    """Raises: UserError if it is none, or does not fit the images."""
    from ofa.models.image_tokenizer.codec import load_image_tokenizer

    tokenizer = load_image_tokenizer(str(args.tokenizer))
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


def _write_codes(tokenizer, counts: dict[str, int], args: ShapesOptions) -> None:
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
            digest_of(str(args.tokenizer)),
            args.drawings,
        )
    )
