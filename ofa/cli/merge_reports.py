"""``ofa merge-reports``: pages of ``ofa evaluate`` or ``ofa report`` in one file, a tab each."""

import argparse
from pathlib import Path

from ofa.errors import UserError
from ofa.io.text_files import read_text

EXAMPLE = """\
example:
  ofa merge-reports captions=captions.html questions=questions.html --out report.html --title OFA
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "merge-reports",
        help="join several pages in one file",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pages",
        nargs="+",
        metavar="NAME=FILE.html",
        type=named_file,
        help="the pages in the order of their tabs",
    )
    parser.add_argument("--out", required=True, metavar="FILE.html", help="the file to write")
    parser.add_argument(
        "--title", default="OFA", metavar="TEXT", help="heading above the pages (%(default)s)"
    )
    parser.set_defaults(run=run)


def named_file(text: str) -> tuple[str, str]:
    """``NAME=FILE`` of a command line."""
    name, found, path = text.partition("=")
    if not (found and name and path):
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, found {text!r}")
    return name, path


def run(args: argparse.Namespace) -> int:
    """Read the pages, write the book."""
    from ofa.report.page import merge_reports

    pages = []
    for name, path in args.pages:
        if not Path(path).is_file():
            raise UserError(
                f"{path}: expected a page of ofa evaluate --report, found none; check the path of"
                f" '{name}'"
            )
        pages.append((name, read_text(path)))
    merge_reports(args.out, args.title, pages)
    print(f"book: {args.out}")
    return 0
