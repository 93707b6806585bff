"""``ofa prepare``: training files from a data set as one downloads it, or from the picture world."""

import argparse
import functools
import json
import logging
import os

logger = logging.getLogger(__name__)


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("prepare", help="write training files (TSV with embedded pictures)",
                                   description="Write training files. An interrupted call is continued by the same call.")
    kinds = parser.add_subparsers(title="what to prepare", metavar="KIND", required=True)
    _add_coco_captions(kinds)
    _add_picture_world(kinds)


def _add_coco_captions(kinds) -> None:
    parser = kinds.add_parser(
        "coco-captions", help="captions in COCO's format and a folder of pictures",
        description="Writes caption_stage1_train.tsv, caption_stage2_train.tsv, caption_val.tsv, caption_test.tsv, "
                    "*_caption_coco_format.json, captions.txt and manifest.json. Image files are embedded as they are.")
    parser.add_argument("--annotations", nargs="+", default=[], metavar="JSON",
                        help="captions_train2014.json and the like; may be left out with --split")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the image files")
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument("--split", metavar="JSON", help="Karpathy's dataset_coco.json (restval counts as training)")
    split.add_argument("--val-fraction", type=float, metavar="F", help="part of the pictures kept for validation")
    parser.add_argument("--test-fraction", type=float, default=0.0, metavar="F", help="with --val-fraction: for testing")
    parser.add_argument("--skip-broken", action="store_true", help="leave unreadable pictures out instead of stopping")
    _add_common(parser)
    parser.set_defaults(run=prepare_coco_captions)


def _add_picture_world(kinds) -> None:
    parser = kinds.add_parser("picture-world", help="made-up scenes of coloured shapes, with captions",
                              description="Writes the files of coco-captions and scenes.jsonl (shapes, colours, boxes).")
    parser.add_argument("--train", type=_count, default=10000, metavar="N", help="training scenes (%(default)s)")
    parser.add_argument("--val", type=_count, default=100, metavar="N", help="validation scenes (%(default)s)")
    parser.add_argument("--test", type=_count, default=300, metavar="N", help="test scenes (%(default)s)")
    parser.add_argument("--size", type=_count, default=64, metavar="PX", help="side of the square pictures (%(default)s)")
    parser.add_argument("--image-format", choices=("jpeg", "png"), default="jpeg", help="(%(default)s)")
    _add_common(parser)
    parser.set_defaults(run=prepare_picture_world)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument("--seed", type=int, default=1, help="of everything drawn at random (%(default)s)")
    parser.add_argument("--jobs", type=_count, default=min(8, os.cpu_count() or 1), metavar="N",
                        help="processes that read or draw pictures (%(default)s)")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


# --------------------------------------------------------------------------------------- coco-captions


def prepare_coco_captions(args: argparse.Namespace) -> int:
    """Read annotations, look at every picture, write the files. Nothing is written if a picture is broken."""
    from ofa import coco_captions as coco
    from ofa import preparation
    from ofa.errors import UserError

    if not args.split and not args.annotations:
        raise UserError("--annotations: expected a captions file with --val-fraction; found none; give one")
    if not os.path.isdir(args.images):
        raise UserError(f"{args.images}: expected the folder of the image files; check --images")
    cleaner = preparation.CaptionCleaner()
    pictures = coco.pictures_from_coco(args.annotations, args.images, cleaner)
    if args.split:
        splits = coco.split_by_karpathy(args.split, args.images, cleaner, pictures)
    else:
        splits = coco.split_by_fraction(pictures, args.val_fraction, args.test_fraction, args.seed)
    coco.check_unique(splits)
    if not splits["train"]:
        raise UserError(f"{args.split or args.annotations[0]}: no picture with a caption for training")
    plan = preparation.fingerprint("coco-captions 1", args.skip_broken, {
        split: [(p.image_id, p.captions, _file_state(p.source)) for p in group] for split, group in splits.items()})
    broken = _check_all([p.source for group in splits.values() for p in group], args.jobs)
    if broken and not args.skip_broken:
        raise UserError(f"{len(broken)} of the pictures cannot be used: {coco.name_broken(broken)}. "
                        "Mend them, or leave them out with --skip-broken")
    if broken:
        logger.warning("%d pictures left out: %s", len(broken), coco.name_broken(broken))
        splits = {split: [p for p in group if p.source not in broken] for split, group in splits.items()}
    logger.info("captions: %s", cleaner.report())
    out = preparation.PreparedFolder(args.out, plan, "ofa prepare coco-captions")
    preparation.write_caption_files(out, splits, preparation.base64_of_file, args.jobs)
    out.save_manifest(finished=True, captions_cleaned=cleaner.whitespace + cleaner.joined, captions_empty=cleaner.empty,
                      images_left_out=len(broken))
    _summary(out)
    return 0


def _file_state(path: str) -> tuple:
    try:
        state = os.stat(path)
        return path, state.st_size, state.st_mtime_ns
    except OSError:
        return path, None, None


def _check_all(paths: list[str], jobs: int) -> dict[str, str]:
    """Path -> reason, of the pictures that cannot be decoded."""
    import multiprocessing

    from tqdm import tqdm

    from ofa.coco_captions import check_picture

    bar = functools.partial(tqdm, total=len(paths), desc="looking at the pictures", unit="img")
    if jobs <= 1 or len(paths) < 256:
        reasons = [check_picture(path) for path in bar(paths)]
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            reasons = list(bar(pool.imap(check_picture, paths, chunksize=32)))
    return {path: reason for path, reason in zip(paths, reasons) if reason}


# --------------------------------------------------------------------------------------- picture world


def prepare_picture_world(args: argparse.Namespace) -> int:
    """Draw the scenes of three splits; no description of a test or validation scene occurs in training."""
    from ofa import picture_world, preparation

    plan = preparation.fingerprint("picture-world 1", args.train, args.val, args.test, args.size, args.seed,
                                   args.image_format)
    out = preparation.PreparedFolder(args.out, plan, "ofa prepare picture-world")
    if out.is_finished():
        logger.info("%s: already complete", out.folder)
        return 0
    seen: set[tuple] = set()
    scenes = {}
    for split in ("test", "val", "train"):
        scenes[split] = list(picture_world.make_split(args.seed, split, getattr(args, split), seen))
        seen.update(scene.description() for scene in scenes[split])
    splits = {split: [preparation.Picture(scene.scene_id, tuple(picture_world.captions(scene)), scene)
                      for scene in scenes[split]] for split in ("train", "val", "test")}
    encode = functools.partial(picture_world.encode, size=args.size, image_format=args.image_format)
    preparation.write_caption_files(out, splits, encode, args.jobs)
    lines = [json.dumps(picture_world.as_json(scene, args.size)) for split in splits for scene in scenes[split]]
    out.write_text("scenes.jsonl", "".join(f"{line}\n" for line in lines), len(lines))
    out.save_manifest(finished=True)
    _summary(out)
    return 0


def _summary(out) -> None:
    for name, entry in out.manifest["files"].items():
        print(f"{out.folder / name}: {entry['rows']} rows, {entry['bytes'] / 1e6:.1f} MB")
