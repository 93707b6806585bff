"""Ctrl-C and SIGTERM end a training after the update that is being made, with a checkpoint to go on
from.

All ranks stop after the same update: the request travels with the figures that they add up anyway.
"""

import functools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.trainer import Trainer
from omegaconf import open_dict

from ofa.io.atomic import replacing
from ofa.io.folder_lock import lock_folder
from ofa.trainer.fairseq_distributed import end_after_other_rank, end_with_launcher
from ofa.trainer.fairseq_ema import check_ema_options
from ofa.trainer.fairseq_resume import ExactState, RunFinished
from ofa.trainer.fairseq_saving import remove_leftovers, save_after_last_epoch
from ofa.trainer.fairseq_tensorboard import begin_to_show

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MARKER = "interrupted"  # file in --save-dir of a run that was asked to stop before its end


def install() -> None:
    """Guard every training; called once, when the plugin registers."""
    distributed_utils.call_main = guard_trainings(distributed_utils.call_main)
    Trainer._aggregate_logging_outputs = send_request_along(Trainer._aggregate_logging_outputs)
    Trainer.begin_epoch = note_that_training_began(Trainer.begin_epoch)
    checkpoint_utils.save_checkpoint = count_saves(checkpoint_utils.save_checkpoint)


class Stopped(Exception):
    """The run was asked to stop and has been saved."""


class Request:
    """What this process knows about being asked to stop."""

    signal_number: int | None = None  # received by this process
    agreed = False  # known to all ranks
    training = False  # before its first update a run has nothing to save
    saves = 0  # times that this run has saved
    time = 0.0

    @classmethod
    def receive(cls, number: int, frame) -> None:
        """The signal handler: a second Ctrl-C, later, ends the process at once."""
        name = signal.Signals(number).name
        if not cls.training:
            os.write(2, f"\n{name}: stopping before the first update; nothing to save\n".encode())
            raise SystemExit(0)
        if (
            number == signal.SIGINT
            and cls.signal_number is not None
            and time.monotonic() > cls.time + 1
        ):
            raise KeyboardInterrupt
        if cls.signal_number is None:
            os.write(2, f"\n{name}: saving after this update, then stopping\n".encode())
            cls.signal_number, cls.time = number, time.monotonic()

    @classmethod
    def reset(cls) -> None:
        cls.signal_number, cls.agreed, cls.training = None, False, False


def guard_trainings(call_main: Callable) -> Callable:
    """``call_main`` whose main function, if it trains, runs inside of ``GuardedTraining``."""

    @functools.wraps(call_main)
    def guarded_call_main(cfg, main, **kwargs):
        trains = "validate_and_save" in getattr(main, "__globals__", {})
        return call_main(cfg, GuardedTraining(main) if trains else main, **kwargs)

    return guarded_call_main


class GuardedTraining:
    """``fairseq_cli.train.main`` that stops cleanly. Picklable: fairseq may run it in processes
    of its own."""

    def __init__(self, main: Callable):
        self.main = main

    def __call__(self, cfg, **kwargs) -> None:
        check_ema_options(cfg)
        first = cfg.distributed_training.distributed_rank == 0
        with (
            lock_folder(cfg.checkpoint.save_dir) if first else nullcontext()
        ):  # before anything is written there
            self.train(cfg, first, **kwargs)

    def train(self, cfg, first: bool, **kwargs) -> None:
        """Args: first: whether this is the first rank."""
        scope = self.main.__globals__  # of fairseq_cli.train, which is __main__ in most runs
        stock = scope["validate_and_save"]
        scope["validate_and_save"] = stop_when_asked(save_after_last_epoch(stock))
        self.forget_earlier_run(scope)
        marker = Path(cfg.checkpoint.save_dir) / MARKER
        here = (
            threading.current_thread() is threading.main_thread()
        )  # Python allows handlers nowhere else
        handlers = {number: signal.signal(number, Request.receive) for number in SIGNALS if here}
        try:
            begin_to_show(cfg, first)
            if first:
                remove_leftovers(cfg.checkpoint.save_dir)
                marker.unlink(missing_ok=True)
            end_with_launcher()
            self.main(cfg, **kwargs)
        except RunFinished as finished:
            logger.info("nothing left to do: %s", finished)
        except Stopped as stopped:
            logger.info("%s", stopped)
            if first:
                with replacing(marker) as file:
                    file.write(f"{stopped}\n")
            end_data_workers()
        except BaseException as error:
            end_after_other_rank(error, cfg.distributed_training.distributed_world_size)
            end_data_workers()
            raise
        finally:
            scope["validate_and_save"] = stock
            for number, handler in handlers.items():
                signal.signal(number, handler)

    @staticmethod
    def forget_earlier_run(scope: dict) -> None:
        """fairseq keeps the best score and the patience in attributes of functions."""
        Request.reset()
        ExactState.epoch_loss = None
        ExactState.early_stopping = scope["should_stop_early"]
        for function in (ExactState.early_stopping, checkpoint_utils.save_checkpoint):
            for name in ("best", "num_runs"):
                vars(function).pop(name, None)


def stop_when_asked(validate_and_save: Callable) -> Callable:
    """The end of every update. An update after which fairseq validates or saves anyway does so
    first."""

    @functools.wraps(validate_and_save)
    def wrapped(cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch):
        saves = Request.saves
        valid_losses, should_stop = validate_and_save(
            cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch
        )
        alone = trainer.data_parallel_world_size == 1
        if should_stop or not (Request.signal_number is not None if alone else Request.agreed):
            return valid_losses, should_stop
        if Request.saves == saves:
            ExactState.epoch_loss = valid_losses[0] if end_of_epoch else None
            save_last(cfg.checkpoint, trainer, epoch_itr)
        raise Stopped(
            f"stopped as asked after update {trainer.get_num_updates()}; the same command goes on"
            " from there"
        )

    return wrapped


def save_last(cfg, trainer, epoch_itr) -> None:
    """Write ``checkpoint_last.pt`` alone."""
    only_last = cfg.copy()
    with open_dict(only_last):
        only_last.update(
            no_last_checkpoints=False, no_epoch_checkpoints=True, save_interval_updates=0
        )
    checkpoint_utils.save_checkpoint(only_last, trainer, epoch_itr, None)


def send_request_along(aggregate: Callable) -> Callable:
    """Ranks add up their log figures after every batch; one more figure says who was asked to
    stop."""

    @functools.wraps(aggregate)
    def _aggregate_logging_outputs(self, logging_outputs, *extra_stats_to_sum, ignore=False):
        asked = float(Request.signal_number is not None)
        logging_outputs, sums = aggregate(
            self, logging_outputs, *extra_stats_to_sum, asked, ignore=ignore
        )
        *sums, asked = sums
        Request.agreed = Request.agreed or float(asked) > 0
        return logging_outputs, sums

    return _aggregate_logging_outputs


def count_saves(save_checkpoint: Callable) -> Callable:
    @functools.wraps(save_checkpoint)
    def wrapped(*args, **kwargs):
        Request.saves += 1
        return save_checkpoint(*args, **kwargs)

    return wrapped


def note_that_training_began(begin_epoch: Callable) -> Callable:
    @functools.wraps(begin_epoch)
    def wrapped(self, epoch):
        Request.training = True
        return begin_epoch(self, epoch)

    return wrapped


def end_data_workers() -> None:
    """Data workers are waited for when the interpreter ends, after an error for ever: it asks once,
    and they ignore that.

    The run is saved, or failed; they may go now.
    """
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # torch's handler takes a missing worker for an accident
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
