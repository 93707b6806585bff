"""``ofa checkpoint fetch | show | average | strip | merge | diff``: get checkpoint files, look into
them and make smaller or better ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.inference.options import BaseOptions, CheckpointOptions, EmaOptions, OverwriteOptions
from ofa.io.flags import action, option
from ofa.io.terminal import with_noun

MAX_SHOWN = 10_000  # characters of one entry


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    name: str | None = option(None, "checkpoint of upstream, such as base", positional=True)
    list: bool = option(False, "print the checkpoints and stop")
    out: str = option("checkpoints", "folder to write")
    source: str | None = option(
        None, "a mirror, or a folder that has the file", metavar="URL|FOLDER"
    )


@dataclass(frozen=True, kw_only=True)
class ShowOptions(CheckpointOptions, BaseOptions):
    config: bool = option(False, "also show every setting of its training")
    tensors: bool = option(False, "also show name, shape and type of every tensor")


@dataclass(frozen=True, kw_only=True)
class WriteOptions(EmaOptions, OverwriteOptions):
    out: str = option(help="checkpoint to write")

    def refuse_existing(self) -> None:
        if Path(self.out).exists() and not self.overwrite:
            raise UserError(
                f"--out {self.out}: expected a new file, found one; choose another, or replace it"
                " by --overwrite"
            )

    def write(self, content: dict[str, Any]) -> str:
        """Returns: size of the file."""
        from ofa.io import tensor_files

        tensor_files.save(content, self.out)
        return size_of(self.out)


@dataclass(frozen=True, kw_only=True)
class AverageOptions(WriteOptions):
    files: tuple[str, ...] = option(
        help="checkpoints of one run, or its folder with --last",
        positional=True,
        metavar="FILE|DIR",
    )
    last: int | None = option(None, "the newest N checkpoints of the folder")


@dataclass(frozen=True, kw_only=True)
class StripOptions(CheckpointOptions, WriteOptions):
    trust_checkpoint: bool = option(False, "run the code in a file that holds more than data")


@dataclass(frozen=True, kw_only=True)
class MergeOptions(CheckpointOptions, BaseOptions, WriteOptions):
    """A delta checkpoint and its base."""


@dataclass(frozen=True, kw_only=True)
class DiffOptions:
    all: bool = option(False, "also compare settings without effect on learning: paths, intervals")
    checkpoint: str = option(help="checkpoint file", positional=True)
    other: str = option(
        help="another checkpoint, or a script that trains (*.sh)",
        positional=True,
        metavar="CHECKPOINT|SCRIPT",
    )
    flags: tuple[str, ...] = option((), "flags to add to the script", positional=True, rest=True)


@action
def fetch(args: FetchOptions) -> None:
    """Download a checkpoint that upstream publishes.

    An interrupted download is resumed by the same call. Without a connection the message says what
    to copy where.

    examples:
      ofa checkpoint fetch --list            all of them, and the scores that upstream states
      ofa checkpoint fetch base              checkpoints/ofa_base.pt, where the recipes look
      ofa checkpoint fetch caption_base --source /mnt/ofa
    """
    from ofa.checkpoints import published
    from ofa.io.fingerprint import sha256_of

    if args.list:
        rows = published.published_checkpoints().values()
        columns = ("name", "file", "parameters", "task", "score", "measured")
        print_columns([columns, *([row[name] for name in columns] for row in rows)])
        print(f"license: {published.LICENSE}; {published.ADDRESS}")
        return
    if not args.name:
        raise UserError(
            "ofa checkpoint fetch: expected the name of a checkpoint, such as base; all are listed"
            " by --list"
        )
    path, is_new = published.fetch(args.name, args.out, args.source)
    print(f"{path}: {size_of(str(path))}, {'fetched' if is_new else 'complete already'}")
    if is_new:
        print(f"  sha256 {sha256_of(path)}")
    if path.suffix == ".zip":
        print(f"  unpack it: python -m zipfile -e {path} {args.out}")


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Texts in columns as wide as the widest; the first row is their head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())


@action
def show(args: ShowOptions) -> None:
    """Model, training state, sizes and settings of a checkpoint."""
    from ofa.checkpoints.read import read

    checkpoint = read(args.checkpoint, whole=False)
    print(f"{args.checkpoint}: {size_of(args.checkpoint)}")
    for title, text in facts(checkpoint).items():
        print(f"  {title:<10}{printable(text)}")
    if args.config:
        for name, value in sorted(checkpoint.settings.items()):
            print(f"  {printable(name)} = {printable(written(value))}")
    if args.tensors:
        for name, tensor in checkpoint.weights.items():
            print(f"  {printable(name)}  {list(tensor.shape)}  {dtype_of(tensor)}")
    if checkpoint.base:
        print(f"  base found: {checkpoint.find_base(args.base)}")


def facts(checkpoint: Any) -> dict[str, str]:
    """What a checkpoint is, by title."""
    from ofa.checkpoints.edit import num_bytes
    from ofa.checkpoints.read import ENTRY

    weights, settings, content = checkpoint.weights, checkpoint.settings, checkpoint.content
    extra = content.get("extra_state") or {}
    averages = {name: extra[name] for name in ("ema", "ema_fp32_params") if extra.get(name)}
    floating = {t.data_ptr(): t for t in weights.values() if t.is_floating_point()}.values()
    sizes = {
        "model": num_bytes(weights),
        "EMA": num_bytes(averages),
        "optimizer": num_bytes(content.get("last_optimizer_state")),
    }
    rows = {
        "model": (
            f"{settings.get('arch', 'unknown architecture')},"
            f" {sum(tensor.numel() for tensor in floating):,} parameters and buffers in"
            f" {len(weights)} tensors ({', '.join(sorted(set(map(dtype_of, floating))))}),"
            f" {len(weights.get('encoder.embed_tokens.weight', ())) or 'no'} vocabulary entries"
        ),
        "task": settings.get("task", "not stored"),
        "template": str(settings.get("template") or ""),
        "training": training_line(checkpoint),
        "EMA": (
            f"present, decay {settings.get('ema_decay')} ({', '.join(averages)})"
            if averages
            else "none"
        ),
        "sizes": ", ".join(
            f"{part} {megabytes(size) if size else 'none'}" for part, size in sizes.items()
        ),
    }
    if base := checkpoint.base:
        methods = ", ".join(content[ENTRY].get("methods") or ["?"])
        averaged = ", its averaged weights" if base.get("ema") else ""
        rows["tuned by"] = f"{methods}; all other weights are those of its base"
        rows["base"] = f"{base['path']}, sha256 {base['sha256']}{averaged}"
    return {title: text for title, text in rows.items() if text}


def dtype_of(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def printable(text: object) -> str:
    """What a file says, for a terminal: without control characters, and of a bounded length."""
    text = str(text)
    shown = "".join(c if c.isprintable() else "?" for c in text[:MAX_SHOWN])
    return shown + "..." * (len(text) > MAX_SHOWN)


def training_line(checkpoint: Any) -> str:
    extra, updates = checkpoint.content.get("extra_state") or {}, checkpoint.num_updates
    if extra.get("averaged"):
        newest = with_noun(updates, "update")
        return f"mean of {', '.join(extra['averaged'])}; newest after {newest}"
    parts = [with_noun(updates, "update") if updates else "not stored"]
    if epoch := (extra.get("train_iterator") or {}).get("epoch"):
        parts.append(f"epoch {epoch}")
    if extra.get("best") is not None:
        metric = checkpoint.settings.get("best_checkpoint_metric", "value")
        parts.append(f"best {metric} {extra['best']:.4f}")
    return ", ".join(parts)


@action
def average(args: AverageOptions) -> None:
    """One checkpoint with the mean weights of several."""
    from ofa.checkpoints import edit

    args.refuse_existing()
    paths: Sequence[str | Path] = args.files
    folders = [path for path in paths if Path(path).is_dir()]
    if args.last is not None and len(folders) == len(paths) == 1:
        paths = edit.newest(folders[0], args.last)
    elif folders or args.last is not None:
        raise UserError(
            "ofa checkpoint average: expected files, or one folder and --last N; found another "
            "combination"
        )
    content = edit.average(paths, args.ema)
    args.write(content)
    names = ", ".join(content["extra_state"]["averaged"])
    print(f"{args.out}: mean of {names}{' (EMA)' if args.ema else ''}")


@action
def strip(args: StripOptions) -> None:
    """Remove optimizer and training state, for evaluation."""
    from ofa.checkpoints import edit

    args.refuse_existing()
    content = edit.strip(args.checkpoint, args.ema, args.trust_checkpoint)
    before = size_of(args.checkpoint)
    print(f"{args.out}: {args.write(content)}, {args.checkpoint} was {before}")


@action
def merge(args: MergeOptions) -> None:
    """One file of a delta checkpoint and its base (prompts, adapters, BitFit, LoRA).

    The file needs no base. LoRA is added to the weights; prompts and adapters stay modules of the
    model.
    """
    from ofa.checkpoints import edit

    args.refuse_existing()
    content = edit.merge(args.checkpoint, args.base, args.ema)
    print(f"{args.out}: {args.write(content)}, needs no base")


@action
def diff(args: DiffOptions) -> int:
    """Compare the settings of a checkpoint with a recipe or another checkpoint.

    Prints the options that differ. Exit status: 0 none, 1 some.
    """
    from ofa.checkpoints.options import differences
    from ofa.checkpoints.read import read

    left = read(args.checkpoint, whole=False).settings
    if not left:
        raise UserError(
            f"{args.checkpoint}: expected the settings of a training (args or cfg), found none in"
            " it"
        )
    found = differences(left, other_settings(args.other, args.flags), args.all)
    if not found:
        print("no option differs")
        return 0
    names = Path(args.checkpoint).name, Path(args.other).name
    print_columns(
        [("option", *names), *((name, *map(written, pair)) for name, pair in found.items())]
    )
    return 1


def other_settings(other: str, flags: Sequence[str]) -> dict[str, Any]:
    from ofa.checkpoints.read import read

    if not Path(other).is_file():
        raise UserError(
            f"{other}: expected a checkpoint or a run script, found no such file; check the path"
        )
    if not other.endswith(".sh"):
        if flags:
            raise UserError(
                f"{flags[0]}: flags go with a run script (*.sh), found the checkpoint {other};"
                " leave them out"
            )
        return read(other, whole=False).settings
    from ofa import register_fairseq_plugin

    register_fairseq_plugin()
    from ofa.trainer.fairseq_compat import command_of_script, settings_of_command

    return settings_of_command(command_of_script(other, [*flags]))


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def size_of(path: str) -> str:
    return megabytes(Path(path).stat().st_size)
