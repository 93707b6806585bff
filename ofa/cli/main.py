"""``ofa``: the command a person types. Each command is a module of ``ofa.cli`` with ``set_up``."""

import argparse
import importlib
import logging
import sys
from functools import partial

from ofa import __version__
from ofa.failures import PIPE_CLOSED, message_of, reader_is_gone
from ofa.io.flags import Parser
from ofa.process_state import silence_known_warnings

# Group -> command -> (module of ofa.cli, what the command does), in the order of the help.
COMMANDS = {
    "prepare": {
        "prepare": ("prepare", "write training files (TSV with embedded images)"),
        "vocab": ("vocab", "make, fetch or show a vocabulary folder (--bpe-dir)"),
        "tokenizer": ("tokenizer", "images as codes: train, encode, decode, show"),
        "answers": ("answers", "make or check the answer set of a task (trainval_ans2label)"),
        "negatives": ("negatives", "make the negative samples of pretraining"),
        "cider-df": ("cider_df", "make or show a file of document frequencies (words.p)"),
        "pack": ("pack", "turn a TSV into WebDataset shards, or shards into a TSV"),
    },
    "check": {
        "doctor": (
            "doctor",
            "check environment, vocabulary folders, checkpoints and every row of TSV files",
        ),
        "evaluate": ("evaluate", "predict and score with a checkpoint"),
        "report": ("report", "show a result file with its images"),
        "merge-reports": ("merge_reports", "join several pages in one file"),
        "image-scores": ("image_scores", "FID and Inception score of a folder of images"),
    },
    "train": {
        "quickstart": ("quickstart", "watch it learn: from nothing to a scored page, in minutes"),
        "checkpoint": ("checkpoint", "show, average, strip, merge or compare checkpoints"),
        "convert": ("convert", "convert checkpoints between projects, with proof"),
    },
    "use": {
        "predict": ("predict", "captions, answers, regions and texts of images"),
        "draw": ("draw", "generate images from captions"),
        "demo": ("demo", "try a model in the browser"),
        "submit": ("submit", "turn result files into a leaderboard upload"),
    },
    "research": {
        "pretraining": ("pretraining", "score a pretrained model at each of the eight tasks"),
        "synthetic-shapes": ("shapes", "check generated images of colored shapes"),
    },
}
ALIASES = {"merge-reports": ["book"], "synthetic-shapes": ["picture-world"]}  # earlier names


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
            found.fill = partial(_fill, module, found)
    return parser


def _fill(module: str, parser: Parser) -> None:
    importlib.import_module(f"ofa.cli.{module}").set_up(parser)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns: its exit status: 0 done, 2 what the user can correct, 130 interrupted, 141 the reader
    of the output is gone.
    """
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(message)s", datefmt="%H:%M:%S", level=logging.INFO
    )
    silence_known_warnings()
    try:
        try:
            namespace = build_parser().parse_args(arguments)
            return namespace.run(namespace) or 0
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
        print(f"error: {message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
