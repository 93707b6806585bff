"""``ofa synthetic-shapes check``: whether drawings show what their captions say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.json_files import load_json


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    result: str = option(help="result file with captions and image files", positional=True)
    out: str | None = option(None, "figures to write")
    images: tuple[str, ...] = option(
        (),
        "folder of generated images outside that of the result file",
        flag="--gen-images-path",
        repeat=True,
    )


@action
def check(args: CheckOptions) -> None:
    """Count the shapes of each caption that its image shows in the right color.

    Looks at the first image of every entry of a result file of 'ofa evaluate' or 'ofa draw',
    without any model.

    example: ofa synthetic-shapes check results/test_predict.json --out results/drawings.json
    """
    from ofa.synthetic import shapes_oracle
    from ofa.task.results import write_json

    checks = shapes_oracle.check(*images_and_captions(Path(args.result), args.images))
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
        write_json(args.out, found, indent=1)


def images_and_captions(path: Path, folders: tuple[str, ...]) -> tuple[list[Any], list[str]]:
    """The first image of every entry of a result file, and its caption."""
    from ofa.io.images import open_image, read_image_file
    from ofa.io.paths import path_within

    images, captions = [], []
    try:
        for number, entry in enumerate(load_json(path.read_text(encoding="utf-8")), 1):
            captions.append(entry["caption"])
            file = path_within(path.parent, entry["files"][0], f"{path}: entry {number}", folders)
            images.append(open_image(read_image_file(file), str(file), upright=True))
    except UserError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path}: expects entries with a caption and files of images, as 'ofa draw' writes"
            f" them, found something else ({type(error).__name__}: {error}); draw them again"
        ) from None
    return images, captions
