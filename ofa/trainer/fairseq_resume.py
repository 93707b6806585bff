"""What a run resumes from, and the state that fairseq forgets; ``OFATrainer`` loads both.

Another checkpoint is taken when ``checkpoint_last.pt`` is damaged, flags such as
``--reset-optimizer`` apply to the first start of a command only, and a finished run stays finished.
"""

import copy
import logging
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairseq.distributed import utils as distributed_utils
from omegaconf import open_dict

from ofa.checkpoints.delta import BaseNotFound
from ofa.errors import UserError
from ofa.trainer.fairseq_read_checkpoint import load_checkpoint_to_cpu, prefetched
from ofa.trainer.fairseq_saving import CHECKPOINTS

logger = logging.getLogger(__name__)

DEFAULT_RESTORE_FILE = "checkpoint_last.pt"
RESETS = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
INITIAL_WEIGHTS = ("use_ema_weights_to_init_param", "use_latest_weights_to_init_ema")
STATE_KEY = "exact_state"


class RunFinished(Exception):
    """Nothing is left to do: the checkpoint is the end of the training that was asked for."""


def decided_by_first_rank(decide: Callable[[], Any], trainer) -> Any:
    """The first rank's answer on all ranks, or its ``UserError``."""
    if trainer.data_parallel_world_size == 1:
        return decide()
    try:
        answer = decide() if trainer.data_parallel_rank == 0 else None
    except UserError as error:
        answer = error
    answer = distributed_utils.broadcast_object(answer, 0, trainer.data_parallel_process_group)
    if isinstance(answer, UserError):
        raise answer
    return answer


# --- which checkpoint ---------------------------------------------------------------------------


def choose(cfg) -> tuple[str, bool] | None:
    """The checkpoint of ``--save-dir`` to resume from; None: the one that the flags name.

    Args: cfg: fairseq's options of checkpoints.
    Returns: its path, and whether the same command wrote it.
    Raises: UserError if there are checkpoints and none can be read.
    """
    paths = candidates(cfg.save_dir)
    if not paths:
        return None
    path, stored = first_readable(paths, cfg.base)
    first_start = ("restore_file", *RESETS, *INITIAL_WEIGHTS)
    same = all(
        (getattr(stored, name, 0) or 0) == (getattr(cfg, name, 0) or 0) for name in first_start
    )
    if cfg.restore_file != DEFAULT_RESTORE_FILE and not same:
        prefetched.clear()
        logger.warning(
            "%s holds another run, whose checkpoints will be replaced: this one starts from %s as "
            "--restore-file says",
            cfg.save_dir,
            cfg.restore_file,
        )
        return None
    if not same and any(getattr(cfg, name) for name in RESETS):
        logger.warning(
            "%s: starting from its weights; --reset-... was not part of the command before", path
        )
    else:
        how = "to start over, use another --save-dir or FRESH=1"
        logger.info("continuing with the run of %s from %s; %s", cfg.save_dir, path, how)
    return path, same


def options_to_resume(cfg, path: str, same_command: bool):
    """The options of checkpoints with which fairseq loads ``path``. A copy: the run's own are
    saved, and compared at the next start. Flags such as ``--reset-optimizer`` apply to the first
    start of a command alone."""
    chosen = copy.deepcopy(cfg)
    with open_dict(chosen):
        chosen.update(restore_file=path, finetune_from_model=None)
        if same_command:
            chosen.update(dict.fromkeys(RESETS, False))
    return chosen


def candidates(folder: str) -> list[str]:
    """``checkpoint_last.pt`` and then the others, newest first."""
    last = Path(folder) / DEFAULT_RESTORE_FILE
    others = [path for path in Path(folder).glob(CHECKPOINTS) if path != last and path.is_file()]
    others.sort(key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return [str(path) for path in ([last] if last.is_file() else []) + others]


def first_readable(paths: list[str], base: str | None = None) -> tuple[str, Any]:
    """The first checkpoint that can be read whole, and the checkpoint options stored in it. Args:
    base: where the base of checkpoints of parameter-efficient tuning is now."""
    damages = []
    for path in paths:
        try:
            check_sums(path)
            state = load_checkpoint_to_cpu(path, {"base": base})
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
        prefetched[path] = state
        return path, (state.get("cfg") or {}).get("checkpoint")
    raise UserError(
        f"{Path(paths[0]).parent}: expected a checkpoint to continue from, found only damaged ones"
        f" ({damages[0]}); copy one back, or start over with FRESH=1 or another --save-dir"
    )


def check_sums(path: str) -> None:
    """Compare the content of a checkpoint with the checksums in it, which torch writes and does not
    read. Raises: UserError if a part differs. Files that are no archives are left to the reader."""
    if not zipfile.is_zipfile(path):
        return
    damaged: object
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        damaged = error
    if damaged is not None:
        raise UserError(
            f"{path}: expected the content that was saved, found another one in {damaged}"
        )


def end_of_run(trainer, epoch_itr) -> str | None:
    """Why nothing is left to do. Stock fairseq would make one more update before it looks."""
    limits = trainer.cfg.optimization
    updates, hours = trainer.get_num_updates(), trainer._previous_training_time / 3600
    if updates >= (limits.max_update or math.inf):
        return f"all {updates} updates are done"
    if epoch_itr.next_epoch_idx > (limits.max_epoch or math.inf):
        return f"all {limits.max_epoch} epochs are done"
    if 0 < limits.stop_time_hours < hours:
        return f"{hours:.2f} of --stop-time-hours {limits.stop_time_hours} are used"
    patience = trainer.cfg.checkpoint.patience
    if 0 < patience <= getattr(ExtraTrainerState.early_stopping, "num_runs", 0):
        return f"stopped early: no better for {patience} validations"
    return None


# --- what fairseq forgets -----------------------------------------------------------------------


class ExtraTrainerState:
    """The state of a run that stock fairseq does not save.

    * ``early_stopping``: best value and count of ``--patience``
    * ``loss_scaler``: counters of the fp16 loss scaler, which decide when the scale grows
    * ``fp32_params``: master weights of fp16 and bf16; their 16-bit copies are not enough
    * ``epoch_loss``: what the validation of an epoch gives to ``--lr-scheduler`` after the save
    * ``task``: what the task counts (``OFATask.run_state``)
    """

    early_stopping: Any = None  # ``should_stop_early`` of the program, which keeps its state itself

    @classmethod
    def collect(cls, trainer) -> dict[str, Any]:
        optimizer = trainer.optimizer
        state: dict[str, Any] = {
            "early_stopping": dict(vars(cls.early_stopping)) if cls.early_stopping else {}
        }
        if trainer.epoch_loss is not None:
            state["epoch_loss"] = trainer.epoch_loss
        if trainer.cfg.common.fp16 and getattr(optimizer, "scaler", None) is not None:
            state["loss_scaler"] = dict(vars(optimizer.scaler))
        if getattr(optimizer, "fp32_params", None) is not None:
            state["fp32_params"] = [param.data.cpu() for param in master_weights(optimizer)]
        if hasattr(trainer.task, "run_state"):
            state["task"] = trainer.task.run_state()
        return state

    @classmethod
    def restore(cls, trainer, state: dict[str, Any]) -> None:
        optimizer = trainer.optimizer
        if cls.early_stopping:
            vars(cls.early_stopping).update(state.get("early_stopping", {}))
        if "loss_scaler" in state and getattr(optimizer, "scaler", None) is not None:
            vars(optimizer.scaler).update(state["loss_scaler"])
        if "task" in state and hasattr(trainer.task, "load_run_state"):
            trainer.task.load_run_state(state["task"])
        stored, params = state.get("fp32_params", []), master_weights(optimizer)
        if [param.shape for param in params] == [param.shape for param in stored]:
            for param, value in zip(params, stored):
                param.data.copy_(value)


def master_weights(optimizer) -> list:
    """The fp32 parameters of a 16-bit optimizer, one flat tensor per device or one each."""
    params = getattr(optimizer, "fp32_params", None) or []
    return list(params.values()) if isinstance(params, dict) else list(params)
