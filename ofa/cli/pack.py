"""``ofa pack``: a TSV as WebDataset shards, and shards as a TSV."""

import argparse
import os
from pathlib import Path

from ofa.errors import UserError

EXAMPLE = """\
examples:
  ofa pack examples.tsv --out shards                    shards/examples-000000.tar, ...
  ofa pack 'shards/examples-*.tar' --out rows.tsv       and back (patterns in quotes)
"""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser(
        "pack",
        help="turn a TSV into WebDataset shards, or shards into a TSV",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Shards are tar files of samples KEY.jpg + KEY.json: the image as an image file, the"
            " other columns as a JSON list.\nEvery task trains and evaluates from them as from the"
            " TSV: --data FOLDER, x-{000000..000009}.tar or 'x-*.tar'.\nNAME.shards.json lists them"
            " with rows, bytes and SHA-256. An interrupted call goes on where it stopped."
        ),
    )
    parser.add_argument(
        "rows", nargs="+", metavar="ROWS", help="a TSV; or shards: a folder, tar files, a pattern"
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="folder for the shards; a name ending in .tsv for a TSV",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="shards are called NAME-000000.tar (the name of the TSV)"
    )
    parser.add_argument(
        "--shard-size",
        type=float,
        default=256.0,
        metavar="MB",
        help="of a shard, about (%(default)g)",
    )
    parser.add_argument("--shard-rows", type=int, metavar="N", help="rows of a shard instead")
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes (%(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ofa.data.shard_writer import pack, unpack
    from ofa.data.shards import names_shards

    if len(args.rows) > 1:
        raise UserError(
            f"ofa pack: expected one file or pattern, found {len(args.rows)}; put a pattern of"
            " shards in quotes ('x-*.tar'), and pack TSVs one after the other"
        )
    path = args.rows[0]
    shards = names_shards(path)
    if shards != args.out.endswith(".tsv"):
        raise UserError(
            f"--out {args.out}: expected a name ending in .tsv for rows of shards and a folder for"
            f" those of a TSV, found {path} to be written there"
        )
    if args.shard_size <= 0 or (args.shard_rows is not None and args.shard_rows < 1):
        raise UserError("--shard-size and --shard-rows: expect numbers above 0")
    if shards:
        print(f"{args.out}: {unpack(path, args.out)} rows")
        return 0
    name = args.name or Path(path).name.removesuffix(".tsv")
    manifest = pack(path, args.out, name, args.shard_size, args.shard_rows, args.jobs)
    size = sum(shard["bytes"] for shard in manifest["shards"])
    print(
        f"{args.out}: {manifest['rows']} rows in {len(manifest['shards'])} shards,"
        f" {size / 1e6:.1f} MB"
    )
    return 0
