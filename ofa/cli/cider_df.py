"""``ofa cider-df build | show``: document frequencies for the CIDEr-D reward and for validation."""

import argparse

from ofa.errors import UserError


def add_parser(subparsers) -> None:
    """Add ``cider-df`` to the commands of ``ofa``."""
    parser = subparsers.add_parser(
        "cider-df", help="make or show a file of document frequencies (words.p)"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    build = actions.add_parser(
        "build",
        help="count the n-grams of your captions",
        description=(
            "Counts in how many images each n-gram of one to four words occurs, and writes the file"
            " that --scst-cider-cached-tokens and --eval-cider-cached-tokens read. Chinese is"
            " counted by character."
        ),
    )
    build.add_argument(
        "--tsv",
        nargs="+",
        metavar="FILE",
        default=[],
        help="caption files; captions joined by && or one per row",
    )
    build.add_argument(
        "--column", type=int, default=2, metavar="N", help="their captions, from 0 (%(default)s)"
    )
    build.add_argument(
        "--id-column", type=int, default=1, metavar="N", help="their image ids (%(default)s)"
    )
    build.add_argument(
        "--coco",
        nargs="+",
        metavar="JSON",
        default=[],
        help="COCO annotations such as captions_train2014.json",
    )
    build.add_argument(
        "--eos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=(
            "count the word <eos> after every caption: for CIDEr optimization, which rewards proper"
            " endings. --no-eos: for validation"
        ),
    )
    build.add_argument(
        "--keep-punctuation",
        action="store_true",
        help=(
            "count marks of punctuation as words: for CIDEr optimization of captions with"
            " punctuation (--keep-punctuation there too)"
        ),
    )
    build.add_argument(
        "--out", required=True, metavar="FILE", help="file to write, e.g. coco-train-words.p"
    )
    build.set_defaults(run=run_build)

    show = actions.add_parser("show", help="size and commonest n-grams of such a file")
    show.add_argument("file", metavar="FILE")
    show.set_defaults(run=run_show)


def run_build(arguments: argparse.Namespace) -> int:
    from itertools import chain

    from ofa.data.rows import open_rows
    from ofa.metrics.document_frequency import write_document_frequencies
    from ofa.prepare.cider_document_frequency import (
        captions_of_coco,
        captions_of_tsv,
        count_captions,
    )

    if not arguments.tsv and not arguments.coco:
        raise UserError(
            "ofa cider-df build: expected --tsv FILE... or --coco JSON..., found neither"
        )
    columns = [arguments.id_column, arguments.column]
    marks = arguments.keep_punctuation
    captions = chain(
        *(captions_of_tsv(open_rows(path, columns), path, marks) for path in arguments.tsv),
        *map(captions_of_coco, arguments.coco),
    )
    content = count_captions(captions, arguments.eos, marks)
    write_document_frequencies(arguments.out, content)
    print(
        f"{arguments.out}: {len(content['document_frequency'])} n-grams of {content['ref_len']}"
        f" images, {'with' if arguments.eos else 'without'} <eos>"
    )
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    from ofa.metrics.document_frequency import EOS, read_document_frequencies

    num_images, frequencies = read_document_frequencies(arguments.file)
    orders = [sum(len(ngram) == order for ngram in frequencies) for order in (1, 2, 3, 4)]
    print(
        f"{arguments.file}: {num_images:g} images, {'with' if (EOS,) in frequencies else 'without'}"
        f" {EOS}"
    )
    for order, count in enumerate(orders, 1):
        common = sorted(
            (-number, ngram) for ngram, number in frequencies.items() if len(ngram) == order
        )[:5]
        print(
            f"  {order} words  {count:>8}   "
            + ", ".join(f"{' '.join(ngram)} ({-number:g})" for number, ngram in common)
        )
    return 0
