"""Every fairseq command starts here: what its configuration gets, and how its errors are shown."""

import functools
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.file_io import PathManager
from fairseq.utils import split_paths
from omegaconf import open_dict

from ofa.devices import require_bf16, usable_gpus
from ofa.errors import UserError
from ofa.failures import PIPE_CLOSED, message_of, reader_is_gone
from ofa.trainer.fairseq_resume import DEFAULT_RESTORE_FILE
from ofa.trainer.fairseq_run import GuardedTraining


def replace_call_main(stock: Callable) -> Callable:
    """Every command but ``fairseq-generate`` ends in ``call_main``: its configuration is fixed
    there. A training is guarded: its folder is locked, and it stops cleanly."""

    @functools.wraps(stock)
    def call_main(cfg, main, **kwargs):
        trains = "validate_and_save" in getattr(main, "__globals__", {})
        with errors_in_one_line(), open_dict(cfg):
            refuse_unusable_gpus(cfg)
            refuse_missing_restore_file(cfg)
            refuse_missing_path(cfg)
            refuse_asynchronous_checkpoints(cfg)
            ignore_unused_valid_subsets(cfg)
            use_fp16_without_flat_gradients_on_cpu(cfg)
            follow_torchrun(cfg)
            stock(cfg, GuardedTraining(main) if trains else main, **kwargs)

    return call_main


def replace_generation(stock: Callable) -> Callable:
    """``fairseq-generate`` calls its ``main`` itself, not by ``call_main``."""

    @functools.wraps(stock)
    def main(args: Namespace):
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

    return main


def refuse_missing_path(cfg) -> None:
    """``--path`` is looked for after minutes of reading data, and is a traceback then."""
    named = split_paths(cfg.common_eval.path or "")
    whole = not cfg.checkpoint.checkpoint_suffix and cfg.checkpoint.checkpoint_shard_count == 1
    missing = [path for path in named if path and not PathManager.isfile(path)]
    if whole and missing:
        raise UserError(f"--path: expects a checkpoint, found no file {missing[0]}; check the path")


def refuse_unusable_gpus(cfg) -> None:
    """ "no kernel image is available" comes after the data is read; an old driver means training
    on the CPU in silence."""
    if not cfg.common.cpu and usable_gpus()[0] and cfg.common.bf16:
        require_bf16("cuda")


def refuse_missing_restore_file(cfg) -> None:
    """A missing ``--restore-file`` would silently train from scratch."""
    path = cfg.checkpoint.restore_file
    if path != DEFAULT_RESTORE_FILE and not PathManager.isfile(path):
        raise UserError(
            f"--restore-file: expects a checkpoint, found no file {path}. "
            "Check the path, or leave the flag out to train from scratch."
        )


def ignore_unused_valid_subsets(cfg) -> None:
    """fairseq searches the folder of ``data`` for forgotten subsets; ours is a list of files."""
    cfg.dataset.ignore_unused_valid_subsets = True


def refuse_asynchronous_checkpoints(cfg) -> None:
    """Without iopath such a run ends with status 0; with it checkpoints may be torn."""
    if cfg.checkpoint.write_checkpoints_asynchronously:
        raise UserError(
            "--write-checkpoints-asynchronously: leave it out, a kill could tear a checkpoint"
        )


def use_fp16_without_flat_gradients_on_cpu(cfg) -> None:
    """``--fp16`` on the CPU fails with flattened gradients."""
    if cfg.common.fp16 and (cfg.common.cpu or not torch.cuda.is_available()):
        cfg.common.fp16_no_flatten_grads = True


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
