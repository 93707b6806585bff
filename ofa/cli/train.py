"""``ofa train``: a training, by the recipe of a script or by the flags of fairseq-train."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import ofa
from ofa import devices
from ofa.checkpoints.header import read_header
from ofa.data.shards import names_shards
from ofa.errors import UserError, did_you_mean
from ofa.io.flags import Parser, action, command, flags_of, option
from ofa.io.stored_options import is_readable_path
from ofa.task.template import is_template
from ofa.trainer import launch
from ofa.trainer.checks import size_of
from ofa.trainer.flags import check_flags, value_of
from ofa.trainer.launch import LaunchOptions
from ofa.trainer.processes import become

EXECUTABLE = "OFA_EXECUTABLE"  # tells scripts which Python to use
FROM_SCRIPT = "OFA_RECIPE"  # set by scripts: what they call is given files
CHOSEN = "OFA_CHOSEN"  # tells it what the user gave: the number of last flags, and "batch"
AUTO = "OFA_AUTO"
TELL = "OFA_TELL"  # tells scripts where to write the command they end in, and its settings
SWEEP = "SWEEP"  # of a script that starts several trainings: this process becomes the script
GLUE = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2")
SIZES = Literal["nano", "tiny", "medium", "base", "large", "huge"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(LaunchOptions):
    """A recipe, and what differs from it."""

    what: str | None = option(
        None, "a task, a recipe, or the files TRAIN.tsv,VALID.tsv", positional=True
    )
    data: str | None = option(
        None, "folder with TASK_train.tsv and TASK_val.tsv, or these files", env="DATA_DIR"
    )
    size: SIZES | None = option(None, "of the model (default: that of the recipe)", env="SIZE")
    bpe_dir: str | None = option(None, "vocabulary folder", env="BPE_DIR")
    list: bool = option(False, "print the recipes and stop")
    flags: tuple[str, ...] = field(
        default=(), metadata={"others": "Any flag of fairseq-train may follow, and wins."}
    )


@action
def train(args: TrainOptions) -> int:
    """A training: by a recipe, by a task and own data, or by the flags of fairseq-train.

    A run that was stopped is resumed by the same command. Settings of the environment are read as
    well: SIZE DATA_DIR BPE_DIR SAVE_DIR RESTORE BATCH EFFECTIVE_BATCH PRECISION NPROC FRESH ...

    examples:
      ofa train caption --data data/photos --bpe-dir vocab/photos --size nano --out runs/photos
      ofa train vqa --data data/questions --from runs/photos/checkpoint_best.pt --plan
      ofa train caption-stage1 --size base --lr=2e-5         a recipe, from its checkpoint
      ofa train a_train.tsv,a_val.tsv --task=caption --arch=ofa_base --bpe-dir=bpe/gpt2 ...
      ofa train --list                                       all recipes
    """
    if args.list:
        for name, script in recipes().items():
            print(f"{name:<26}{purpose(script)}")
        return 0
    from_script = bool(os.environ.pop(FROM_SCRIPT, ""))
    what = args.what or ""  # the recipe of a mixture in one line has no files
    if not what and not from_script or what.startswith("-"):
        raise UserError("ofa train: expected a task, a recipe or files first; see ofa train --help")
    flags = check_flags(args.flags, flags_of(TrainOptions), what)
    if from_script or names_files(what):
        chosen = chosen_in(os.environ.pop(CHOSEN, ""))
        refuse_settings_of_recipes(args, from_script, bool(chosen))
        if not from_script:
            refuse_other_files(what, flags, args.dry_run)
        flags = flags if args.bpe_dir is None else [f"--bpe-dir={args.bpe_dir}", *flags]
        return launch.train(what, args, flags, chosen)
    script, settings = recipe_of(what)
    settings |= given(args)
    has_own_data = is_flag(args.data, "DATA_DIR") and script.name != "pretrain.sh"
    has_own_data |= value_of("--mixture", flags) is not None
    if has_own_data and args.start is None:
        if script.stem.endswith("stage2"):
            raise UserError(
                f"ofa train {what}: expected the checkpoint of stage 1 to start from, found"
                f" none; run {what.replace('stage2', 'stage1')} first and name its"
                " checkpoint_best.pt: --from CHECKPOINT"
            )
        settings["RESTORE"] = "none"  # own data, and no checkpoint named
    if has_own_data and (files := files_of_task(args.data or "", script, settings)):
        settings["DATA"] = files
    settings[AUTO] = ""
    if args.auto or args.auto is None and has_own_data:
        batch = args.batch_size or args.effective_batch
        settings |= {AUTO: "1", CHOSEN: f"{len(flags)}{' batch' if batch else ''}"}
        settings |= size_and_vocabulary(args)
    return run_script(script, settings, flags)


def files_of_task(folder: str, script: Path, settings: Mapping[str, str]) -> str | None:
    """TRAIN.tsv,VALID.tsv as ``ofa prepare csv`` names them, which a recipe may call otherwise:
    ``image_classify_train.tsv``, not ``imagenet_1k_train.tsv``. None: the recipe's are there, or
    no others."""
    from ofa.tasks import specs_called

    lines = script.read_text(encoding="utf-8").splitlines()
    line = next((line for line in lines if "${DATA:-" in line), "")  # none: it names no files
    own = re.findall(r"DATA_DIR/(\w+\.tsv)", line)
    if "DATASET" in os.environ or own and all(Path(folder, name).is_file() for name in own):
        return None
    name = settings.get("TASK") or settings.get("DATASET") or script.parent.name
    for spec in specs_called(name):
        for start in spec.files:
            train = Path(folder) / f"{start}_train.tsv"
            splits = dict.fromkeys((spec.usage.validation, "dev", "dev_matched"))
            valid = [train.with_name(f"{start}_{split}.tsv") for split in splits]
            if train.is_file():
                return f"{train},{next(filter(Path.is_file, valid), valid[0])}"
    return None


def chosen_in(text: str) -> launch.Chosen | None:
    """What the user of a recipe gave, as the setting ``CHOSEN`` says."""
    number, *batch = text.split() or [""]
    return launch.Chosen(int(number), bool(batch)) if number.isdecimal() else None


def size_and_vocabulary(args: TrainOptions) -> dict[str, str]:
    """Settings that nobody gave: those of the checkpoint to start from, or a size that the device
    affords."""
    found = {}
    if args.start in (None, "none") or not Path(args.start or "").is_file():
        size = "tiny" if devices.count_without_torch()[0] else "nano"
    else:
        header = read_header(args.start or "")
        size = (size_of(header) or "").removeprefix("ofa_")
        folder = header.options.get("bpe_dir")
        if args.bpe_dir is None and isinstance(folder, str) and is_readable_path(folder):
            found["BPE_DIR"] = folder
    return found if args.size or not size else {**found, "SIZE": size}


def is_flag(value: str | None, setting: str) -> bool:
    """Whether a value was given on the command line: it is not that of the environment."""
    return value is not None and value != os.environ.get(setting)


def refuse_settings_of_recipes(args: TrainOptions, from_script: bool, by_name: bool) -> None:
    """Raises: UserError for a flag that only ``ofa train RECIPE`` knows. Args: by_name: the script
    was started by it, which tells the user's flags from the recipe's."""
    if args.auto and from_script and not by_name:
        raise UserError(
            "--auto (OFA_AUTO): expected with a recipe's name (ofa train caption-stage1 --auto),"
            " found with its script, whose flags all count as yours; names: ofa train --list"
        )
    for flag, value, setting in (
        ("--size", args.size, "SIZE"),
        ("--data", args.data, "DATA_DIR"),
        *([("--from", args.start, "RESTORE")] if from_script else []),
    ):
        if is_flag(value, setting):
            raise UserError(
                f"{flag} {value}: expected with the name of a recipe (ofa train vqa {flag} ...),"
                f" found it behind files; before a script it is {setting}={value}"
            )


def refuse_other_files(what: str, flags: Sequence[str], dry_run: bool) -> None:
    """Raises: UserError for a script in place of files, and for files that no task is to read."""
    if what.endswith(".sh"):
        words = re.split(r"[\W_]+", what)
        named = [name for name in recipes() if {*re.split(r"[\W_]+", name)} <= {*words}]
        meant = f"; did you mean {named[0]}?" if named else "; see ofa train --list"
        raise UserError(f"ofa train: expected a task, a recipe or files, found '{what}'{meant}")
    if dry_run or value_of("--task", flags) is not None:
        return  # files of a task are looked at when it starts
    for path in what.split(","):
        if not names_shards(path) and not Path(path).exists():
            raise UserError(
                f"{path}: expected a TSV file, found no such file; make it: ofa prepare"
            )
    raise UserError(
        f"ofa train {what}: expected the task of these files (--task caption or another), found"
        " none; a recipe has one: ofa train --list"
    )


def names_files(what: str) -> bool:
    """Whether it is no task: a folder may be called as one."""
    if what.endswith(".sh"):
        return True
    if is_template(what) or what in recipes() or what in names_of_tasks():
        return False
    return any(mark in what for mark in (".tsv", ".tar", ",", "/")) or Path(what).exists()


def recipes() -> dict[str, Path]:
    """The training scripts, ``caption/train_stage1.sh`` as ``caption-stage1``."""
    found = {}
    for root in map(Path, ofa.__path__):  # a wheel has run_scripts/ inside, a checkout beside
        for script in sorted(root.glob("run_scripts/*/*train*.sh")):
            stage = script.stem.removeprefix("train").replace("pretrain", "").lstrip("_")
            found[f"{script.parent.name}-{stage}".rstrip("-")] = script
    return found


def purpose(script: Path) -> str:
    """What its header says."""
    lines = script.read_text(encoding="utf-8").splitlines()
    line = next((line for line in lines if line.startswith("# Purpose:")), "")
    return line.partition(":")[2].strip()


def recipe_of(name: str) -> tuple[Path, dict[str, str]]:
    """The script of a recipe or a task, and the settings that make it that task's.

    Raises: UserError that names what there is.
    """
    from ofa.tasks import specs_called

    scripts = recipes()
    if name in scripts:
        return scripts[name], {}
    if is_template(name):
        return scripts["template"], {"TASK": name}
    for spec in specs_called(name):
        for known in (spec.name, *spec.aliases):
            script = scripts.get(known) or scripts.get(f"{known}-stage1")
            if script:
                return script, {}
        if spec.name in GLUE:
            return scripts["glue"], {"DATASET": spec.name}
        return scripts["template"], {"TASK": spec.name}
    raise UserError(
        f"ofa train: expected a task, a recipe or files, found '{name}'; recipes:"
        f" {', '.join(scripts)}{did_you_mean(name, [*scripts, *names_of_tasks()])}"
    )


def names_of_tasks() -> list[str]:
    from ofa.tasks import declared_specs

    return [name for spec in declared_specs() for name in (*spec.names, spec.verb)]


def given(args: TrainOptions) -> dict[str, str]:
    """Options as the settings that scripts read; those that nobody gave are left to the script."""
    settings = {}
    for item in fields(args):
        value, names = getattr(args, item.name), item.metadata.get("env", "").split()
        if names and value is not None and value is not False:
            settings[names[0]] = str(int(value)) if isinstance(value, bool) else str(value)
    if args.data and not Path(args.data).is_dir():
        if not names_files(args.data):
            raise UserError(
                f"--data {args.data}: expected a folder with training files, or the files"
                " TRAIN.tsv,VALID.tsv, found nothing; make some: ofa prepare"
            )
        settings["DATA"] = settings.pop("DATA_DIR")
    elif is_flag(args.data, "DATA_DIR"):
        settings["DATA"] = ""
    return settings


def run_script(script: Path, settings: Mapping[str, str], flags: Sequence[str]) -> int:
    """Train by the command at the end of a script, in this process: Python is not started again.
    Returns: the exit status."""
    environment = {**os.environ, EXECUTABLE: sys.executable, **settings}
    if ofa.CHECKOUT is None:  # files lie where the user is
        environment["OFA_ROOT"] = os.getcwd()
    bash = shutil.which("bash")
    if bash is None:
        raise UserError("bash: expected it, recipes are its scripts; found none on PATH")
    words = [bash, str(script), *flags]
    if environment.get(SWEEP):
        become(words, environment)
    told, write = os.pipe()
    with subprocess.Popen(
        words, env={**environment, TELL: str(write)}, pass_fds=[write]
    ) as process:
        os.close(write)
        with open(told, "rb") as file:
            parts = os.fsdecode(file.read()).split("\0")
    if process.returncode or parts == [""]:
        return process.returncode
    end = int(parts[0]) + 1
    os.environ.clear()
    os.environ.update(part.partition("=")[::2] for part in parts[end:-1])
    parser = Parser(prog="ofa train")
    command(parser, TrainOptions, train)
    namespace = parser.parse_args(parts[2:end])  # behind the number and "train"
    return namespace.run(namespace)
