"""``ofa cider-df build | show``: document frequencies for the CIDEr-D reward and for validation."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

from ofa.data.rows import open_rows
from ofa.errors import UserError
from ofa.io.flags import action, option
from ofa.io.progress import counted
from ofa.prepare.annotations import Problems, read_record
from ofa.prepare.coco_captions import captions_of
from ofa.prepare.tsv_writer import CaptionCleaner
from ofa.task.text import caption_references, is_chinese


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    tsv: tuple[str, ...] = option((), "caption files; captions joined by && or one per row")
    column: int = option(2, "column of the captions, from 0")
    id_column: int = option(1, "column of the image ids, from 0")
    coco: tuple[str, ...] = option((), "COCO annotations such as captions_train2014.json")
    eos: bool = option(True, "count <eos> after captions: CIDEr optimization; --no-eos: validation")
    keep_punctuation: bool = option(False, "count punctuation marks as words, as the training")
    out: str = option(help="file to write, such as coco-train-words.p")


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    file: str = option(help="file of document frequencies", positional=True)


@action
def build(args: BuildOptions) -> None:
    """Count the n-grams of your captions.

    Counts in how many images each n-gram of one to four words occurs, and writes the file that
    --scst-cider-cached-tokens and --eval-cider-cached-tokens read. Chinese is counted by character.
    """
    from ofa.metrics.document_frequency import EOS, write_document_frequencies

    if not args.tsv and not args.coco:
        raise UserError(
            "ofa cider-df build: expected --tsv FILE... or --coco JSON..., found neither"
        )
    content = count_captions(captions_to_count(args), args.eos, args.keep_punctuation)
    write_document_frequencies(args.out, content)
    print(
        f"{args.out}: {len(content['document_frequency'])} n-grams of {content['ref_len']}"
        f" images, {'with' if args.eos else 'without'} {EOS}"
    )


def captions_to_count(args: BuildOptions) -> Iterator[tuple[str, list[str]]]:
    """Image id and captions of each row of the files; those of COCO's are cleaned as ``ofa prepare
    coco-captions`` cleans them."""
    for path in args.tsv:
        rows = open_rows(path, [args.id_column, args.column])
        for image_id, field in counted(rows, len(rows), path, "rows"):
            yield image_id, caption_references(field, args.keep_punctuation)
    for path in args.coco:
        problems = Problems(skip=False)
        found = captions_of(path, read_record(path, "annotations"), CaptionCleaner(), problems)
        problems.settle()
        yield from found.items()


def count_captions(
    captions: Iterable[tuple[str, list[str]]], eos: bool, marks: bool = False
) -> dict:
    """Content of a file of document frequencies.

    Args:
        captions: image id, captions of a row; an image may come in several rows.
        eos: count ``<eos>`` at the end of every caption, as CIDEr optimization expects it.
        marks: count marks of punctuation as words, for captions that keep theirs.

    Raises: UserError if there is no caption.
    """
    from ofa.metrics.caption_scores import caption_words
    from ofa.metrics.document_frequency import EOS, count_document_frequencies

    # equal captions count once: a document has an n-gram, or has it not
    by_image: dict[str, dict[str, None]] = {}
    for image_id, found in captions:
        by_image.setdefault(image_id, {}).update(dict.fromkeys(found))
    chinese = any(is_chinese(text) for texts in by_image.values() for text in texts)
    end, documents = f" {EOS}" if eos else "", []
    for texts in by_image.values():
        words = dict.fromkeys(caption_words(text, chinese, marks) for text in texts)
        if document := [text + end for text in words if text]:
            documents.append(document)
    if not documents:
        raise UserError(
            "document frequencies: expected captions, found none; check the files and --column"
        )
    return count_document_frequencies(documents)


@action
def show(args: ShowOptions) -> None:
    """Size and most frequent n-grams of such a file."""
    from ofa.metrics.document_frequency import EOS, read_document_frequencies

    num_images, frequencies = read_document_frequencies(args.file)
    print(
        f"{args.file}: {num_images:g} images, {'with' if (EOS,) in frequencies else 'without'}"
        f" {EOS}"
    )
    for order in (1, 2, 3, 4):
        found = [(-number, ngram) for ngram, number in frequencies.items() if len(ngram) == order]
        common = ", ".join(
            f"{' '.join(ngram)} ({-number:g})" for number, ngram in nsmallest(5, found)
        )
        print(f"  {order} words  {len(found):>8}   {common}")
