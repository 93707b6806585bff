"""``ofa checkpoint show | average | strip | merge | diff``: look into checkpoint files and make
smaller or better ones."""

import argparse
import json
from pathlib import Path
from typing import Any

from ofa.errors import UserError


def add_parser(subparsers) -> None:
    """Add ``checkpoint`` to the commands of ``ofa``."""
    parser = subparsers.add_parser(
        "checkpoint", help="show, average, strip, merge or compare checkpoints"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    show = actions.add_parser(
        "show", help="model, training state, sizes and settings of a checkpoint"
    )
    show.add_argument("file", metavar="FILE")
    show.add_argument(
        "--config", action="store_true", help="also every setting it was trained with"
    )
    show.add_argument(
        "--tensors", action="store_true", help="also name, shape and type of every tensor"
    )
    add_base(show)
    show.set_defaults(run=run_show)

    average = actions.add_parser("average", help="one checkpoint with the mean weights of several")
    average.add_argument(
        "files",
        nargs="+",
        metavar="FILE|DIR",
        help="checkpoints of one run, or its folder with --last",
    )
    average.add_argument(
        "--last",
        type=int,
        metavar="N",
        help="the newest N checkpoints of epochs or updates in the folder",
    )
    add_output(average)
    average.set_defaults(run=run_average)

    strip = actions.add_parser(
        "strip", help="drop optimizer and training state: what evaluation needs stays"
    )
    strip.add_argument("file", metavar="FILE")
    strip.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help=(
            "read a file that holds more than data, although that runs its code; the new file holds"
            " data only"
        ),
    )
    add_output(strip)
    strip.set_defaults(run=run_strip)

    merge = actions.add_parser(
        "merge",
        help="one file of tuned weights and their base (prompts, adapters, BitFit, LoRA)",
        description=(
            "LoRA is added to plain weights; prompts and adapters stay modules of the model."
        ),
    )
    merge.add_argument("file", metavar="LIGHT", help="checkpoint that holds tuned weights only")
    add_base(merge)
    add_output(merge)
    merge.set_defaults(run=run_merge)

    diff = actions.add_parser(
        "diff",
        help=(
            "compare the settings stored in a checkpoint with a recipe, or with another checkpoint"
        ),
        description="Prints the options that differ. Exit status: 0 none, 1 some.",
    )
    diff.add_argument(
        "--all", action="store_true", help="also paths, intervals and what else is not learned from"
    )
    diff.add_argument("file", metavar="FILE")
    diff.add_argument(
        "other",
        metavar="CHECKPOINT|SCRIPT",
        help="another checkpoint, or a script that trains (*.sh)",
    )
    diff.add_argument(
        "flags", nargs=argparse.REMAINDER, metavar="FLAGS", help="what you would add to the script"
    )
    diff.set_defaults(run=run_diff)


def add_base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base", metavar="FILE", help="of tuned weights: where their base is now, if it has moved"
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ema", action="store_true", help="take the moving averages as the weights"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="checkpoint to write")
    parser.add_argument("--force", action="store_true", help="replace the file that is there")


def run_show(arguments: argparse.Namespace) -> int:
    from ofa.checkpoints.compare import training_settings
    from ofa.checkpoints.contents import upstream_state_dict
    from ofa.checkpoints.delta import ENTRY, base_of, find_base
    from ofa.checkpoints.edit import describe
    from ofa.io.safe_load import load_checkpoint

    checkpoint = load_checkpoint(arguments.file)
    facts, settings = describe(checkpoint), training_settings(checkpoint)
    print(f"{arguments.file}: {megabytes(Path(arguments.file).stat().st_size)}")
    rows = {
        "model": (
            f"{settings.get('arch', 'unknown architecture')}, {facts['parameters']:,} parameters"
            f" and buffers in {facts['tensors']} tensors ({', '.join(facts['dtypes'])}),"
            f" {facts['vocabulary'] or 'no'} vocabulary entries"
        ),
        "task": settings.get("task", "not stored"),
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
        print(f"  {title:<10}{text}")
    if arguments.config:
        print("\n".join(f"  {name} = {written(value)}" for name, value in sorted(settings.items())))
    if arguments.tensors:
        for name, tensor in upstream_state_dict(checkpoint).items():
            print(f"  {name}  {list(tensor.shape)}  {str(tensor.dtype).removeprefix('torch.')}")
    if base:
        print(f"  base found: {find_base(arguments.file, checkpoint, arguments.base)}")
    return 0


def training_line(facts: dict[str, Any], settings: dict[str, Any]) -> str:
    if facts["averaged"]:
        return f"mean of {', '.join(facts['averaged'])}; newest after {facts['updates']} updates"
    parts = [f"{facts['updates']} updates" if facts["updates"] else "not stored"]
    if facts["epoch"]:
        parts.append(f"epoch {facts['epoch']}")
    if facts["best"] is not None:
        parts.append(f"best {settings.get('best_checkpoint_metric', 'value')} {facts['best']:.4f}")
    return ", ".join(parts)


def run_average(arguments: argparse.Namespace) -> int:
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
            "ofa checkpoint average: expected files, or one folder and --last N; found another"
            " combination"
        )
    paths = newest(folders[0], arguments.last) if folders else arguments.files
    content = average(paths, arguments.ema)
    write_checkpoint(content, arguments.out)
    print(
        f"{arguments.out}: mean of"
        f" {', '.join(content['extra_state']['averaged'])}{' (EMA)' if arguments.ema else ''}"
    )
    return 0


def run_strip(arguments: argparse.Namespace) -> int:
    from ofa.checkpoints.edit import strip, write_checkpoint

    refuse_existing(arguments)
    before = Path(arguments.file).stat().st_size if Path(arguments.file).is_file() else 0
    content = strip(arguments.file, arguments.ema, arguments.trust_checkpoint)
    write_checkpoint(content, arguments.out)
    after = Path(arguments.out).stat().st_size
    print(f"{arguments.out}: {megabytes(after)}, {arguments.file} was {megabytes(before)}")
    return 0


def run_merge(arguments: argparse.Namespace) -> int:
    from ofa.checkpoints.edit import merge, write_checkpoint

    refuse_existing(arguments)
    write_checkpoint(merge(arguments.file, arguments.base, arguments.ema), arguments.out)
    print(f"{arguments.out}: {megabytes(Path(arguments.out).stat().st_size)}, needs no base")
    return 0


def refuse_existing(arguments: argparse.Namespace) -> None:
    if Path(arguments.out).exists() and not arguments.force:
        raise UserError(
            f"--out {arguments.out}: expected a new file, found one; choose another, or replace it"
            " by --force"
        )


def run_diff(arguments: argparse.Namespace) -> int:
    from ofa.checkpoints.compare import differences, training_settings
    from ofa.io.safe_load import load_checkpoint

    left = training_settings(load_checkpoint(arguments.file))
    if not left:
        raise UserError(
            f"{arguments.file}: expected the settings of a training (args or cfg), found none in it"
        )
    found = differences(left, other_settings(arguments.other, arguments.flags), arguments.all)
    if not found:
        print("no option differs")
        return 0
    rows = [("option", Path(arguments.file).name, Path(arguments.other).name)]
    rows += [(name, written(one), written(other)) for name, (one, other) in found.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, one, other in rows:
        print(f"{name:<{widths[0]}}  {one:<{widths[1]}}  {other}")
    return 1


def other_settings(other: str, flags: list[str]) -> dict[str, Any]:
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

    return settings_of_command(command_of_script(other, flags))


def written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
