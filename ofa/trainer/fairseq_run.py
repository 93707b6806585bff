"""The run that makes the updates of a training, from the lock on its folder to its last checkpoint,
whichever way it ends."""

import copy
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from fairseq import checkpoint_utils
from omegaconf import open_dict

from ofa.errors import UserError
from ofa.io.atomic import remove_abandoned, replacing
from ofa.io.folder_lock import lock_folder
from ofa.trainer.fairseq_console import Outcome, announce, log_best, write_config
from ofa.trainer.fairseq_distributed import (
    Request,
    Stopped,
    end_after_other_rank,
    end_data_workers,
    end_with_launcher,
    of_all_ranks,
    wait_at_most,
)
from ofa.trainer.fairseq_resume import ExtraTrainerState, RunFinished, end_of_run
from ofa.trainer.fairseq_tensorboard import begin_to_show
from ofa.trainer.fairseq_trainer import OFATrainer
from ofa.trainer.patch import Patch, around
from ofa.trainer.processes import MARKER


def replace_trainer(stock: type) -> type:
    """``fairseq_cli.train`` makes the trainer by this name: ours, which restores runs exactly."""
    return OFATrainer


@around
def end_update(stock, cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch):
    """fairseq's loop calls nothing else at the end of an update, where a run can stop. An update
    after which it validates or saves anyway does so first."""
    saves = trainer.saves
    is_last_epoch = epoch_itr.epoch == cfg.optimization.max_epoch
    if end_of_epoch and is_last_epoch:
        # validates and saves, as at --max-update; fairseq would ask the intervals alone, and with
        # --save-interval 5 --max-epoch 3 save nothing
        listed = epoch_itr.epoch % cfg.checkpoint.save_interval == 0  # these keep their number
        cfg = copy.deepcopy(cfg)
        with open_dict(cfg):
            cfg.checkpoint.no_epoch_checkpoints |= not listed
            cfg.checkpoint.save_interval = cfg.dataset.validate_interval = 1
    losses, should_stop = stock(cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch)
    Outcome.updates, Outcome.planned = trainer.get_num_updates(), trainer.progress.updates
    if trainer.saves > saves and losses[0] is not None:
        if losses[0] == checkpoint_utils.save_checkpoint.best:
            Outcome.best_update = Outcome.updates
    if should_stop or end_of_epoch and is_last_epoch:
        Outcome.reason = end_of_run(trainer, epoch_itr, trainer.cumulative_training_time())
    alone = trainer.data_parallel_world_size == 1
    asked = Request.signal_number is not None if alone else Request.agreed
    if should_stop or not asked:
        return losses, should_stop
    if trainer.saves == saves:
        trainer.epoch_loss = losses[0] if end_of_epoch else None
        only_last = cfg.checkpoint.copy()
        with open_dict(only_last):
            only_last.no_last_checkpoints, only_last.no_epoch_checkpoints = False, True
            only_last.save_interval_updates = 0
        checkpoint_utils.save_checkpoint(only_last, trainer, epoch_itr, None)
    done = trainer.get_num_updates()
    stopped = f"stopped as asked after update {done}; the same command continues from there"
    if trainer.is_data_parallel_master:
        name = signal.Signals(Request.signal_number or signal.SIGTERM).name
        with replacing(Path(cfg.checkpoint.save_dir) / MARKER) as file:
            file.write(f"{name}: {stopped}\n")
    of_all_ranks(None)  # where the other ranks end, a launcher may end this one: it has to be saved
    raise Stopped(stopped)


PROGRAM_PATCHES = (
    Patch("fairseq_cli.train", "Trainer", replace_trainer),
    Patch("fairseq_cli.train", "validate_and_save", end_update),
)


class GuardedTraining:
    """``fairseq_cli.train.main`` that stops cleanly. Picklable: fairseq may run it in processes of
    its own. The module of ``main`` is ``__main__`` in most runs."""

    def __init__(self, main: Callable):
        self.main = main

    def __call__(self, cfg, **kwargs) -> None:
        if getattr(cfg.task, "uses_ema", False) and not cfg.ema.store_ema:
            expected = "expects averaged weights to validate with, found no --store-ema"
            raise UserError(f"--uses-ema: {expected}; add that flag")
        wait_at_most(cfg.distributed_training.distributed_timeout)
        first = cfg.distributed_training.distributed_rank == 0
        # The lock comes before anything is written into the folder.
        with lock_folder(cfg.checkpoint.save_dir) if first else nullcontext(), Request.awaited():
            self.train(cfg, first, **kwargs)

    def train(self, cfg, first: bool, **kwargs) -> None:
        program = self.main.__globals__  # in a process that fairseq starts a copy of the module's
        for patch in PROGRAM_PATCHES:
            patch.apply_to(program)
        ExtraTrainerState.early_stopping = program["should_stop_early"]
        # fairseq keeps the best score and the patience of an earlier run in these
        for function in (program["should_stop_early"], checkpoint_utils.save_checkpoint):
            for name in ("best", "num_runs"):
                vars(function).pop(name, None)
        marker = Path(cfg.checkpoint.save_dir) / MARKER
        Outcome.reset()
        try:
            begin_to_show(cfg, first)
            if first:
                write_config(cfg)
                # what a killed process had not finished writing; what a live one is writing stays
                for part in remove_abandoned(cfg.checkpoint.save_dir, "checkpoint*"):
                    announce(f"removed {part}, which was not finished")
                marker.unlink(missing_ok=True)
            end_with_launcher()
            self.main(cfg, **kwargs)
            log_best(cfg)
            announce(Outcome.last_line(cfg))
        except RunFinished as finished:
            log_best(cfg)
            announce(f"nothing left to do: {finished}")
        except Stopped as stopped:
            announce(str(stopped))
        except BaseException as error:
            end_after_other_rank(error, cfg.distributed_training.distributed_world_size)
            raise
        finally:
            end_data_workers()
