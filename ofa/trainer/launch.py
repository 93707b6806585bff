"""The launcher: from options and flags to a training that runs.

It imports neither torch nor fairseq: what can be refused is refused before they are.
"""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import ofa
from ofa import devices
from ofa.checkpoints.published import advice
from ofa.errors import UserError
from ofa.io.flags import option
from ofa.io.folder_lock import LOCK, FolderLock, lock_folder
from ofa.models.generation.options import read_options
from ofa.task.template import is_template
from ofa.trainer.processes import Processes, ProcessOptions, become

Precision = Literal["fp32", "fp16", "bf16", "amp", "memory-efficient-fp16"]
RUN = "runs/last"  # folder of a run that is given none
LOG = "train.log"
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
        None, "of the computation (default: fp16 on GPUs, fp32 on CPU)", env="PRECISION"
    )
    gpu_precision: Precision | None = option(
        None, "what a recipe prefers on GPUs", env="GPU_PRECISION"
    )
    num_workers: int | None = option(
        None, "processes that read data (default: 2)", least=0, env="NUM_WORKERS"
    )
    fresh: bool = option(False, "start over; what the folder holds is moved aside", env="FRESH")


def train(data: str, options: LaunchOptions, flags: Sequence[str]) -> int:
    """Train in this process, or in several below it; returns only after ``--dry-run``.

    Args: data: training and validation files, as fairseq takes them. flags: of ``fairseq-train``.
    Raises: UserError if something is missing or another run owns the folder.
    """
    flags = named_templates(flags)
    for flag in ("--eval-args", "--scst-args"):
        read_options(value_of(flag, flags) or "{}", flag)
    start = checkpoint_to_start_from(options, flags)
    if start is not None and not options.dry_run and not Path(start).is_file():
        raise UserError(
            f"--from (RESTORE) expects a checkpoint, found no file {start}. Put it there, name"
            f" another, or train from random weights (--from none){advice(start)}"
        )
    gpus = 0 if "--cpu" in flags else count_gpus(options.dry_run)
    processes = Processes.of(options, gpus)
    arguments = [data, *common_flags(options, flags, processes.count, gpus), *flags]
    command = processes.command("fairseq_cli.train", arguments)
    if options.dry_run:
        print(shlex.join(command))
        return 0
    kept = () if gpus else KEEP_FREED_MEMORY
    memory = {name: os.environ.get(name) or FOUR_GIB for name in kept}
    if processes.rank > 0:  # nodes share the disk: the first one owns the folder and logs
        become(command, memory)
    folder = Path(options.out or RUN)
    lock = own(folder, options.fresh)  # for as long as this process lives
    lock.keep_through_exec()
    become(command, memory, folder / LOG, log_format=value_of("--log-format", flags))


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
    stand for. Args: flags: of the recipe, which follow them."""
    batch, workers = options.batch_size or 8, options.num_workers
    folder, start = options.out or RUN, checkpoint_to_start_from(options, flags)
    words = [f"--user-dir={Path(ofa.__file__).parent}", *COMMON]
    words += [f"--batch-size={batch}", f"--num-workers={2 if workers is None else workers}"]
    if value_of("--update-freq", flags) is None:
        step = batch * processes
        words.append(f"--update-freq={-(-(options.effective_batch or batch) // step)}")
    if not gpus and "--cpu" not in flags:
        words.append("--cpu")
    if processes > 1:
        words.append(f"--distributed-world-size={processes}")
    precision = options.precision or ((options.gpu_precision or "fp16") if gpus else "fp32")
    if precision != "fp32" and not {f"--{name}" for name in get_args(Precision)} & {*flags}:
        words.append(f"--{precision}")
        if precision.endswith("fp16"):
            words.append("--fp16-scale-window=512")
    if start is not None:
        words.append(f"--finetune-from-model={start}")
    return [*words, f"--save-dir={folder}", f"--tensorboard-logdir={folder}/tensorboard"]


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


def value_of(flag: str, flags: Sequence[str]) -> str | None:
    """The last value of a flag, in either spelling."""
    value = None
    for word, following in zip(flags, [*flags[1:], ""]):
        if word == flag:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value


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
