"""The checkpoints that upstream (OFA-Sys/OFA) publishes: ``templates/published.csv``.

Names, files and scores are those of upstream's checkpoints.md, checkpoints_cn.md and README.md of
August 2023; a score is that of the model's size and task. Upstream publishes no checksums.
"""

import csv
from pathlib import Path

from ofa.errors import UserError, did_you_mean
from ofa.io import download
from ofa.io.checkpoint_files import ARCHIVE
from ofa.io.download import PublishedFiles

TABLE = Path(__file__).parent / "templates" / "published.csv"
ADDRESS = "https://ofa-beijing.oss-cn-beijing.aliyuncs.com/checkpoints"
LICENSE = "Apache-2.0"  # of upstream's repository, which names no other for its checkpoints
TORCH_FILE = (ARCHIVE, b"\x80\x02")  # a zip archive, as torch writes; an older pickle
LARGEST = 64 << 30  # bytes


def published_checkpoints() -> dict[str, dict[str, str]]:
    """Name -> the columns of the table; what upstream does not say is empty."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def fetch(name: str, folder: str | Path, source: str | None = None) -> tuple[Path, bool]:
    """Download a checkpoint. Returns: the file, and whether it was missing.

    Args: name: of the table, or of the file, also without its ending. source: as of
    ``ofa.io.download.fetch``.
    Raises: UserError as that, and for an unknown name.
    """
    known = published_checkpoints()
    found = [
        row for row in known.values() if name in (row["name"], row["file"], Path(row["file"]).stem)
    ]
    if not found:
        raise UserError(
            f"{name}: expected a checkpoint that upstream publishes, as ofa checkpoint fetch --list"
            f" names them{did_you_mean(name, known)}"
        )
    (row,) = found
    public = PublishedFiles(
        name=row["file"],
        command=f"ofa checkpoint fetch {row['name']}",
        title="a checkpoint file",
        url=ADDRESS,
        sums={row["file"]: None},
        kept_in="an OFA checkout keeps it in checkpoints",
        first_bytes=TORCH_FILE,
        largest=LARGEST,
    )
    missing = download.fetch(public, folder, source)
    return Path(folder, row["file"]), bool(missing)


def advice(path: str | Path) -> str:
    """The end of a message about a missing file: how to fetch it, if upstream publishes it."""
    path = Path(path)
    for row in published_checkpoints().values():
        if row["file"] == path.name:
            return (
                f". Upstream publishes it: ofa checkpoint fetch {row['name']} --out {path.parent}"
            )
    return ""
