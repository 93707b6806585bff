"""``ofa pack``: a TSV as WebDataset shards, and shards as a TSV."""

from dataclasses import dataclass
from pathlib import Path

from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.jobs import JobsOptions
from ofa.io.terminal import with_noun


@dataclass(frozen=True, kw_only=True)
class PackOptions(JobsOptions):
    rows: tuple[str, ...] = option(help="a TSV, or shards: folder, files, pattern", positional=True)
    out: str = option(help="folder for the shards, or a .tsv to write")
    name: str | None = option(None, "shards are called NAME-000000.tar, if not as the TSV")
    shard_size: float = option(256.0, "size of a shard in MB, about", least=0.001)
    shard_rows: int | None = option(None, "rows of a shard, instead of its size", least=1)
    image_size: int | None = option(
        None, "side of the square to which images are squashed, once; pixels change", least=16
    )


@action
def pack(args: PackOptions) -> None:
    """A TSV as WebDataset shards, and shards as a TSV.

    Shards are tar files of samples KEY.jpg + KEY.json: the image as a file, the other columns as a
    JSON list. Every task trains and evaluates from them as from the TSV: --data FOLDER,
    x-{000000..000009}.tar or 'x-*.tar'. NAME.shards.json lists them with rows, bytes and SHA-256.
    An interrupted call is resumed by the same call.

    --image-size: with the --patch-image-size of a training its workers need not resize images, half
    of their work. They become JPEGs, whose pixels differ by 1 to 2 gray levels on average, and the
    manifest says so. Not for rows with boxes, which are refused, nor for tasks that need the image
    as it is: ocr, and the pretraining's.

    examples:
      ofa pack examples.tsv --out shards                    shards/examples-000000.tar, ...
      ofa pack 'shards/examples-*.tar' --out rows.tsv       and back (patterns in quotes)
      ofa pack caption_train.tsv --out small --image-size 480
    """
    from ofa.data import shard_writer
    from ofa.data.shards import names_shards

    if len(args.rows) > 1:
        raise UserError(
            f"ofa pack: expected one file or pattern, found {len(args.rows)}; put a pattern of"
            " shards in quotes ('x-*.tar'), and pack TSVs one after the other"
        )
    path = args.rows[0]
    unpacks = names_shards(path)
    if unpacks != args.out.endswith(".tsv"):
        raise UserError(
            f"--out {args.out}: expected a name ending in .tsv for rows of shards and a folder for"
            f" those of a TSV, found {path} to be written there"
        )
    if unpacks and args.image_size:
        raise UserError(
            "--image-size: expected a TSV, whose images become smaller, found shards; unpack them"
            " first"
        )
    if unpacks:
        print(f"{args.out}: {with_noun(shard_writer.unpack(path, args.out), 'row')}")
        return
    name = args.name or Path(path).name.removesuffix(".tsv")
    manifest = shard_writer.pack(
        path, args.out, name, args.shard_size, args.shard_rows, args.jobs, args.image_size
    )
    sizes, rows = [one["bytes"] for one in manifest["files"].values()], manifest["counts"]["rows"]
    shards = with_noun(len(sizes), "shard")
    print(f"{args.out}: {with_noun(rows, 'row')} in {shards}, {sum(sizes) / 1e6:.1f} MB")
