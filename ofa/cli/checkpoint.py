"""``ofa checkpoint show | average | strip | merge | diff``: look into checkpoint files and make
smaller or better ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.cli.options import OverwriteOptions
from ofa.errors import UserError
from ofa.inference.options import BaseOptions, CheckpointOptions, EmaOptions
from ofa.io.flags import Parser, command, option


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


MAX_SHOWN = 10_000  # characters of one entry


def set_up(parser: Parser) -> None:
    """The actions of ``ofa checkpoint``."""
    add = parser.add_actions()
    command(
        add("show", help="model, training state, sizes and settings of a checkpoint"),
        ShowOptions,
        run_show,
    )
    command(
        add("average", help="one checkpoint with the mean weights of several"),
        AverageOptions,
        run_average,
    )
    command(
        add("strip", help="remove optimizer and training state, for evaluation"),
        StripOptions,
        run_strip,
    )
    command(
        add(
            "merge",
            help="one file of a delta checkpoint and its base (prompts, adapters, BitFit, LoRA)",
        ),
        MergeOptions,
        run_merge,
        description="LoRA is added to the weights; prompts and adapters stay modules of the model.",
    )
    command(
        add(
            "diff", help="compare the settings of a checkpoint with a recipe or another checkpoint"
        ),
        DiffOptions,
        run_diff,
        description="Prints the options that differ. Exit status: 0 none, 1 some.",
    )


def run_show(arguments: ShowOptions) -> int:
    from ofa.checkpoints.compare import training_settings
    from ofa.checkpoints.contents import upstream_state_dict
    from ofa.checkpoints.delta import ENTRY, base_of, find_base
    from ofa.checkpoints.edit import describe
    from ofa.io.safe_load import load_checkpoint

    checkpoint = load_checkpoint(arguments.checkpoint)
    facts, settings = describe(checkpoint), training_settings(checkpoint)
    print(f"{arguments.checkpoint}: {megabytes(Path(arguments.checkpoint).stat().st_size)}")
    rows = {
        "model": (
            f"{settings.get('arch', 'unknown architecture')}, {facts['parameters']:,} parameters"
            f" and buffers in {facts['tensors']} tensors ({', '.join(facts['dtypes'])}),"
            f" {facts['vocabulary'] or 'no'} vocabulary entries"
        ),
        "task": settings.get("task", "not stored"),
        **({"template": str(settings["template"])} if settings.get("template") else {}),
        "training": training_line(facts, settings),
        "EMA": (
            f"present, decay {settings.get('ema_decay')} ({', '.join(facts['ema'])})"
            if facts["ema"]
            else "none"
        ),
        "sizes": ", ".join(
            f"{part} {megabytes(facts[key]) if facts[key] else 'none'}"
            for part, key in (
                ("model", "model_bytes"),
                ("EMA", "ema_bytes"),
                ("optimizer", "optimizer_bytes"),
            )
        ),
    }
    base = base_of(checkpoint)
    if base:
        averaged = ", its averaged weights" if base.get("ema") else ""
        rows["tuned by"] = (
            ", ".join(checkpoint[ENTRY].get("methods") or ["?"])
            + "; all other weights are those of its base"
        )
        rows["base"] = f"{base['path']}, sha256 {base['sha256']}{averaged}"
    for title, text in rows.items():
        print(f"  {title:<10}{printable(text)}")
    if arguments.config:
        for name, value in sorted(settings.items()):
            print(f"  {printable(name)} = {printable(written(value))}")
    if arguments.tensors:
        for name, tensor in upstream_state_dict(checkpoint).items():
            kind = str(tensor.dtype).removeprefix("torch.")
            print(f"  {printable(name)}  {list(tensor.shape)}  {kind}")
    if base:
        print(f"  base found: {find_base(arguments.checkpoint, checkpoint, arguments.base)}")
    return 0


def printable(text: object) -> str:
    """What a file says, for a terminal: without control characters, and of a bounded length."""
    text = str(text)
    shown = "".join(c if c.isprintable() else "?" for c in text[:MAX_SHOWN])
    return shown + "..." * (len(text) > MAX_SHOWN)


def training_line(facts: dict[str, Any], settings: dict[str, Any]) -> str:
    if facts["averaged"]:
        return f"mean of {', '.join(facts['averaged'])}; newest after {facts['updates']} updates"
    parts = [f"{facts['updates']} updates" if facts["updates"] else "not stored"]
    if facts["epoch"]:
        parts.append(f"epoch {facts['epoch']}")
    if facts["best"] is not None:
        parts.append(f"best {settings.get('best_checkpoint_metric', 'value')} {facts['best']:.4f}")
    return ", ".join(parts)


def run_average(arguments: AverageOptions) -> int:
    from ofa.checkpoints.edit import average, newest, write_checkpoint

    refuse_existing(arguments)
    folders = [path for path in arguments.files if Path(path).is_dir()]
    if (
        bool(folders) != (arguments.last is not None)
        or len(folders) > 1
        or folders
        and len(arguments.files) > 1
    ):
        raise UserError(
            "ofa checkpoint average: expected files, or one folder and --last N; found another "
            "combination"
        )
    paths: Sequence[str | Path] = arguments.files
    if folders and arguments.last is not None:
        paths = newest(folders[0], arguments.last)
    content = average(paths, arguments.ema)
    write_checkpoint(content, arguments.out)
    print(
        f"{arguments.out}: mean of"
        f" {', '.join(content['extra_state']['averaged'])}{' (EMA)' if arguments.ema else ''}"
    )
    return 0


def run_strip(arguments: StripOptions) -> int:
    from ofa.checkpoints.edit import strip, write_checkpoint

    refuse_existing(arguments)
    before = (
        Path(arguments.checkpoint).stat().st_size if Path(arguments.checkpoint).is_file() else 0
    )
    content = strip(arguments.checkpoint, arguments.ema, arguments.trust_checkpoint)
    write_checkpoint(content, arguments.out)
    after = Path(arguments.out).stat().st_size
    print(f"{arguments.out}: {megabytes(after)}, {arguments.checkpoint} was {megabytes(before)}")
    return 0


def run_merge(arguments: MergeOptions) -> int:
    from ofa.checkpoints.edit import merge, write_checkpoint

    refuse_existing(arguments)
    write_checkpoint(merge(arguments.checkpoint, arguments.base, arguments.ema), arguments.out)
    print(f"{arguments.out}: {megabytes(Path(arguments.out).stat().st_size)}, needs no base")
    return 0


def refuse_existing(arguments: WriteOptions) -> None:
    if Path(arguments.out).exists() and not arguments.overwrite:
        raise UserError(
            f"--out {arguments.out}: expected a new file, found one; choose another, or replace it"
            " by --overwrite"
        )


def run_diff(arguments: DiffOptions) -> int:
    from ofa.checkpoints.compare import differences, training_settings
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
    rows = [("option", Path(arguments.checkpoint).name, Path(arguments.other).name)]
    rows += [(name, written(one), written(other)) for name, (one, other) in found.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, one, other in rows:
        print(f"{name:<{widths[0]}}  {one:<{widths[1]}}  {other}")
    return 1


def other_settings(other: str, flags: Sequence[str]) -> dict[str, Any]:
    from ofa.checkpoints.compare import training_settings
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
    from ofa.trainer.fairseq_parse_command import command_of_script, settings_of_command

    return settings_of_command(command_of_script(other, [*flags]))


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
