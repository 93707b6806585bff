"""``ofa checkpoint show | average | strip | merge | diff``: look into checkpoint files and make
smaller or better ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.cli.options import OverwriteOptions
from ofa.errors import UserError
from ofa.inference.options import BaseOptions, CheckpointOptions, EmaOptions
from ofa.io.flags import Parser, command, option

MAX_SHOWN = 10_000  # characters of one entry


@dataclass(frozen=True, kw_only=True)
class ShowOptions(CheckpointOptions, BaseOptions):
    """What to show of a checkpoint."""

    config: bool = option(False, "also show every setting of its training")
    tensors: bool = option(False, "also show name, shape and type of every tensor")


@dataclass(frozen=True, kw_only=True)
class WriteOptions(EmaOptions, OverwriteOptions):
    """A checkpoint to write."""

    out: str = option(help="checkpoint to write")


@dataclass(frozen=True, kw_only=True)
class AverageOptions(WriteOptions):
    """Checkpoints to average."""

    files: tuple[str, ...] = option(
        help="checkpoints of one run, or its folder with --last",
        positional=True,
        metavar="FILE|DIR",
    )
    last: int | None = option(None, "the newest N checkpoints of the folder")


@dataclass(frozen=True, kw_only=True)
class StripOptions(CheckpointOptions, WriteOptions):
    """A checkpoint to make smaller."""

    trust_checkpoint: bool = option(False, "run the code in a file that holds more than data")


@dataclass(frozen=True, kw_only=True)
class MergeOptions(CheckpointOptions, BaseOptions, WriteOptions):
    """A delta checkpoint and its base."""


@dataclass(frozen=True, kw_only=True)
class DiffOptions:
    """What to compare."""

    all: bool = option(
        False, "also compare paths, intervals and other settings without effect on learning"
    )
    checkpoint: str = option(help="checkpoint file", positional=True)
    other: str = option(
        help="another checkpoint, or a script that trains (*.sh)",
        positional=True,
        metavar="CHECKPOINT|SCRIPT",
    )
    flags: tuple[str, ...] = option((), "flags to add to the script", positional=True, rest=True)


def set_up(parser: Parser) -> None:
    """The actions of ``ofa checkpoint``."""
    add = parser.add_actions()
    show = add("show", help="model, training state, sizes and settings of a checkpoint")
    command(show, ShowOptions, run_show)
    average = add("average", help="one checkpoint with the mean weights of several")
    command(average, AverageOptions, run_average)
    strip = add("strip", help="remove optimizer and training state, for evaluation")
    command(strip, StripOptions, run_strip)
    merge = add(
        "merge",
        help="one file of a delta checkpoint and its base (prompts, adapters, BitFit, LoRA)",
    )
    of_merge = "LoRA is added to the weights; prompts and adapters stay modules of the model."
    command(merge, MergeOptions, run_merge, description=of_merge)
    diff = add(
        "diff", help="compare the settings of a checkpoint with a recipe or another checkpoint"
    )
    of_diff = "Prints the options that differ. Exit status: 0 none, 1 some."
    command(diff, DiffOptions, run_diff, description=of_diff)


def run_show(arguments: ShowOptions) -> int:
    from ofa.checkpoints.contents import training_settings, upstream_state_dict
    from ofa.checkpoints.delta import base_of, find_base
    from ofa.io.safe_load import load_checkpoint

    checkpoint = load_checkpoint(arguments.checkpoint)
    settings, weights = training_settings(checkpoint), upstream_state_dict(checkpoint)
    print(f"{arguments.checkpoint}: {megabytes(Path(arguments.checkpoint).stat().st_size)}")
    for title, text in facts(checkpoint, weights, settings).items():
        print(f"  {title:<10}{printable(text)}")
    if arguments.config:
        for name, value in sorted(settings.items()):
            print(f"  {printable(name)} = {printable(written(value))}")
    if arguments.tensors:
        for name, tensor in weights.items():
            print(f"  {printable(name)}  {list(tensor.shape)}  {dtype_of(tensor)}")
    if base_of(checkpoint):
        print(f"  base found: {find_base(arguments.checkpoint, checkpoint, arguments.base)}")
    return 0


def facts(
    checkpoint: Mapping[str, Any], weights: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, str]:
    """What a checkpoint is, by title."""
    from ofa.checkpoints.delta import ENTRY, base_of
    from ofa.checkpoints.edit import num_bytes

    extra = checkpoint.get("extra_state") or {}
    averages = {name: extra[name] for name in ("ema", "ema_fp32_params") if extra.get(name)}
    floating = {t.data_ptr(): t for t in weights.values() if t.is_floating_point()}.values()
    sizes = {
        "model": num_bytes(weights),
        "EMA": num_bytes(averages),
        "optimizer": num_bytes(checkpoint.get("last_optimizer_state")),
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
        "training": training_line(checkpoint, settings),
        "EMA": (
            f"present, decay {settings.get('ema_decay')} ({', '.join(averages)})"
            if averages
            else "none"
        ),
        "sizes": ", ".join(
            f"{part} {megabytes(size) if size else 'none'}" for part, size in sizes.items()
        ),
    }
    if base := base_of(checkpoint):
        methods = ", ".join(checkpoint[ENTRY].get("methods") or ["?"])
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


def training_line(checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    from ofa.checkpoints.edit import num_updates

    extra, updates = checkpoint.get("extra_state") or {}, num_updates(checkpoint)
    if extra.get("averaged"):
        return f"mean of {', '.join(extra['averaged'])}; newest after {updates} updates"
    parts = [f"{updates} updates" if updates else "not stored"]
    if epoch := (extra.get("train_iterator") or {}).get("epoch"):
        parts.append(f"epoch {epoch}")
    if extra.get("best") is not None:
        parts.append(f"best {settings.get('best_checkpoint_metric', 'value')} {extra['best']:.4f}")
    return ", ".join(parts)


def run_average(arguments: AverageOptions) -> int:
    from ofa.checkpoints.edit import average, newest

    refuse_existing(arguments)
    paths: Sequence[str | Path] = arguments.files
    folders = [path for path in paths if Path(path).is_dir()]
    if arguments.last is not None and len(folders) == len(paths) == 1:
        paths = newest(folders[0], arguments.last)
    elif folders or arguments.last is not None:
        raise UserError(
            "ofa checkpoint average: expected files, or one folder and --last N; found another "
            "combination"
        )
    content = average(paths, arguments.ema)
    write(content, arguments)
    names = ", ".join(content["extra_state"]["averaged"])
    print(f"{arguments.out}: mean of {names}{' (EMA)' if arguments.ema else ''}")
    return 0


def run_strip(arguments: StripOptions) -> int:
    from ofa.checkpoints.edit import strip

    refuse_existing(arguments)
    content = strip(arguments.checkpoint, arguments.ema, arguments.trust_checkpoint)
    before = megabytes(Path(arguments.checkpoint).stat().st_size)
    after = write(content, arguments)
    print(f"{arguments.out}: {after}, {arguments.checkpoint} was {before}")
    return 0


def run_merge(arguments: MergeOptions) -> int:
    from ofa.checkpoints.edit import merge

    refuse_existing(arguments)
    content = merge(arguments.checkpoint, arguments.base, arguments.ema)
    print(f"{arguments.out}: {write(content, arguments)}, needs no base")
    return 0


def refuse_existing(arguments: WriteOptions) -> None:
    if Path(arguments.out).exists() and not arguments.overwrite:
        raise UserError(
            f"--out {arguments.out}: expected a new file, found one; choose another, or replace it"
            " by --overwrite"
        )


def write(content: dict[str, Any], arguments: WriteOptions) -> str:
    """Write ``--out``. Returns: its size."""
    from ofa.io import torch_file

    torch_file.save(content, arguments.out)
    return megabytes(Path(arguments.out).stat().st_size)


def run_diff(arguments: DiffOptions) -> int:
    from ofa.checkpoints.contents import differences, training_settings
    from ofa.io.safe_load import load_checkpoint

    left = training_settings(load_checkpoint(arguments.checkpoint))
    if not left:
        raise UserError(
            f"{arguments.checkpoint}: expected the settings of a training (args or cfg), found "
            f"none in it"
        )
    found = differences(left, other_settings(arguments.other, arguments.flags), arguments.all)
    if not found:
        print("no option differs")
        return 0
    names = Path(arguments.checkpoint).name, Path(arguments.other).name
    rows = [("option", *names), *((name, *map(written, pair)) for name, pair in found.items())]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for name, one, other in rows:
        print(f"{name:<{widths[0]}}  {one:<{widths[1]}}  {other}")
    return 1


def other_settings(other: str, flags: Sequence[str]) -> dict[str, Any]:
    from ofa.checkpoints.contents import training_settings
    from ofa.io.safe_load import load_checkpoint

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
        return training_settings(load_checkpoint(other))
    from ofa import register_fairseq_plugin

    register_fairseq_plugin()
    from ofa.trainer.fairseq_compat import command_of_script, settings_of_command

    return settings_of_command(command_of_script(other, [*flags]))


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
