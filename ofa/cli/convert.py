"""``ofa convert``: checkpoints of upstream, of this project, of Hugging Face and of
mmpretrain into each other, with proof."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ofa.errors import UserError
from ofa.inference.options import EmaOptions, OverwriteOptions
from ofa.io.flags import action, option
from ofa.io.json_files import load_json
from ofa.tokens.bpe import FILES, load_bpe
from ofa.tokens.vocabulary import Vocabulary

logger = logging.getLogger(__name__)

CODES, BINS = 8192, 1000  # of upstream's vocabularies, and what loaders of Hugging Face append


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(EmaOptions, OverwriteOptions):
    source: str = option(help="a file, or a folder with config.json", positional=True)
    to: Literal["fairseq", "ofa", "huggingface", "mmpretrain"] = option(help="format to write")
    out: str = option(help="file to write; for huggingface a folder", metavar="FILE|DIR")
    bin: bool = option(False, "write pytorch_model.bin for huggingface, not safetensors")
    bpe_dir: str | None = option(None, "vocabulary folder of the model, if SOURCE does not name it")
    task: str | None = option(None, "task to store if SOURCE names none; else caption")
    code_dict_size: int | None = option(None, "image codes, if SOURCE does not tell; else 8192")
    num_bins: int | None = option(None, "location bins, if SOURCE does not tell; else 1000")
    patch_image_size: int | None = option(
        None, "image size in pixels to store, if SOURCE does not tell; else that of pretraining"
    )


@action
def convert(args: ConvertOptions) -> None:
    """Checkpoints of upstream, of this project, of Hugging Face and of mmpretrain into each other.

    The layout of SOURCE is recognized from its tensors, sizes from its configuration or their
    shapes. Afterwards the result is read back, and both models compute the logits of a fixed batch
    (images with text, and image codes); a difference above 1e-4 is an error, and nothing is left at
    --out then. Only weights are converted, no optimizer and no moving averages.

      fairseq      *.pt for upstream's own programs
      ofa          *.safetensors (or *.pt) for this project: evaluate, predict, --restore-file
      huggingface  folder: config.json, model.safetensors; with --bpe-dir vocab.json, merges.txt
      mmpretrain   *.pth: state_dict, and under meta.model what its configuration has to say
    """
    from ofa.checkpoints import convert as machine
    from ofa.checkpoints.adapt import network_of
    from ofa.checkpoints.formats import LAYOUTS
    from ofa.checkpoints.read import read_source

    layout = LAYOUTS[args.to]
    if args.bin and args.to != "huggingface":
        raise UserError(
            f"--bin: expected with --to huggingface, found --to {args.to}; leave it out"
        )
    machine.check_output(layout, args.out, args.overwrite)
    source = read_source(args.source, args.ema)
    model = network_of(source)
    config = model.config
    print(
        f"{args.source}: {source.layout.title} layout, {config.encoder_layers} +"
        f" {config.decoder_layers} layers of width {config.encoder_embed_dim},"
        f" {config.resnet_type}, {source.num_entries} vocabulary entries,"
        f" {len(source.parameters)} tensors"
    )
    if not args.ema and source.averages:
        print("  it has moving averages as well; --ema takes these")
    machine.check_room(layout, source, model)
    task = task_of(source.task, args)
    task["patch_image_size"] = image_size_of(source, args)
    with finished_whole(Path(args.out)) as part:
        written = write_all(args, source, model, task, part)
        before = machine.logits(model, source.num_entries)
        del model
        differences = machine.prove(source, before, part, args.out)
    print(f"{args.out}: {layout.title} layout, {', '.join(written)}")
    found = ", ".join(f"{name} {value:.3g}" for name, value in differences.items())
    print(
        f"largest difference of the logits: {found} (allowed: {machine.ALLOWED:g}); all"
        f" {len(source.parameters)} tensors are equal"
    )


def task_of(stored: dict[str, Any], args: ConvertOptions) -> dict[str, Any]:
    """Options of the task that a checkpoint gets: what the source stores, and what the command
    line says."""
    from ofa.task.template import is_template
    from ofa.tasks import spec_of

    name, task = stored.get("_name") or stored.get("task"), args.task
    if task and task != "unify_task":
        task = spec_of(task).name
    if task and name not in (None, task):
        raise UserError(
            f"--task {task}: {args.source} is of task '{name}' and keeps it; leave --task out"
        )
    found = {
        "_name": name or task or "caption",
        "code_dict_size": CODES,
        "num_bins": BINS,
        **stored,
    }
    if task and is_template(task):
        found |= {"_name": "template", "template": task}
    given = {name: getattr(args, name) for name in ("bpe_dir", "code_dict_size", "num_bins")}
    if args.bpe_dir:
        given["bpe_dir"] = str(Path(args.bpe_dir).resolve())
    return found | {key: value for key, value in given.items() if value is not None}


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
                *(args.source, size, arch),
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
    """The vocabulary folder as Hugging Face's tokenizers read it, with the same ids: ``vocab.json``
    (piece -> id) and ``merges.txt`` of GPT-2's BPE, ``vocab.txt`` of BERT's; both end with
    ``<mask>``. Codes and bins are appended by who loads them.

    Returns: names of the files. Raises: UserError if the folder is not that of the model.
    """
    num_codes, num_bins = int(task["code_dict_size"]), int(task["num_bins"])
    if (num_codes, num_bins) != (CODES, BINS):
        logger.warning(
            "the vocabulary has %d codes and %d bins; tokenizers of this layout append %d and %d",
            *(num_codes, num_bins, CODES, BINS),
        )
    # a folder that only SOURCE names may be elsewhere by now
    bpe_dir = args.bpe_dir or task.get("bpe_dir")
    if not bpe_dir or (not args.bpe_dir and not Path(bpe_dir).is_dir()):
        logger.warning(
            "no files of the tokenizer are written: name the vocabulary folder by --bpe-dir"
        )
        return []
    bpe = load_bpe(bpe_dir)
    vocabulary = Vocabulary.from_folder(bpe.folder, num_codes, num_bins)
    if len(vocabulary) != source.num_entries:
        raise UserError(
            f"--bpe-dir {bpe_dir}: makes {len(vocabulary)} entries with {num_codes} codes and"
            f" {num_bins} bins, the model has {source.num_entries}; give the folder of its"
            " training, and its --code-dict-size and --num-bins"
        )
    entries = vocabulary.symbols[: vocabulary.mask + 1]
    if bpe.kind == "gpt2":
        encoder, merges = FILES["gpt2"]
        numbers = load_json((bpe.folder / encoder).read_text(encoding="utf-8"))
        pieces = {str(number): piece for piece, number in numbers.items()}
        content = {pieces.get(entry, entry): number for number, entry in enumerate(entries)}
        (folder / "vocab.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
        shutil.copyfile(bpe.folder / merges, folder / "merges.txt")
        return ["vocab.json", "merges.txt"]
    if bpe.kind == "bert":
        (folder / "vocab.txt").write_text("".join(f"{entry}\n" for entry in entries), "utf-8")
        return ["vocab.txt"]
    no_tokenizer = "%s: no tokenizer of this layout reads a sentencepiece folder; none is written"
    logger.warning(no_tokenizer, bpe_dir)
    return []


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
