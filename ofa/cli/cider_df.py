"""``ofa cider-df build | show``: document frequencies for the CIDEr-D reward and for validation."""

from dataclasses import dataclass

from ofa.errors import UserError
from ofa.io.flags import Parser, command, option


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Captions to count."""

    tsv: tuple[str, ...] = option((), "caption files; captions joined by && or one per row")
    column: int = option(2, "column of the captions, from 0")
    id_column: int = option(1, "column of the image ids, from 0")
    coco: tuple[str, ...] = option((), "COCO annotations such as captions_train2014.json")
    eos: bool = option(
        True, "count <eos> after every caption, for CIDEr optimization; --no-eos: for validation"
    )
    keep_punctuation: bool = option(
        False, "count punctuation marks as words, as the training's --keep-punctuation"
    )
    out: str = option(help="file to write, such as coco-train-words.p")


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """A file of document frequencies."""

    file: str = option(help="file of document frequencies", positional=True)


def set_up(parser: Parser) -> None:
    """The actions of ``ofa cider-df``."""
    add = parser.add_actions()
    command(
        add("build", help="count the n-grams of your captions"),
        BuildOptions,
        run_build,
        description="Counts in how many images each n-gram of one to four words occurs, and writes "
        "the file that --scst-cider-cached-tokens and --eval-cider-cached-tokens read. Chinese is "
        "counted by character.",
    )
    command(
        add("show", help="size and most frequent n-grams of such a file"), ShowOptions, run_show
    )


def run_build(arguments: BuildOptions) -> int:
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


def run_show(arguments: ShowOptions) -> int:
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
