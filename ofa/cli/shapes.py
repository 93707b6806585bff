"""Synthetic shapes: ``ofa prepare synthetic-shapes`` makes it, ``ofa synthetic-shapes check`` looks
at drawings."""

import functools
import json
from collections.abc import Callable
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
    from ofa.synthetic.shapes_oracle import check

    checks = check(*images_and_captions(Path(args.result), args.images))
    things, drawings = sum(one.named for one in checks), len(checks)
    found = {
        "drawings": drawings,
        "things": things,
        "things_right": sum(one.right for one in checks) / max(1, things),
        "all_things_there": sum(one.right == one.named for one in checks) / max(1, drawings),
        "exact": sum(one.exact for one in checks) / max(1, drawings),
    }
    print(
        f"{drawings} drawings, {things} things named: {100 * found['things_right']:.1f} %"
        " in the right color and shape; drawings with all of them"
        f" {100 * found['all_things_there']:.1f} %, with all of them and nothing else"
        f" {100 * found['exact']:.1f} %"
    )
    if args.out:
        with replacing(args.out) as file:
            json.dump(found, file, indent=1)
            file.write("\n")
    return 0


def images_and_captions(path: Path, folders: tuple[str, ...]) -> tuple[list[Any], list[str]]:
    """The first image of every entry of a result file, and its caption."""
    from ofa.io.images import open_image, read_image_file
    from ofa.io.paths import path_within

    try:
        entries = load_json(path.read_text(encoding="utf-8"))
        captions = [entry["caption"] for entry in entries]
        files = [
            path_within(path.parent, entry["files"][0], f"{path}: entry {number}", folders)
            for number, entry in enumerate(entries, 1)
        ]
        images = [open_image(read_image_file(file), str(file), upright=True) for file in files]
    except UserError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path}: expects entries with a caption and files of images, as 'ofa draw' writes"
            f" them, found something else ({type(error).__name__}: {error}); draw them again"
        ) from None
    return images, captions


def prepare_synthetic_shapes(args: ShapesOptions) -> int:
    """Draw the scenes of three splits and write what is said and asked of them."""
    from ofa.synthetic.shapes_files import ShapesFolder, digest_of

    check_options(args)
    encode = tokenizer_of(args) if args.tokenizer else None
    counts = {"train": args.train, "val": args.val, "test": args.test}
    files = ShapesFolder(
        args.out, counts, args.size, args.seed, args.image_format, language=args.language
    )
    summary(files.write_finetuning(args.jobs))
    if args.pretrain:
        from ofa.cli.negatives import build_negatives

        summary(files.write_pretraining())
        pairs, objects = (
            f"{args.out}/{name}_examples.tsv" for name in ("vision_language", "detection")
        )
        build_negatives([pairs], [objects], f"{args.out}/negative_sample")
    if encode is not None:
        summary(files.write_codes(encode, digest_of(str(args.tokenizer)), args.drawings))
    return 0


def check_options(args: ShapesOptions) -> None:
    """Raises: UserError if an option needs another one."""
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


def tokenizer_of(args: ShapesOptions) -> Callable[..., Any]:
    """What encodes images. Raises: UserError if it is no tokenizer, or does not fit the images."""
    from ofa.models.image_tokenizer.codec import encode_images, load_image_tokenizer

    tokenizer = load_image_tokenizer(str(args.tokenizer))
    if args.size % (2 * tokenizer.factor):
        raise UserError(
            f"--size {args.size}: a tokenizer of {tokenizer.factor} pixels per code expects a"
            f" multiple of {2 * tokenizer.factor} (codes of the image and of its middle); choose"
            " another size"
        )
    return functools.partial(encode_images, tokenizer)
