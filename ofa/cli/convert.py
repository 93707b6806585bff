"""``ofa convert``: checkpoints of upstream, of this project, of Hugging Face and of
mmpretrain into each other, with proof."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ofa.cli.options import OverwriteOptions
from ofa.errors import UserError
from ofa.inference.options import EmaOptions
from ofa.io.flags import Parser, command, option

logger = logging.getLogger(__name__)

DESCRIPTION = """
The layout of SOURCE is recognized from its tensors, sizes from its configuration or their shapes.
Afterwards the result is read back, and both models compute the logits of a fixed batch (images with
text, and image codes); a difference above 1e-4 is an error, and nothing is left at --out then. Only
weights are converted, no optimizer and no moving averages.

  fairseq      *.pt for upstream's own programs
  ofa          *.safetensors (or *.pt) for this project: ofa evaluate, ofa predict, --restore-file
  huggingface  a folder: config.json, model.safetensors; with --bpe-dir vocab.json and merges.txt
  mmpretrain   *.pth: state_dict, and under meta.model what its configuration has to say
"""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(EmaOptions, OverwriteOptions):
    """What to convert, and what to store with it."""

    source: str = option(help="a file, or a folder with config.json", positional=True)
    to: Literal["fairseq", "ofa", "huggingface", "mmpretrain"] = option(help="format to write")
    out: str = option(help="file to write; for huggingface a folder", metavar="FILE|DIR")
    bin: bool = option(False, "write pytorch_model.bin for huggingface, not safetensors")
    bpe_dir: str | None = option(None, "vocabulary folder of the model, if SOURCE does not name it")
    task: str | None = option(None, "task to store if SOURCE names none; else caption")
    code_dict_size: int | None = option(
        None, "image codes of the vocabulary, if SOURCE does not tell; else 8192"
    )
    num_bins: int | None = option(
        None, "location bins of the vocabulary, if SOURCE does not tell; else 1000"
    )
    patch_image_size: int | None = option(
        None, "image size in pixels to store, if SOURCE does not tell; else that of pretraining"
    )


def set_up(parser: Parser) -> None:
    """The flags of ``ofa convert``."""
    command(parser, ConvertOptions, run, description=DESCRIPTION)


def run(args: ConvertOptions) -> int:
    from ofa.checkpoints import convert
    from ofa.checkpoints.contents import averages_of
    from ofa.checkpoints.formats import LAYOUTS
    from ofa.checkpoints.read import read_source

    layout = LAYOUTS[args.to]
    if args.bin and args.to != "huggingface":
        raise UserError(
            f"--bin: expected with --to huggingface, found --to {args.to}; leave it out"
        )
    convert.check_output(layout, args.out, args.overwrite)
    source = read_source(args.source, args.ema)
    model = convert.network_of(source)
    config = model.config
    print(
        f"{args.source}: {source.layout.title} layout, {config.encoder_layers} +"
        f" {config.decoder_layers} layers of width {config.encoder_embed_dim},"
        f" {config.resnet_type}, {source.num_entries} vocabulary entries,"
        f" {len(source.weights)} tensors"
    )
    if not args.ema and averages_of(source.content):
        print("  it has moving averages as well; --ema takes these")
    convert.check_room(layout, source, model)
    task = task_of(source.task, args)
    task["patch_image_size"] = image_size_of(source, args)
    with finished_whole(Path(args.out)) as part:
        written = write_all(args, source, model, task, part)
        before = convert.logits(model, source.num_entries)
        del model
        differences = convert.prove(source, before, part, args.out)
    print(f"{args.out}: {layout.title} layout, {', '.join(written)}")
    print(
        "largest difference of the logits: "
        + ", ".join(f"{name} {value:.3g}" for name, value in differences.items())
        + f" (allowed: {convert.ALLOWED:g}); all {len(source.weights)} tensors are equal"
    )
    return 0


def task_of(stored: dict[str, Any], args: ConvertOptions) -> dict[str, Any]:
    """Options of the task that a checkpoint gets: what the source stores, and what the command
    line says."""
    from ofa.task.template import is_template
    from ofa.tasks import spec_of

    name = stored.get("_name") or stored.get("task")
    task = args.task
    if task and task != "unify_task":
        task = spec_of(task).name
    if task and name not in (None, task):
        raise UserError(
            f"--task {task}: {args.source} is of task '{name}' and keeps it; leave --task out"
        )
    line = {"_name": "template", "template": task} if task and is_template(task) else {}
    given = {
        "bpe_dir": args.bpe_dir and str(Path(args.bpe_dir).resolve()),
        "code_dict_size": args.code_dict_size,
        "num_bins": args.num_bins,
    }
    return {
        "_name": name or task or "caption",
        "code_dict_size": 8192,
        "num_bins": 1000,
        **stored,
        **line,
        **{key: value for key, value in given.items() if value is not None},
    }


def image_size_of(source, args: ConvertOptions) -> int:
    """The image size that a checkpoint gets, in pixels; printed with where it comes from.
    Raises: UserError if it is no size."""
    from ofa.checkpoints.architecture import image_size

    size, reason = args.patch_image_size, "as --patch-image-size says"
    if size is None:
        size, reason = source.task.get("patch_image_size"), f"as {args.source} says"
    if size is None:
        size, arch, exact = image_size(source.weights)
        reason = (
            f"as {arch} was pretrained; {args.source} stores no size, --patch-image-size N sets"
            " another"
        )
        if not exact:
            logger.warning(
                "%s: stores no image size and is of no known architecture; %d pixels are taken, as "
                "of %s. Give the size of its training by --patch-image-size N",
                args.source,
                size,
                arch,
            )
    if not isinstance(size, int) or size < 16:
        raise UserError(
            f"--patch-image-size: expected an integer of at least 16, found {size}; give the"
            " image size of the training"
        )
    print(f"  images of {size} x {size} pixels, {reason}")
    return size


def write_all(args: ConvertOptions, source, model, task: dict[str, Any], part: Path) -> list[str]:
    """Write the result as ``part``. Returns: what was written, for the user."""
    from ofa.checkpoints.convert import write
    from ofa.checkpoints.formats import LAYOUTS

    try:
        write(source, model, task, LAYOUTS[args.to], part, args.bin)
        names = tokenizer_files(args, source, task, part) if args.to == "huggingface" else []
    except UserError as error:
        raise UserError(str(error).replace(str(part), args.out)) from error
    except OSError as error:
        raise UserError(
            f"{args.out}: expected to write, found {error.strerror or error}; nothing was changed. "
            "Free some space, or choose another --out"
        ) from error
    files = sorted(part.iterdir()) if part.is_dir() else [part]
    sizes = {path.name: f"{path.stat().st_size / 1e6:.1f} MB" for path in files}
    return [f"{name} {size}" for name, size in sizes.items() if name not in names] + names


def tokenizer_files(args: ConvertOptions, source, task: dict[str, Any], folder: Path) -> list[str]:
    """The files of the tokenizer in a Hugging Face folder; a folder that only SOURCE names may
    be elsewhere by now."""
    from ofa.tokens.export_huggingface import BINS, CODES, write_vocabulary

    counts = int(task["code_dict_size"]), int(task["num_bins"])
    if counts != (CODES, BINS):
        logger.warning(
            "the vocabulary has %d codes and %d bins; tokenizers of this layout append %d and %d",
            *counts,
            CODES,
            BINS,
        )
    bpe_dir = args.bpe_dir or task.get("bpe_dir")
    if not bpe_dir or (not args.bpe_dir and not Path(bpe_dir).is_dir()):
        logger.warning(
            "no files of the tokenizer are written: name the vocabulary folder by --bpe-dir"
        )
        return []
    names = write_vocabulary(bpe_dir, source.num_entries, *counts, folder)
    if not names:
        logger.warning(
            "%s: no tokenizer of this layout reads a sentencepiece folder; no files of one are "
            "written",
            bpe_dir,
        )
    return names


@contextmanager
def finished_whole(out: Path) -> Iterator[Path]:
    """A path of the same name to write; its content takes the place of ``out`` at the end, and
    after a failure nothing does."""
    from ofa.checkpoints.read import WEIGHTS
    from ofa.io.atomic import NAMED
    from ofa.io.folder_lock import lock_folder

    prefix = f".{out.name[:NAMED]}."
    with (
        lock_folder(out.parent, f"{prefix}lock"),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=prefix) as folder,
    ):
        part = Path(folder) / out.name
        yield part
        moves = {part: out}
        if part.is_dir():
            out.mkdir(exist_ok=True)
            for name in WEIGHTS:  # of an earlier conversion; a reader would take them for these
                for ending in ("", ".index.json"):
                    (out / f"{name}{ending}").unlink(missing_ok=True)
            moves = {path: out / path.name for path in part.iterdir()}
        for path in moves:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        for path, place in moves.items():
            os.replace(path, place)
