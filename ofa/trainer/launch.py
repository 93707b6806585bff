"""The launcher: from options and flags to a training that runs.

It imports neither torch nor fairseq: what can be refused is refused before they are.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ofa import devices
from ofa.io.flags import option
from ofa.io.folder_lock import LOCK, FolderLock, lock_folder
from ofa.io.jobs import count_threads
from ofa.models.generation.options import parse_generation_options
from ofa.task.template import is_template
from ofa.trainer.auto import Fit, fit, fitting_processes, words
from ofa.trainer.checks import Facts, look_at, refuse_precisions, stand_in
from ofa.trainer.flags import value_of
from ofa.trainer.plan import PRECISIONS, Plan
from ofa.trainer.processes import Processes, ProcessOptions, become, data_workers

Precision = Literal["fp32", "fp16", "bf16", "amp", "memory-efficient-fp16"]
RUN = "runs/last"  # folder of a run that is given none
LOG, CONFIG = "train.log", "config.yaml"  # in it; the second has all options by name
PLUGIN = Path(__file__).parents[1]  # --user-dir
# What all recipes have in common.
COMMON = (
    "--encoder-normalize-before --decoder-normalize-before --share-decoder-input-output-embed"
    " --share-all-embeddings --layernorm-embedding --patch-layernorm-embedding"
    " --code-layernorm-embedding --add-type-embedding --scale-attn --scale-fc --scale-heads"
    " --disable-entangle --optimizer=adam --adam-betas=(0.9,0.999) --adam-eps=1e-08"
    " --weight-decay=0.01 --clip-norm=1.0 --lr-scheduler=polynomial_decay --dropout=0.1"
    " --attention-dropout=0.0 --resnet-drop-path-rate=0.0 --num-bins=1000"
    " --find-unused-parameters --log-format=simple --log-interval=10 --fixed-validation-seed=7"
).split()
# On a CPU, memory that one step frees is kept for the next instead of going back to the system,
# which clears every page before it gives it out again: a fifth of a pretraining step.
KEEP_FREED_MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
FOUR_GIB = str(1 << 32)


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(ProcessOptions):
    """How a training is started. Scripts give most of it by settings of the environment."""

    TITLE = "training"

    out: str | None = option(
        None, f"folder of the run (default: {RUN})", also=("--save-dir",), env="SAVE_DIR"
    )
    start: str | None = option(
        None, "checkpoint to start from; none: random weights", flag="--from", env="RESTORE"
    )
    batch_size: int | None = option(
        None, "rows per process and step (default: 8)", least=1, env="BATCH"
    )
    effective_batch: int | None = option(
        None,
        "rows per update over all processes, which --update-freq keeps",
        least=1,
        env="EFFECTIVE_BATCH",
    )
    precision: Precision | None = option(
        None,
        "of the computation (default: bf16 on GPUs that have it, else fp16; fp32 on CPU)",
        env="PRECISION",
    )
    gpu_precision: Precision | None = option(
        None, "what a recipe prefers on GPUs", env="GPU_PRECISION"
    )
    num_workers: int | None = option(
        None,
        "processes that read data (default: 2; 2 to 8 for each GPU, by cores)",
        least=0,
        env="NUM_WORKERS",
    )
    fresh: bool = option(False, "start over; what the folder holds is moved aside", env="FRESH")
    auto: bool | None = option(
        None, "fit batch, length, image size, ... to rows and device", env="OFA_AUTO"
    )
    plan: bool = option(False, "print what fits 1 to 8 GPUs, and stop", env="OFA_PLAN")


@dataclass(frozen=True)
class Chosen:
    """What the user of a recipe gave: the last flags, and whether a batch size was among it."""

    flags: int
    batch: bool = False


def train(
    data: str, options: LaunchOptions, flags: Sequence[str], chosen: Chosen | None = None
) -> int:
    """Train in this process, or in several below it; returns only after ``--dry-run`` and
    ``--plan``.

    Args: data: training and validation files, as fairseq takes them. flags: of ``fairseq-train``.
    chosen: which of them ``--auto`` leaves alone; default: all.
    Raises: UserError if something is missing or another run owns the folder.
    """
    flags = named_templates(flags)
    if chosen is None:
        chosen = Chosen(len(flags), bool(options.batch_size or options.effective_batch))
    for flag in ("--eval-args", "--scst-args"):
        parse_generation_options(value_of(flag, flags) or "{}", flag)
    facts = Facts()
    if options.auto or not options.dry_run:
        facts = facts_of(data, options, flags)
        flags = [*facts.carried, *flags]
    gpus = 0 if "--cpu" in flags else count_gpus(options.dry_run or options.plan)
    processes = Processes.of(options, gpus)
    plan, said = planned(data, options, flags, facts, processes, gpus), ""
    if options.auto:
        recipe = plan
        options, flags, found = fitted(recipe, options, flags, chosen)
        processes = Processes.of(options, gpus)
        plan = planned(data, options, flags, facts, processes, gpus)
        said = words(recipe, found, plan.updates)
    command = processes.command("fairseq_cli.train", plan.flags)
    if options.dry_run:
        print(shlex.join(command))
        return 0
    if options.plan:
        print(*filter(None, [said, plan.line()]), plan.table(), sep="\n")
        return 0
    kept = () if gpus else KEEP_FREED_MEMORY
    settings = {name: os.environ.get(name) or FOUR_GIB for name in kept}
    if options.auto and recipe.processes < processes.count:
        settings["OMP_NUM_THREADS"] = str(max(count_threads() // processes.here, 1))
    if processes.rank > 0:  # nodes share the disk: the first one owns the folder and logs
        become(command, settings)
    folder = Path(options.out or RUN)
    warning = plan.check_expected_space(folder)
    lock = own(folder, options.fresh)  # for as long as this process lives
    lock.keep_through_exec()
    announce(folder / LOG, auto=said, plan=plan.line(), warning=warning)
    become(command, settings, folder / LOG, log_format=value_of("--log-format", flags))


def facts_of(data: str, options: LaunchOptions, flags: Sequence[str]) -> Facts:
    """What the files tell. ``--plan`` does without the checkpoint: it takes one of the size that
    the flags name."""
    start, carries = checkpoint_to_start_from(options, flags), bool(options.auto)
    if not options.plan or start is None or Path(start).is_file():
        return look_at(data, start, flags, carries)
    print(f"note: found no file {start}; planned with a checkpoint of this size", file=sys.stderr)
    return replace(look_at(data, None, flags, carries), start=stand_in(flags))


def planned(
    data: str,
    options: LaunchOptions,
    flags: Sequence[str],
    facts: Facts,
    processes: Processes,
    gpus: int,
) -> Plan:
    """What the command line of a training comes to; its ``flags`` are all that fairseq gets."""
    arguments = [data, *common_flags(options, flags, processes.count, gpus), *flags]
    return Plan(facts, arguments, processes.count, gpus, processes.nodes)


def fitted(
    recipe: Plan, options: LaunchOptions, flags: Sequence[str], chosen: Chosen
) -> tuple[LaunchOptions, list[str], Fit]:
    """Options and flags that fit rows and device, and what was changed."""
    batch, effective, found = fit(recipe, flags[len(flags) - chosen.flags :], chosen.batch)
    options = replace(options, batch_size=batch, effective_batch=effective)
    fits = replace(recipe, flags=[*recipe.flags, *found.flags, f"--batch-size={batch}"])
    settled = options.jobs or chosen.batch or "--distributed-world-size" in found.own
    if not settled and (count := fitting_processes(fits)) > 1:
        workers = 1 if options.num_workers is None else options.num_workers
        options = replace(options, jobs=count, batch_size=batch // count, num_workers=workers)
        found.changes.append(f"{count} processes")
    return options, [*flags, *found.flags], found


def announce(log: Path, **said: str) -> None:
    """Lines for the terminal and the log of a run, those that say something."""
    text = "".join(f"{name}: {line}\n" for name, line in said.items() if line)
    with open(log, "a", encoding="utf-8") as file:
        file.write(text)
    print(text, end="", flush=True)


def on_nodes(options: ProcessOptions, module: str, arguments: Sequence[str]) -> None:
    """Become the processes of several nodes, if there are several and this is none of them."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return
    processes = Processes.of(options, count_gpus(options.dry_run))
    several = processes.nodes > 1
    words = [word for word in arguments if word != "--dry-run"]
    if not several and options.jobs > 1:
        words.append(f"--jobs={options.jobs}")
    command = (processes if several else Processes(1)).command(module, words)
    if options.dry_run:
        print(shlex.join(command))
        raise SystemExit(0)
    if several:
        become(command, {})


def common_flags(
    options: LaunchOptions, flags: Sequence[str], processes: int = 1, gpus: int = 0
) -> list[str]:
    """The flags of ``fairseq-train`` that all recipes have in common, and those that the options
    stand for. Args: flags: of the recipe, which follow them. Raises: UserError if these and the
    options ask for different precisions."""
    batch, workers = options.batch_size or 8, options.num_workers
    if workers is None:
        workers = data_workers(options.jobs or gpus) if gpus else 2
    folder, start = options.out or RUN, checkpoint_to_start_from(options, flags)
    words = [f"--user-dir={PLUGIN}", *COMMON]
    words += [f"--batch-size={batch}", f"--num-workers={workers}"]
    if value_of("--update-freq", flags) is None:
        step = batch * processes
        words.append(f"--update-freq={-(-(options.effective_batch or batch) // step)}")
    if not gpus and "--cpu" not in flags:
        words.append("--cpu")
    if processes > 1:
        words.append(f"--distributed-world-size={processes}")
    precisions = [name for name in PRECISIONS if f"--{name}" in flags]
    refuse_precisions([*precisions, *filter(None, [options.precision])])
    if not precisions:
        words += precision_flags(options, gpus)
    if start is not None:
        words.append(f"--finetune-from-model={start}")
    return [*words, f"--save-dir={folder}", f"--tensorboard-logdir={folder}/tensorboard"]


def precision_flags(options: LaunchOptions, gpus: int) -> list[str]:
    """Of the precision that the options or the recipe choose; else that of the run in the folder,
    which is resumed, or what suits the device."""
    precision: str | None = options.precision or (options.gpu_precision if gpus else "fp32")
    if precision is None and not options.fresh:
        precision = precision_of_run(Path(options.out or RUN))
    precision = precision or devices.half_precision()
    if precision == "fp32":
        return []
    return [f"--{precision}", *["--fp16-scale-window=512"] * precision.endswith("fp16")]


def precision_of_run(folder: Path) -> str | None:
    """That of the run in a folder; None: there is none."""
    try:
        options = (folder / CONFIG).read_text(encoding="utf-8")
    except OSError:
        return None
    on = re.findall(r"^(\w+): true$", options, re.MULTILINE)
    return next((name for name in PRECISIONS if name.replace("-", "_") in on), "fp32")


def checkpoint_to_start_from(options: LaunchOptions, flags: Sequence[str]) -> str | None:
    """That of ``--from``; None: random weights, or those of ``--restore-file``."""
    if options.start == "none" or value_of("--restore-file", flags) is not None:
        return None
    return options.start or None


def count_gpus(quick: bool = False) -> int:
    """GPUs that will be used. Args: quick: without asking torch, which takes seconds.

    Raises: UserError if there is a GPU that this build of torch cannot use.
    """
    gpus, note = devices.count_without_torch() if quick else devices.usable_gpus()
    if note:
        print(f"note: {note}; using the CPU", file=sys.stderr)
    return gpus


def named_templates(flags: Sequence[str]) -> list[str]:
    """fairseq knows tasks by name alone: a task in one line is an option of the task
    ``template``."""
    task = value_of("--task", flags)
    if task is None or not is_template(task):
        return list(flags)
    rest, words = [], iter(flags)
    for word in words:
        if word == "--task":
            next(words, None)
        elif not word.startswith("--task="):
            rest.append(word)
    return ["--task=template", f"--template={task}", *rest]


def own(folder: Path, fresh: bool) -> FolderLock:
    """The lock of a run's folder. Args: fresh: what it holds is moved aside, never deleted."""
    folder = Path(os.path.abspath(folder))
    lock = lock_folder(folder)
    if fresh and any(path.name != LOCK for path in folder.iterdir()):
        aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        (aside / LOCK).unlink(missing_ok=True)
        lock.release()
        lock = lock_folder(folder)
    return lock
