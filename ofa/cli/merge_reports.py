"""``ofa book``: several pages of ``ofa evaluate --report`` or ``ofa report`` in one file, with a
tab for each."""

import argparse
from pathlib import Path

from ofa.errors import UserError
from ofa.io.text_files import read_text

EXAMPLE = """\
example:
  ofa book captions=captions.html questions=questions.html --out report.html --title "A small OFA"
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "book",
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
    from ofa.report.page import write_book

    pages = []
    for name, path in args.pages:
        if not Path(path).is_file():
            raise UserError(
                f"{path}: expected a page of ofa evaluate --report, found none; check the path of"
                f" '{name}'"
            )
        pages.append((name, read_text(path)))
    write_book(args.out, args.title, pages)
    print(f"book: {args.out}")
    return 0
