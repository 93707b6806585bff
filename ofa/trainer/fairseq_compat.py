"""Everything of fairseq that is replaced: ``PATCHES``, each with its reason; and what every command
does before it starts.

None of them changes what fairseq computes. Each replaces a name of its own and is made from that
name's own value, so their order does not matter. What concerns a training stands in ``OFATrainer``.
"""

import atexit
import dataclasses
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq import checkpoint_utils, options
from fairseq import trainer as fairseq_trainer
from fairseq.dataclass import configs
from fairseq.dataclass.initialize import hydra_init
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.file_io import PathManager
from fairseq.logging.meters import MetersDict
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, distributed_fairseq_model
from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY
from fairseq.tasks import TASK_REGISTRY
from fairseq.utils import split_paths
from omegaconf import OmegaConf, open_dict

from ofa.checkpoints.options import comparable, options_of
from ofa.checkpoints.published import advice
from ofa.devices import require_bf16, usable_gpus
from ofa.errors import UserError
from ofa.failures import PIPE_CLOSED, message_of, reader_is_gone
from ofa.process_state import silence_known_warnings
from ofa.trainer import console, fairseq_checkpoint
from ofa.trainer.checks import SEVERAL_PRECISIONS, refuse_precisions, refuse_sharing
from ofa.trainer.fairseq_checkpoint import copy_whole
from ofa.trainer.fairseq_optim import replace_polynomial_decay
from ofa.trainer.fairseq_resume import DEFAULT_RESTORE_FILE, INITIAL_WEIGHTS
from ofa.trainer.fairseq_run import PROGRAM_PATCHES, GuardedTraining
from ofa.trainer.patch import ModuleWith, Patch, around
from ofa.trainer.processes import status_of_run

CHECKPOINT_FLAGS: dict[str, tuple[Any, Any, str]] = {  # name -> (type, default, help)
    INITIAL_WEIGHTS[0]: (bool, False, "start from the averaged weights of the checkpoint"),
    INITIAL_WEIGHTS[1]: (bool, False, "start the averages anew from the checkpoint's last weights"),
    "base": (Optional[str], None, "where the base of a checkpoint of tuned weights is now"),
    "allow_changed_data": (bool, False, "resume although the training data has changed"),
}
PROCESS_FLAGS: dict[str, tuple[Any, Any, str]] = {
    "distributed_timeout": (
        Optional[int],
        None,
        "minutes to wait for another process (default: torch's, 10 on GPUs, 30 on CPUs)",
    )
}
COMMON_FLAGS: dict[str, tuple[Any, Any, str]] = {
    "compile": (bool, False, "compile encoder and decoder with torch.compile")
}
TRAINER = "fairseq_cli.train"
USAGE = "%(prog)s DATA --user-dir ofa --task NAME --arch NAME [...] (--help lists every option)"


# --- commands -------------------------------------------------------------------------------------


@around
def begin_command(stock: Callable, cfg, main: Callable, **kwargs) -> None:
    """Every command but ``fairseq-generate`` ends in ``call_main``: its configuration is fixed
    there. A training is guarded: its folder is locked, and it stops cleanly."""
    trains = "validate_and_save" in getattr(main, "__globals__", {})
    atexit.register(console.finish)
    with errors_in_one_line(), open_dict(cfg):
        settle(cfg)
        stock(cfg, GuardedTraining(main) if trains else main, **kwargs)
        # torchrun would take another status of a rank for a failure, and end those that still save
        alone = trains and "TORCHELASTIC_RUN_ID" not in os.environ
        if alone and (status := status_of_run(Path(cfg.checkpoint.save_dir))):
            sys.exit(status)


@around
def begin_generation(stock: Callable, args) -> Any:
    """``fairseq-generate`` calls its ``main`` itself, not by ``call_main``."""
    with errors_in_one_line():
        # An import inside fairseq sets this to DEBUG for every library.
        logging.getLogger().setLevel(os.environ.get("LOGLEVEL", "INFO").upper())
        cfg = convert_namespace_to_omegaconf(args)
        refuse_missing_path(cfg)
        if cfg.generation.lm_path:
            raise UserError(
                "--lm-path: a language model beside the network is not offered; leave it out"
            )
        return stock(cfg)


def settle(cfg) -> None:
    """Change a configuration to what works here. Raises: UserError for what cannot work."""
    # "no kernel image is available" comes after the data is read; an old driver means training on
    # the CPU in silence
    if not cfg.common.cpu and usable_gpus()[0] and cfg.common.bf16:
        require_bf16("cuda")
    refuse_precisions([name for name in ("fp16", "bf16", "amp") if cfg.common[name]])
    if getattr(cfg.optimizer, "fp16_adam_stats", False):
        raise UserError("--fp16-adam-stats: leave it out, only apex's old Adam has them")
    path = cfg.checkpoint.restore_file
    if path != DEFAULT_RESTORE_FILE and not PathManager.isfile(path):
        raise UserError(  # fairseq would silently train from scratch
            f"--restore-file: expects a checkpoint, found no file {path}. "
            f"Check the path, or leave the flag out to train from scratch{advice(path)}"
        )
    refuse_missing_path(cfg)
    # without iopath such a run ends with status 0
    if cfg.checkpoint.write_checkpoints_asynchronously:
        raise UserError(
            "--write-checkpoints-asynchronously: leave it out, a kill could tear a checkpoint"
        )
    # fairseq searches the folder of ``data`` for forgotten subsets; ours is a list of files
    cfg.dataset.ignore_unused_valid_subsets = True
    if cfg.common.fp16 and (cfg.common.cpu or not torch.cuda.is_available()):
        cfg.common.fp16_no_flatten_grads = True  # flattened ones fail on the CPU
    settle_processes(cfg)
    follow_torchrun(cfg)


def settle_processes(cfg) -> None:
    """Raises: UserError for ways to share the work that need fairscale, which is not offered."""
    settings = cfg.distributed_training
    minutes = settings.distributed_timeout
    if minutes is not None and minutes < 1:
        raise UserError(f"--distributed-timeout: expects minutes from 1 on, found {minutes}")
    refuse_sharing(settings.ddp_backend, settings.cpu_offload)
    flag = "--zero-sharding os"
    if settings.ddp_backend == "fully_sharded":  # a name by which fairseq asks for fairscale
        settings.ddp_backend, settings.zero_sharding = "pytorch_ddp", "full"
        flag = "--ddp-backend fully_sharded"
        if cfg.common.compile:
            raise UserError(f"{flag}: works without --compile, which cannot gather weights")
        if getattr(cfg.criterion, "scst_kl_weight", 0):
            raise UserError(f"{flag}: works without --scst-kl-weight, which copies the network")
        for side in ("encoder", "decoder"):
            if getattr(cfg.model, f"{side}_layerdrop", None):
                raise UserError(f"{flag}: works without --{side}-layerdrop: processes differ")
    if settings.zero_sharding != "none":
        if getattr(cfg.optimizer, "_name", None) != "adam":
            raise UserError(f"{flag}: expects --optimizer adam; leave it out otherwise")
        if cfg.common.amp:
            raise UserError(f"{flag}: works without --amp; use --bf16 or --fp16")
        if cfg.optimization.use_bmuf:
            raise UserError(f"{flag}: works without --use-bmuf, which would mix up the parts")
        cfg.common.fp16_no_flatten_grads = True  # one flat tensor cannot be divided


def refuse_missing_path(cfg) -> None:
    """``--path`` is looked for after minutes of reading data, and is a traceback then."""
    named = split_paths(cfg.common_eval.path or "")
    whole = not cfg.checkpoint.checkpoint_suffix and cfg.checkpoint.checkpoint_shard_count == 1
    missing = [path for path in named if path and not PathManager.isfile(path)]
    if whole and missing:
        raise UserError(f"--path: expects a checkpoint, found no file {missing[0]}; check the path")


def follow_torchrun(cfg) -> None:
    """Take rank, world size and device from torchrun's environment. fairseq divides by the number
    of GPUs there (none on a CPU machine), and with one visible device per process starts
    independent runs unless the world size is given as well."""
    world_size, settings = int(os.environ.get("WORLD_SIZE", 1)), cfg.distributed_training
    if world_size == 1 or "RANK" not in os.environ or settings.distributed_init_method:
        return
    devices = 0 if cfg.common.cpu else torch.cuda.device_count()
    settings.distributed_world_size = world_size
    settings.distributed_rank = int(os.environ["RANK"])
    settings.distributed_init_method = "env://"
    settings.distributed_no_spawn = True
    settings.device_id = int(os.environ.get("LOCAL_RANK", 0)) % max(devices, 1)
    if devices == 0:
        settings.distributed_backend = "gloo"


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Inside, an error that a user can correct ends the process with one line and status 2."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            sys.exit(PIPE_CLOSED)
        message = message_of(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr, flush=True)
        sys.exit(2)


def settings_of_command(arguments: list[str]) -> dict[str, Any]:
    """A training command as a dict of all its options, the defaults among them. Args: arguments: of
    ``fairseq-train``. Ends the process if a flag is wrong."""
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    config = convert_namespace_to_omegaconf(parsed)
    groups = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    return comparable(options_of({"cfg": groups}))


def command_of_script(script: str | Path, flags: list[str]) -> list[str]:
    """The arguments that a run script gives to fairseq: what it prints with DRY_RUN=1. Raises:
    UserError if the script fails or trains nothing."""
    command, environment = ["bash", str(script), *flags], {**os.environ, "DRY_RUN": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    words = [shlex.split(line) for line in found.stdout.splitlines() if TRAINER in line]
    if found.returncode or not words:
        reason = (found.stderr.strip().splitlines() or ["it starts no training"])[-1]
        raise UserError(
            f"{script}: expected a run script that trains, found: {reason}; name one of"
            " run_scripts/*/train*.sh"
        )
    return words[-1][words[-1].index(TRAINER) + 1 :]


# --- what else is replaced ------------------------------------------------------------------------


def read_checkpoints_as_data(stock: Callable) -> Callable:
    """Since torch 2.6 fairseq cannot read its own checkpoints: they hold an argparse.Namespace.
    Those that hold tuned weights only are completed from their base."""
    return fairseq_checkpoint.load_checkpoint_to_cpu


@around
def let_the_trainer_choose(stock: Callable, cfg, trainer, **iterator_options):
    """fairseq takes ``checkpoint_last.pt`` or fails: it knows no older one and no end of a run."""
    return trainer.start(stock, cfg, **iterator_options)


def copy_checkpoints_whole(stock: type) -> Any:
    """fairseq copies a checkpoint to ``checkpoint_last.pt`` in place: a kill leaves half a file."""
    return ModuleWith(stock, copy=copy_whole)


def broadcast_objects_of_any_class(stock: Any) -> Any:
    """Since torch 2.6 objects that one rank sends to another are unpickled with ``weights_only``.
    They come from our own processes, never from a file, so every class is allowed here."""

    def load(buffer, map_location=None):
        return torch.load(buffer, map_location=map_location, weights_only=False)

    return ModuleWith(stock, load=load)


class StaysHere(torch.Tensor):
    def cuda(self, *args, **kwargs):
        return self


def make_zeros_without_gpu(stock: Any) -> Any:
    """When a gradient of ``--fp16`` overflows, fairseq makes a zero on the GPU without looking."""
    if torch.cuda.is_available():
        return stock
    return ModuleWith(stock, tensor=lambda *args: torch.tensor(*args).as_subclass(StaysHere))


@around
def drop_device_ids_on_cpu(stock, module, device_ids=None, output_device=None, **kwargs):
    """``--ddp-backend pytorch_ddp`` passes device_ids, which torch refuses for CPU modules."""
    if next(module.parameters()).device.type == "cpu":
        device_ids = output_device = None
    return stock(module, device_ids=device_ids, output_device=output_device, **kwargs)


@around
def skip_figures_without_value(stock: Callable, meters: MetersDict) -> dict[str, Any]:
    """A figure that no update since the last log line had would be logged as None."""
    values = stock(meters)
    return type(values)((name, value) for name, value in values.items() if value is not None)


@around
def parse_with_short_errors(stock: Callable, parser, *args, **kwargs):
    """A typo in --arch or --task prints pages: all options and all names. Ours are enough.
    ``--bf16`` sets ``tpu=True``, which crashes on machines without torch_xla, and with ``--fp16``
    is an exception that speaks of TPUs."""
    stock_error, parser.usage = parser.error, USAGE
    parser.error = lambda message: stock_error(with_our_names(message))
    try:
        parsed = stock(parser, *args, **kwargs)
    except ValueError as error:
        if "--tpu" not in str(error):
            raise
        parser.error(SEVERAL_PRECISIONS.format("fp16 and bf16"))
    namespace = parsed[0] if isinstance(parsed, tuple) else parsed
    if getattr(namespace, "bf16", False):
        namespace.tpu = False
    return parsed


def with_our_names(message: str) -> str:
    """argparse's message about an unknown --arch or --task, with the names of this plugin."""
    found = re.match(r"argument (--arch|--task)\S*: invalid choice: (\S+)", message)
    if found is None:
        return message
    ours = {
        "--arch": [name for name, model in ARCH_MODEL_NAME_REGISTRY.items() if model == "ofa"],
        "--task": [name for name, task in TASK_REGISTRY.items() if hasattr(task, "spec")],
    }
    flag, name = found.groups()
    known = ", ".join(sorted(ours[flag]))
    return f"{flag}: expects one of {known} (or a name of fairseq's own), found {name}"


def add_flags(stock: type) -> type:
    """Flags of upstream and of this project belong to fairseq's options of checkpoints, processes
    and commands. The classes themselves are extended: fairseq keeps references to them in others.
    """
    extend(stock, CHECKPOINT_FLAGS)
    extend(configs.DistributedTrainingConfig, PROCESS_FLAGS)
    extend(configs.CommonConfig, COMMON_FLAGS)
    hydra_init()
    return stock


def extend(config: type, flags: Mapping[str, tuple[Any, Any, str]]) -> None:
    """Add fields to a dataclass in place."""
    known = {field.name: field for field in dataclasses.fields(config)}
    for name, (kind, default, text) in flags.items():
        known[name] = dataclasses.field(default=default, metadata={"help": text})
        config.__annotations__[name] = kind
    for name, field in known.items():
        if name in config.__annotations__:
            setattr(config, name, dataclasses.field(default=field.default, metadata=field.metadata))
    dataclasses.dataclass(config)


PATCHES = (
    Patch(checkpoint_utils, "load_checkpoint_to_cpu", read_checkpoints_as_data),
    Patch(checkpoint_utils, "load_checkpoint", let_the_trainer_choose),
    Patch(checkpoint_utils, "PathManager", copy_checkpoints_whole),
    Patch(distributed_utils, "torch", broadcast_objects_of_any_class),
    Patch(distributed_utils, "call_main", begin_command),
    Patch(distributed_fairseq_model, "DistributedDataParallel", drop_device_ids_on_cpu),
    Patch(fairseq_trainer, "torch", make_zeros_without_gpu),
    Patch(MetersDict, "get_smoothed_values", skip_figures_without_value),
    Patch(options, "parse_args_and_arch", parse_with_short_errors),
    Patch(configs, "CheckpointConfig", add_flags),
    Patch(LR_SCHEDULER_REGISTRY, "polynomial_decay", replace_polynomial_decay),
    Patch("fairseq_cli.generate", "main", begin_generation),
    *PROGRAM_PATCHES,
)


def install() -> None:
    """Apply every patch that is not; a program may have been loaded since the last call."""
    silence_known_warnings()
    for patch in PATCHES:
        patch.apply()
