"""``ofa merge-reports``: pages of ``ofa evaluate`` or ``ofa report`` in one file, a tab each."""

import argparse
from dataclasses import dataclass

from ofa.io.flags import Parser, command, option
from ofa.io.text_files import read_text

EXAMPLE = """\
example:
  ofa merge-reports captions=captions.html questions=questions.html --out report.html --title OFA
"""


def named_file(text: str) -> tuple[str, str]:
    """``NAME=FILE`` of a command line."""
    name, found, path = text.partition("=")
    if not (found and name and path):
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, found {text!r}")
    return name, path


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """Pages to join."""

    pages: tuple[tuple[str, str], ...] = option(
        help="pages in the order of their tabs",
        positional=True,
        parse=named_file,
        metavar="NAME=FILE.html",
    )
    out: str = option(help="file to write")
    title: str = option("OFA", "heading above the pages")


def set_up(parser: Parser) -> None:
    """The flags of ``ofa merge-reports``."""
    command(parser, MergeOptions, run, EXAMPLE)


def run(args: MergeOptions) -> int:
    """Read the pages, write the one that holds them."""
    from ofa.report.page import write_html

    pages = [{"name": name, "html": read_text(path)} for name, path in args.pages]
    write_html(args.out, "merged_reports.html", title=args.title, pages=pages)
    print(f"page: {args.out}")
    return 0
