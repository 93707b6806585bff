"""``ofa``: the command a person types."""

import argparse
import importlib
import logging
import sys
from collections.abc import Callable
from functools import partial

from ofa import __version__
from ofa.failures import PIPE_CLOSED, message_of, reader_is_gone
from ofa.io.flags import Parser, add_declared, command
from ofa.io.terminal import styled
from ofa.process_state import silence_known_warnings

# Kind of ``ofa prepare`` -> (module that declares it, what it is).
KINDS = {
    "coco-captions": ("prepare.coco_captions", "captions in COCO's format and a folder of images"),
    "vqa2": ("prepare.vqa2", "questions and answers in the format of VQA v2"),
    "refcoco": ("prepare.refcoco", "RefCOCO as the REFER toolkit ships it"),
    "refcocoplus": ("prepare.refcoco", "RefCOCO+ as the REFER toolkit ships it"),
    "refcocog": ("prepare.refcoco", "RefCOCOg as the REFER toolkit ships it"),
    "snli-ve": ("prepare.snli_ve", "SNLI-VE and the images of Flickr30k"),
    "imagenet": ("prepare.image_folder", "ImageNet, by synset"),
    "image-folder": ("prepare.image_folder", "images sorted into classes, by folder or list"),
    "ocr": ("prepare.ocr_lists", "images of text and lists of what is written on them"),
    "muge": ("prepare.muge", "MUGE's Chinese captions of goods (ECommerce-IC)"),
    "refcoco-cn": ("prepare.refcoco_cn", "RefCOCO-CN, grounding in Chinese"),
    "csv": ("prepare.csv_jsonl", "your own data: a CSV file that names images"),
    "jsonl": ("prepare.csv_jsonl", "your own data: a JSONL file that names images"),
    "glue": ("prepare.glue", "GLUE: the original TSVs, or folders of Hugging Face datasets"),
    "gigaword": (
        "prepare.gigaword",
        "texts and their summaries: Gigaword, two files of lines, or a Hugging Face dataset",
    ),
    "synthetic-shapes": (
        "synthetic.shapes_files",
        "synthetic scenes of colored shapes: captions, questions, boxes",
    ),
    "synthetic-words": ("synthetic.words", "synthetic words as images: text recognition"),
    "synthetic-sentences": (
        "synthetic.sentences",
        "synthetic sentences for the language tasks, by a small grammar",
    ),
}
# Group -> command -> (module of ofa, what the command does), in the order of the help.
COMMANDS = {
    "prepare": {
        "prepare": ("prepare", "write training files (TSV with embedded images)"),
        "vocab": ("cli.vocab", "make, fetch or show a vocabulary folder (--bpe-dir)"),
        "tokenizer": ("cli.tokenizer", "images as codes: train, encode, decode, show"),
        "answers": (
            "prepare.answer_column",
            "make or check the answer set of a task (trainval_ans2label)",
        ),
        "negatives": ("prepare.negatives", "make the negative samples of pretraining"),
        "cider-df": ("cli.cider_df", "make or show a file of document frequencies (words.p)"),
        "pack": ("cli.pack", "turn a TSV into WebDataset shards, or shards into a TSV"),
    },
    "check": {
        "doctor": (
            "cli.doctor",
            "check environment, vocabulary folders, checkpoints and every row of TSV files",
        ),
        "evaluate": ("cli.evaluate", "predict and score with a checkpoint"),
        "report": ("cli.evaluate", "show a result file with its images"),
        "merge-reports": ("cli.evaluate", "join several pages in one file"),
        "image-scores": ("cli.evaluate", "FID and Inception score of a folder of images"),
    },
    "train": {
        "train": ("cli.train", "train by a recipe: caption, vqa, refcoco, ...; ofa train --list"),
        "quickstart": (
            "cli.quickstart",
            "watch it learn: from nothing to a scored page, in minutes",
        ),
        "checkpoint": (
            "cli.checkpoint",
            "fetch, show, average, strip, merge or compare checkpoints",
        ),
        "convert": ("cli.convert", "convert checkpoints between projects, with proof"),
        "upstream": ("cli.upstream", "let upstream's own run scripts work, unchanged"),
    },
    "use": {
        "predict": ("cli.predict", "captions, answers, regions and texts of images"),
        "draw": ("cli.predict", "generate images from captions"),
        "demo": ("cli.predict", "try a model in the browser"),
        "submit": ("submit.uploads", "turn result files into a leaderboard upload"),
    },
    "research": {
        "pretraining": ("cli.pretraining", "score a pretrained model at each of the eight tasks"),
        "synthetic-shapes": ("synthetic.shapes_check", "check generated images of colored shapes"),
    },
}
# Earlier names.
ALIASES = {"merge-reports": ["book"], "synthetic-shapes": ["picture-world"]}
ALIASES |= {"synthetic-words": ["sign-world"], "synthetic-sentences": ["text-world"]}


def build_parser() -> Parser:
    """Parser of all commands. A command's module is imported when the command is used."""
    groups = []
    for title, commands in COMMANDS.items():
        lines = [f"  {name:<18}{text}" for name, (_, text) in commands.items()]
        groups.append("\n".join([f"{title}:", *lines]))
    parser = Parser(
        prog="ofa",
        usage="ofa COMMAND [OPTIONS]",
        description="Train, evaluate and use One-For-All models.",
        epilog="\n\n".join(groups),
    )
    parser.add_argument("--version", action="version", version=f"ofa-fairseq {__version__}")
    add = parser.add_actions("COMMAND", title=None, prog="ofa", help=argparse.SUPPRESS)
    for commands in COMMANDS.values():
        for name, (module, text) in commands.items():
            found = add(name, description=text, aliases=ALIASES.get(name, []))
            found.fill = partial(_fill, found, module, name)
    return parser


def _fill(parser: Parser, module: str, name: str) -> None:
    """The flags of a command, or its actions."""
    if name == "prepare":
        parser.description = (
            "Write training files. An interrupted call is resumed by the same call."
        )
        add = parser.add_actions("KIND")
        for kind, (where, text) in KINDS.items():
            found = add(kind, help=text, aliases=ALIASES.get(kind, []))
            found.fill = partial(_fill, found, where, kind)
        return
    declared = importlib.import_module(f"ofa.{module}")
    if name in KINDS:
        from ofa.prepare.source import SOURCES

        if name in SOURCES:
            return command(parser, *SOURCES[name])
    add_declared(parser, declared, name)


def run_command(arguments: list[str] | None = None) -> int:
    """Run the command of these arguments. Returns: its exit status."""
    namespace = build_parser().parse_args(arguments)
    return namespace.run(namespace) or 0


def main(
    arguments: list[str] | None = None, run: Callable[[list[str] | None], int] = run_command
) -> int:
    """Run one command, and say in one line what a user can correct.

    Returns: its exit status: 0 done, 2 what the user can correct, 130 interrupted, 141 the reader
    of the output is gone.
    """
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(message)s", datefmt="%H:%M:%S", level=logging.INFO
    )
    silence_known_warnings()
    try:
        try:
            return run(arguments)
        finally:  # also after --help
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        is_pipe = isinstance(error, BrokenPipeError)
        if is_pipe and reader_is_gone():
            return PIPE_CLOSED
        message = message_of(error) or (str(error) if is_pipe else "")
        if not message:
            raise
        print(styled(f"error: {message}", "red", sys.stderr), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
