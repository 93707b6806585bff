"""``ofa prepare``: training files from a data set as one downloads it, from people's own tables,
or from synthetic shapes, words and sentences."""

import importlib
from dataclasses import dataclass
from functools import partial

from ofa.io.flags import Parser, command, option
from ofa.prepare.source import OutOptions, Source, WriteOptions, summary

# Kind -> (module of ofa.prepare with its ``Source``, what it is), in the order of the help.
KINDS = {
    "coco-captions": ("coco_captions", "captions in COCO's format and a folder of images"),
    "vqa2": ("vqa2", "questions and answers in the format of VQA v2"),
    "refcoco": ("refcoco", "RefCOCO as the REFER toolkit ships it"),
    "refcocoplus": ("refcoco", "RefCOCO+ as the REFER toolkit ships it"),
    "refcocog": ("refcoco", "RefCOCOg as the REFER toolkit ships it"),
    "snli-ve": ("snli_ve", "SNLI-VE and the images of Flickr30k"),
    "imagenet": ("imagenet", "ImageNet, or any folders named by class"),
    "ocr": ("ocr_lists", "images of text and lists of what is written on them"),
    "muge": ("muge", "MUGE's Chinese captions of goods (ECommerce-IC)"),
    "refcoco-cn": ("refcoco_cn", "RefCOCO-CN, grounding in Chinese"),
    "csv": ("csv_jsonl", "your own data: a CSV file that names images"),
    "jsonl": ("csv_jsonl", "your own data: a JSONL file that names images"),
    "glue": ("glue", "GLUE: the original TSVs, or folders of Hugging Face datasets"),
    "gigaword": (
        "gigaword",
        "texts and their summaries: Gigaword, two files of lines, or a Hugging Face dataset",
    ),
}


@dataclass(frozen=True, kw_only=True)
class WordsOptions(WriteOptions):
    """Synthetic words."""

    train: int = option(10000, "training images", least=1)
    val: int = option(100, "validation images", least=1)
    test: int = option(300, "test images", least=1)
    width: int = option(96, "width of the images in pixels", least=1)
    height: int = option(32, "height of the images in pixels", least=1)
    letters: str | None = option(None, "small letters and digits of the words, if not all")
    shortest: int = option(3, "letters of a word at least", least=1)
    longest: int = option(6, "letters of a word at most", least=1)
    plain: bool = option(False, "black on white, one place, one size: learned much sooner")


@dataclass(frozen=True, kw_only=True)
class SentencesOptions(OutOptions):
    """Synthetic sentences."""

    train: int = option(3000, "training rows of each task", least=1)
    dev: int = option(200, "validation rows of each task", least=1)
    test: int = option(300, "test rows of each task", least=1)
    seed: int = option(1, "seed of all random choices")


def set_up(parser: Parser) -> None:
    """The kinds of ``ofa prepare``."""
    from ofa.cli.shapes import add_shapes

    parser.description = "Write training files. An interrupted call is resumed by the same call."
    add = parser.add_actions("KIND")
    for kind, (module, help) in KINDS.items():
        found = add(kind, help=help)
        found.fill = partial(_fill, kind, module, found)
    add_shapes(add)
    command(
        add(
            "synthetic-words",
            aliases=["sign-world"],
            help="synthetic words as images: text recognition",
        ),
        WordsOptions,
        prepare_synthetic_words,
        "example: ofa prepare synthetic-words --letters abdhkosx --shortest 3 --longest 3 --plain "
        "--out dataset/signs",
        "Writes ocr_train.tsv, ocr_val.tsv, ocr_test.tsv and texts.txt (the training texts). No "
        "word of validation and test occurs in training.",
    )
    command(
        add(
            "synthetic-sentences",
            aliases=["text-world"],
            help="synthetic sentences for the language tasks, by a small grammar",
        ),
        SentencesOptions,
        prepare_synthetic_sentences,
        "example: ofa prepare synthetic-sentences --out dataset/synthetic_sentences",
        "Writes TASK_train.tsv, TASK_dev.tsv and TASK_test.tsv for cola, mnli, mrpc, qnli, qqp, "
        "rte, sst2 and gigaword, and texts.txt for ofa vocab build. No row of the other files "
        "occurs in training.",
    )


def _fill(kind: str, module: str, parser: Parser) -> None:
    source: Source = importlib.import_module(f"ofa.prepare.{module}").SOURCES[kind]
    run = partial(source.prepare, kind)
    command(parser, source.options, run, f"example: {source.example}", source.description)


def prepare_synthetic_words(args: WordsOptions) -> None:
    """Draw the words of three splits."""
    from ofa.synthetic.words import World, write_signs

    names = ("seed", "width", "height", "letters", "shortest", "longest", "plain")
    given = {name: getattr(args, name) for name in names}
    world = World(**{name: value for name, value in given.items() if value is not None})
    counts = {split: getattr(args, split) for split in ("train", "val", "test")}
    summary(write_signs(args.out, counts, world, args.jobs))


def prepare_synthetic_sentences(args: SentencesOptions) -> None:
    """All tasks of the grammar."""
    from ofa.synthetic.sentences import write_world

    counts = {split: getattr(args, split) for split in ("train", "dev", "test")}
    summary(write_world(args.out, counts, args.seed))
