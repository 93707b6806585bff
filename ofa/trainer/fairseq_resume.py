"""The same command again goes on exactly where its run was, whichever way it ended.

fairseq restores weights, optimizer, learning rate and the place in the data. Added here: another
checkpoint is taken when ``checkpoint_last.pt`` is damaged, flags such as ``--reset-optimizer``
apply to the first start only, a finished run stays finished, and the state that fairseq forgets
(``ExactState``).
"""

import copy
import functools
import logging
import math
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fairseq import checkpoint_utils
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from omegaconf import open_dict

from ofa.checkpoints.delta import BaseNotFound
from ofa.errors import UserError
from ofa.trainer.fairseq_compat import DEFAULT_RESTORE_FILE
from ofa.trainer.fairseq_saving import CHECKPOINTS, check_space

logger = logging.getLogger(__name__)

RESETS = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
INITIAL_WEIGHTS = ("use_ema_weights_to_init_param", "use_latest_weights_to_init_ema")
STATE_KEY = "exact_state"


class RunFinished(Exception):
    """Nothing is left to do: the checkpoint is the end of the training that was asked for."""


def install() -> None:
    """Mend loading and saving; called once, when the plugin registers."""
    checkpoint_utils.load_checkpoint = go_on_with_own_run(checkpoint_utils.load_checkpoint)
    checkpoint_utils.load_checkpoint_to_cpu = hand_over(checkpoint_utils.load_checkpoint_to_cpu)
    Trainer.save_checkpoint = save_exact_state(Trainer.save_checkpoint)
    Trainer.load_checkpoint = load_exact_state(Trainer.load_checkpoint)
    Trainer._set_seed = seed_all_generators(Trainer._set_seed)


# --- which checkpoint
# -------------------------------------------------------------------------------------------


def go_on_with_own_run(load: Callable) -> Callable:
    """``checkpoint_utils.load_checkpoint`` that prefers the run of ``--save-dir`` when it was
    the same command."""

    @functools.wraps(load)
    def load_checkpoint(cfg, trainer, **kwargs):
        if not cfg.no_save:
            decided_by_first_rank(
                lambda: check_space(trainer.cfg, trainer.get_model(), cfg.save_dir), trainer
            )
        choice = (
            None
            if trainer.checkpoint_suffix
            else decided_by_first_rank(lambda: choose(cfg), trainer)
        )
        if choice is None:
            extra_state, epoch_itr = load(cfg, trainer, **kwargs)
            if cfg.finetune_from_model is None:  # which takes weights alone
                step_after_epoch(trainer, extra_state, cfg)
            return extra_state, epoch_itr
        path, same_command = choice
        trainer.goes_on = same_command
        chosen = copy.deepcopy(
            cfg
        )  # the trainer's own configuration is saved and compared at the next start
        with open_dict(chosen):
            chosen.update(restore_file=path, finetune_from_model=None)
            if same_command:
                chosen.update(dict.fromkeys(RESETS, False))
        extra_state, epoch_itr = load(chosen, trainer, **kwargs)
        step_after_epoch(trainer, extra_state, chosen)
        reason = end_of_run(trainer, epoch_itr)
        if reason:
            raise RunFinished(f"{path}: {reason}")
        return extra_state, epoch_itr

    return load_checkpoint


def step_after_epoch(trainer, extra_state: dict[str, Any] | None, cfg) -> None:
    """What the learning rate does at the end of an epoch, which comes after the checkpoint of
    that end was saved."""
    if extra_state is None or cfg.reset_lr_scheduler:
        return
    position = extra_state["train_iterator"]
    if position.get("iterations_in_epoch") == 0 and position["epoch"] > 1:
        loss = extra_state.get(STATE_KEY, {}).get("epoch_loss", extra_state.get("val_loss"))
        trainer.lr_step(position["epoch"] - 1, loss)


def decided_by_first_rank(decide: Callable[[], Any], trainer) -> Any:
    """The first rank's answer on all ranks, or its ``UserError``."""
    if trainer.data_parallel_world_size == 1:
        return decide()
    answer = None
    if trainer.data_parallel_rank == 0:
        try:
            answer = decide()
        except UserError as error:
            answer = error
    answer = distributed_utils.broadcast_object(answer, 0, trainer.data_parallel_process_group)
    if isinstance(answer, UserError):
        raise answer
    return answer


def choose(cfg) -> tuple[str, bool] | None:
    """(checkpoint of ``--save-dir`` to go on from, whether the same command wrote it); None:
    fairseq's own rules.

    Raises: UserError if there are checkpoints and none can be read.
    """
    paths = candidates(cfg.save_dir)
    if not paths:
        return None
    path, stored = first_readable(paths, getattr(cfg, "base", None))
    first_start = ("restore_file", *RESETS, *INITIAL_WEIGHTS)
    same = all(
        (getattr(stored, name, None) or False) == (getattr(cfg, name, None) or False)
        for name in first_start
    )
    if cfg.restore_file != DEFAULT_RESTORE_FILE and not same:
        hand_over.held = None
        logger.warning(
            "%s holds another run, whose checkpoints will be replaced: this one starts from %s as"
            " --restore-file says",
            cfg.save_dir,
            cfg.restore_file,
        )
        return None
    if not same and any(getattr(cfg, name) for name in RESETS):
        logger.warning(
            "%s: starting from its weights; --reset-... was not part of the command before", path
        )
    else:
        logger.info(
            "going on with the run of %s from %s; to start over, use another --save-dir or FRESH=1",
            cfg.save_dir,
            path,
        )
    return path, same


def candidates(folder: str) -> list[str]:
    """``checkpoint_last.pt`` and then the others, newest first."""
    last = Path(folder) / DEFAULT_RESTORE_FILE
    others = [path for path in Path(folder).glob(CHECKPOINTS) if path != last and path.is_file()]
    others.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return [str(path) for path in ([last] if last.is_file() else []) + others]


def first_readable(paths: list[str], base: str | None = None) -> tuple[str, Any]:
    """The first checkpoint that can be read whole, and the checkpoint options stored in it.

    Args: base: where the base of checkpoints of light tuning is now.
    """
    damages = []
    for path in paths:
        try:
            check_sums(path)
            state = checkpoint_utils.load_checkpoint_to_cpu(path, {"base": base})
        except BaseNotFound:
            raise  # no damage: an older checkpoint needs the same file
        except UserError as error:
            damages.append(str(error))
            logger.warning("skipping a damaged checkpoint: %s", error)
            continue
        if damages or Path(path).name != DEFAULT_RESTORE_FILE:
            updates = state["optimizer_history"][-1]["num_updates"]
            logger.warning(
                "falling back to %s, the newest readable checkpoint (update %d)", path, updates
            )
        hand_over.held = path, state
        return path, (state.get("cfg") or {}).get("checkpoint")
    raise UserError(
        f"{Path(paths[0]).parent}: expected a checkpoint to go on from, found only damaged ones"
        f" ({damages[0]}); copy one back, or start over with FRESH=1 or another --save-dir"
    )


def check_sums(path: str) -> None:
    """Compare the content of a checkpoint with the checksums in it, which torch writes and does not
    read.

    Raises: UserError if a part differs. Files that are no archives are left to the reader.
    """
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            damaged = error
        if damaged is not None:
            raise UserError(
                f"{path}: expected the content that was saved, found another one in {damaged}"
            )


def hand_over(read: Callable) -> Callable:
    """``load_checkpoint_to_cpu`` that does not read the chosen checkpoint a second time."""

    @functools.wraps(read)
    def load_checkpoint_to_cpu(path, *args, **kwargs):
        held, hand_over.held = hand_over.held, None
        return held[1] if held and held[0] == path else read(path, *args, **kwargs)

    return load_checkpoint_to_cpu


hand_over.held = None


def end_of_run(trainer, epoch_itr) -> str | None:
    """Why a resumed run has nothing left to do. Stock fairseq would make one more update before
    it looks."""
    limits = trainer.cfg.optimization
    updates, hours = trainer.get_num_updates(), trainer._previous_training_time / 3600
    if updates >= (limits.max_update or math.inf):
        return f"all {updates} updates are done"
    if epoch_itr.next_epoch_idx > (limits.max_epoch or math.inf):
        return f"all {limits.max_epoch} epochs are done"
    if 0 < limits.stop_time_hours < hours:
        return f"{hours:.2f} of --stop-time-hours {limits.stop_time_hours} are used"
    patience = trainer.cfg.checkpoint.patience
    if 0 < patience <= getattr(ExactState.early_stopping, "num_runs", 0):
        return f"stopped early: no better for {patience} validations"
    return None


# --- what fairseq forgets
# ---------------------------------------------------------------------------------------


class ExactState:
    """The state of a run that stock fairseq does not save.

    ========================  ======================================================================
    early_stopping            best value and count of ``--patience``
    loss_scaler               counters of the fp16 loss scaler, which decide when the scale grows
    fp32_params               master weights of fp16 and bf16 training; 16-bit copies are not enough
    epoch_loss                at the end of an epoch: what ``--lr-scheduler`` gets after the save
    task                      what the task counts (``OFATask.state_of_run``)
    ========================  ======================================================================
    """

    epoch_loss: float | None = (
        None  # of the validation that a save on request follows, which does not get it
    )
    early_stopping: Any = (
        None  # the function ``should_stop_early`` of the running command keeps its state in itself
    )

    @classmethod
    def collect(cls, trainer) -> dict[str, Any]:
        optimizer = trainer.optimizer
        state = {"early_stopping": dict(vars(cls.early_stopping)) if cls.early_stopping else {}}
        if cls.epoch_loss is not None:
            state["epoch_loss"] = cls.epoch_loss
        if trainer.cfg.common.fp16 and getattr(optimizer, "scaler", None) is not None:
            state["loss_scaler"] = dict(vars(optimizer.scaler))
        if getattr(optimizer, "fp32_params", None) is not None:
            state["fp32_params"] = [param.data.cpu() for param in master_weights(optimizer)]
        if hasattr(trainer.task, "state_of_run"):
            state["task"] = trainer.task.state_of_run()
        return state

    @classmethod
    def restore(cls, trainer, state: dict[str, Any]) -> None:
        optimizer = trainer.optimizer
        if cls.early_stopping:
            vars(cls.early_stopping).update(state.get("early_stopping", {}))
        if "loss_scaler" in state and getattr(optimizer, "scaler", None) is not None:
            vars(optimizer.scaler).update(state["loss_scaler"])
        if "task" in state and hasattr(trainer.task, "go_on"):
            trainer.task.go_on(state["task"])
        stored, params = state.get("fp32_params", []), master_weights(optimizer)
        if [param.shape for param in params] == [param.shape for param in stored]:
            for param, value in zip(params, stored):
                param.data.copy_(value)


def master_weights(optimizer) -> list:
    """The fp32 parameters of a 16-bit optimizer: one flat tensor per device, or one per
    parameter; else none."""
    params = getattr(optimizer, "fp32_params", None) or []
    return list(params.values()) if isinstance(params, dict) else list(params)


def save_exact_state(save: Callable) -> Callable:
    @functools.wraps(save)
    def save_checkpoint(self, filename, extra_state):
        if self.should_save_checkpoint_on_current_rank:
            extra_state = {**extra_state, STATE_KEY: ExactState.collect(self)}
        return save(self, filename, extra_state)

    return save_checkpoint


def load_exact_state(load: Callable) -> Callable:
    @functools.wraps(load)
    def load_checkpoint(
        self,
        filename,
        reset_optimizer=False,
        reset_lr_scheduler=False,
        optimizer_overrides=None,
        reset_meters=False,
    ):
        extra_state = load(
            self, filename, reset_optimizer, reset_lr_scheduler, optimizer_overrides, reset_meters
        )
        if reset_meters:  # another run's weights: its hours do not count for --stop-time-hours
            self._previous_training_time = 0
        if extra_state is None:
            return None
        if not reset_optimizer:
            ExactState.restore(self, extra_state.get(STATE_KEY, {}))
        if not reset_meters and "metrics" in extra_state:
            # At the start of an epoch fairseq drops all averages; those since the last log line go
            # on over it.
            metrics.load_state_dict(extra_state["metrics"])
            if extra_state["train_iterator"].get("iterations_in_epoch") == 0:
                metrics.reset_meters("train")
        if self.cfg.ema.store_ema:  # counts updates up to --ema-update-freq and is not saved
            self.ema.update_freq_counter = self.get_num_updates() % max(
                self.cfg.ema.ema_update_freq, 1
            )
        return extra_state

    return load_checkpoint


def seed_all_generators(set_seed: Callable) -> Callable:
    """Every update seeds torch; Python's generator (``sample_patch_num``) and numpy's follow."""

    @functools.wraps(set_seed)
    def _set_seed(self):
        set_seed(self)
        seed = self.cfg.common.seed + self.get_num_updates()
        random.seed(seed)
        np.random.seed(seed % 2**32)

    return _set_seed
