"""Get fairseq's public GPT-2 files, the text part of the released English vocabulary.

Each file is downloaded to ``NAME.part`` (continued where an interruption left it), compared with its
sha256 sum, and only then renamed.
"""

import hashlib
import http.client
import logging
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ofa.errors import UserError

logger = logging.getLogger(__name__)

GPT2_URL = "https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe"
GPT2_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "dict.txt": "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
}
TIMEOUT = 30  # seconds without an answer
BLOCK = 1 << 16


def fetch_gpt2(folder: str | Path, source: str = GPT2_URL, sums: dict[str, str] | None = None) -> list[str]:
    """Put the GPT-2 files into a folder.

    Args: source: address of a mirror, or a local folder that has the files. sums: file name -> sha256, by
    default those of the released files.
    Returns: names of the files that were missing; the others were there already, and right.
    Raises: UserError if a file of another content is there, the source cannot be reached (with what to
    copy where), or what came is damaged.
    """
    folder = Path(folder)
    sums, is_new = sums or GPT2_SHA256, not folder.exists()
    for name, expected in sums.items():
        if (folder / name).exists() and sha256(folder / name) != expected:
            raise UserError(
                f"{folder / name}: expected the GPT-2 file of fairseq (sha256 {expected[:12]}...), "
                "found another one; remove it, or choose another --out"
            )
    missing = [name for name in sums if not (folder / name).exists()]
    for name in missing:
        part = folder / f"{name}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if Path(source).is_dir():
                shutil.copyfile(Path(source) / name, part)
            else:
                download(f"{source.rstrip('/')}/{name}", part)
        except (
            OSError,
            ValueError,
            http.client.HTTPException,
        ) as error:  # URLError and time-outs are OSErrors
            if is_new and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
            raise UserError(_offline(folder, source, missing, error)) from error
        if sha256(part) != sums[name]:
            part.unlink()
            raise UserError(
                f"{source}/{name}: expected sha256 {sums[name]}, found a file with another one (removed); "
                "start again, or take a mirror with --source"
            )
        os.replace(part, folder / name)
        logger.info("%s: complete", folder / name)
    return missing


def _offline(folder: Path, source: str, missing: list[str], error: Exception) -> str:
    addresses = ", ".join(f"{GPT2_URL}/{name}" for name in missing)
    return (
        f"{source}: cannot be read ({getattr(error, 'reason', None) or error}). Without a connection: copy "
        f"{', '.join(missing)} to {folder.resolve()} from a machine that has them (an OFA checkout keeps "
        f"them in utils/BPE; elsewhere download {addresses}), then run this again: it checks the copies. "
        "Or name a folder that has them: ofa vocab fetch gpt2 --source FOLDER --out DIR. "
        "Or learn a vocabulary from your own text: ofa vocab build"
    )


def download(url: str, part: Path) -> None:
    """Download to ``part``, going on from the bytes that are there if the server can."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # nothing is left to download
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0
        left = answer.headers.get("Content-Length")
        total = have + int(left) if left else None
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(
                total=total, initial=have, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[1], disable=None
            ) as bar,
        ):
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise OSError(
            f"connection closed after {part.stat().st_size} of {total} bytes; run it again to go on"
        )


def sha256(path: Path) -> str:
    """sha256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
