"""``ofa picture-world check``: whether drawings show what their captions name."""

import argparse
import json
from pathlib import Path

from ofa.errors import UserError


def add_parser(subparsers) -> None:
    """Add ``picture-world`` to the commands of ``ofa``."""
    parser = subparsers.add_parser("picture-world", help="check drawings of coloured shapes")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", help="count the things of each caption that its drawing shows in the right colour and shape",
        description="Looks at the first picture of every entry of a result file of 'ofa evaluate' or 'ofa draw', without any model.",
        epilog="example: ofa picture-world check results/test_predict.json --out results/drawings.json")  # fmt: skip
    check.add_argument("result", metavar="RESULT.json", help="entries with caption and files")
    check.add_argument("--out", metavar="FILE.json", help="figures to write")
    check.set_defaults(run=run_check)


def run_check(args: argparse.Namespace) -> int:
    """Print and write the figures. Raises: UserError if the file has no pictures."""
    from PIL import Image

    from ofa.atomic import replacing
    from ofa.picture_world_checker import check

    path = Path(args.result)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        captions, files = [entry["caption"] for entry in entries], [entry["files"][0] for entry in entries]
        pictures = [Image.open(file if Path(file).is_file() else path.parent / file).convert("RGB") for file in files]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: expects entries with a caption and files of pictures, as 'ofa draw' writes them, found something else "
                        f"({type(error).__name__}: {error}); draw them again") from None
    checks = check(pictures, captions)
    things = sum(one.named for one in checks)
    found = {
        "drawings": len(checks),
        "things": things,
        "things_right": sum(one.right for one in checks) / max(1, things),
        "all_things_there": sum(one.right == one.named for one in checks) / max(1, len(checks)),
        "exact": sum(one.exact for one in checks) / max(1, len(checks)),
    }
    print(f"{found['drawings']} drawings, {things} things named: {100 * found['things_right']:.1f} % in the right colour and shape; drawings "
          f"with all of them {100 * found['all_things_there']:.1f} %, with all of them and nothing else {100 * found['exact']:.1f} %")
    if args.out:
        with replacing(args.out) as file:
            json.dump(found, file, indent=1)
            file.write("\n")
    return 0
