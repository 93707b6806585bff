"""``ofa negatives build``: the files that wrong examples of pretraining are drawn from, made
from the training rows."""

from dataclasses import dataclass

from ofa.io.flags import Parser, command, option
from ofa.prepare.negatives import DETECTION_COLS, PAIR_COLS, build_negatives


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Rows to collect from."""

    data: tuple[str, ...] = option(help="image-text rows: vision_language_examples.tsv, or shards")
    detection: tuple[str, ...] = option(
        (), "rows of images and objects: detection_examples.tsv, or shards"
    )
    selected_cols: str = option(PAIR_COLS, "columns of --data")
    detection_selected_cols: str = option(DETECTION_COLS, "columns of --detection")
    out: str = option(help="folder to write")


def set_up(parser: Parser) -> None:
    """The actions of ``ofa negatives``."""
    add = parser.add_actions()
    command(
        add("build", help="collect captions, objects and answers of training rows"),
        BuildOptions,
        run_build,
        description="Reads the training rows once, without their images, and writes "
        "all_captions.txt, object.txt and type2ans.json, for --neg-sample-dir. The same rows make "
        "the same files. Files that were made from the same rows are kept.",
        example="example: ofa negatives build --data vision_language_examples.tsv --detection "
        "detection_examples.tsv --out negative_sample",
    )


def run_build(args: BuildOptions) -> None:
    build_negatives(
        args.data, args.detection, args.out, args.selected_cols, args.detection_selected_cols
    )
