"""How ``OFATrainer`` resumes a run: from which checkpoint, at which row, with what fairseq forgets,
and only if the training data is still what it was.

If ``checkpoint_last.pt`` is damaged, the newest readable checkpoint takes its place. A finished run
stays finished.
"""

import copy
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

from ofa.checkpoints.read import BaseNotFound
from ofa.data.rows import RowBatches, open_rows
from ofa.errors import UserError
from ofa.io.fingerprint import sample_digest, total_bytes
from ofa.io.terminal import in_time, with_noun
from ofa.trainer.fairseq_checkpoint import CHECKPOINTS, load_checkpoint_to_cpu, prefetched
from ofa.trainer.fairseq_distributed import of_all_ranks

logger = logging.getLogger(__name__)

DEFAULT_RESTORE_FILE = "checkpoint_last.pt"
RESETS = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
INITIAL_WEIGHTS = ("use_ema_weights_to_init_param", "use_latest_weights_to_init_ema")
STATE_KEY = "exact_state"  # of ``extra_state`` in a checkpoint, as the next
DATA_KEY = "training_data"
ROWS = "rows_in_epoch"


class RunFinished(Exception):
    """Nothing is left to do: the checkpoint is the end of the training that was asked for."""


def decided_by_first_rank(decide: Callable[[], Any], trainer) -> Any:
    """The first rank's answer on all ranks, or its ``UserError``."""
    try:
        answer = decide() if trainer.data_parallel_rank == 0 else None
    except UserError as error:
        answer = error
    answer, *_ = of_all_ranks(answer)
    if isinstance(answer, UserError):
        raise answer
    return answer


# --- which checkpoint ---------------------------------------------------------------------------


def choose(cfg) -> tuple[str, bool] | None:
    """The checkpoint of ``--save-dir`` to resume from.

    Args: cfg: fairseq's options of checkpoints.
    Returns: (path, whether the same command wrote it); None: start from what the flags name.
    Raises: UserError if there are checkpoints and none can be read.
    """
    paths = candidates(cfg.save_dir)
    if not paths:
        return None
    path, stored = first_readable(paths, cfg.base)
    first = ("restore_file", *RESETS, *INITIAL_WEIGHTS)  # flags of the first start
    same = all((getattr(stored, flag, 0) or 0) == (getattr(cfg, flag, 0) or 0) for flag in first)
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
        reason = "--reset-... was not part of the command before"
        logger.warning("%s: starting from its weights; %s", path, reason)
    else:
        how = "to start over, use another --save-dir or FRESH=1"
        logger.info("continuing with the run of %s from %s; %s", cfg.save_dir, path, how)
    return path, same


def candidates(folder: str) -> list[str]:
    """``checkpoint_last.pt`` and then the others, newest first."""

    def rank(path: Path) -> tuple[bool, int, str]:
        return path.name == DEFAULT_RESTORE_FILE, path.stat().st_mtime_ns, path.name

    found = filter(Path.is_file, Path(folder).glob(CHECKPOINTS))
    return list(map(str, sorted(found, key=rank, reverse=True)))


def first_readable(paths: list[str], base: str | None = None) -> tuple[str, Any]:
    """The first checkpoint that can be read whole, and the checkpoint options stored in it.

    Args: base: where the base of delta checkpoints is now.
    Raises: UserError if all are damaged; BaseNotFound.
    """
    damages = []
    for path in paths:
        try:
            state = load_checkpoint_to_cpu(path, {"base": base})
        except BaseNotFound:
            raise  # no damage: an older checkpoint needs the same file
        except UserError as error:
            damages.append(str(error))
            logger.warning("skipping a damaged checkpoint: %s", error)
            continue
        if damages or Path(path).name != DEFAULT_RESTORE_FILE:
            update = state["optimizer_history"][-1]["num_updates"]
            reached = f"the newest readable checkpoint (update {update})"
            logger.warning("falling back to %s, %s", path, reached)
        prefetched[path] = state
        return path, (state.get("cfg") or {}).get("checkpoint")
    raise UserError(
        f"{Path(paths[0]).parent}: expected a checkpoint to continue from, found only damaged ones"
        f" ({damages[0]}); copy one back, or start over with FRESH=1 or another --save-dir"
    )


def end_of_run(trainer, epoch_itr, seconds: float) -> str | None:
    """Why nothing is left to do. Stock fairseq would make one more update before it looks.

    Args: seconds: that the run has trained.
    """
    limits, updates, hours = trainer.cfg.optimization, trainer.get_num_updates(), seconds / 3600
    if updates >= (limits.max_update or math.inf):
        return f"{with_noun(limits.max_update, 'update')} done, as --max-update says"
    if epoch_itr.next_epoch_idx > (limits.max_epoch or math.inf):
        return f"{with_noun(limits.max_epoch, 'epoch')} done, as --max-epoch says"
    if 0 < limits.stop_time_hours < hours:
        return f"the {in_time(3600 * limits.stop_time_hours)} of --stop-time-hours are over"
    patience = trainer.cfg.checkpoint.patience
    if 0 < patience <= getattr(ExtraTrainerState.early_stopping, "num_runs", 0):
        return f"no better validation, --patience {patience}"
    return None


# --- what fairseq forgets -----------------------------------------------------------------------


class ExtraTrainerState:
    """The state of a run that stock fairseq does not save."""

    early_stopping: Any = None  # ``should_stop_early`` of the program, which keeps its state itself

    @classmethod
    def counters(cls, trainer) -> dict[str, dict[str, Any]]:
        """Best value and count of ``--patience``; with fp16, when the scale of the loss grows."""
        scaler = getattr(trainer.optimizer, "scaler", None) if trainer.cfg.common.fp16 else None
        found = {"early_stopping": cls.early_stopping, "loss_scaler": scaler}
        return {name: vars(owner) for name, owner in found.items() if owner is not None}

    @classmethod
    def collect(cls, trainer) -> dict[str, Any]:
        state: dict[str, Any] = copy.deepcopy(cls.counters(trainer))
        if trainer.epoch_loss is not None:  # goes to --lr-scheduler after the save
            state["epoch_loss"] = trainer.epoch_loss
        masters = [param.data.cpu() for param in master_weights(trainer.optimizer)]
        if masters:  # their 16-bit copies are not enough
            state["fp32_params"] = trainer.divided.masters if trainer.divided else masters
        if hasattr(trainer.task, "run_state"):
            state["task"] = trainer.task.run_state()
        return state

    @classmethod
    def restore(cls, trainer, state: dict[str, Any]) -> None:
        for name, counts in cls.counters(trainer).items():
            counts.update(state.get(name, {}))
        if "task" in state and hasattr(trainer.task, "load_run_state"):
            trainer.task.load_run_state(state["task"])
        stored, params = state.get("fp32_params", []), master_weights(trainer.optimizer)
        if [param.shape for param in params] == [param.shape for param in stored]:
            for param, value in zip(params, stored):
                param.data.copy_(value)


def master_weights(optimizer) -> list:
    """The fp32 parameters of a 16-bit optimizer, one flat tensor per device or one each."""
    params = getattr(optimizer, "fp32_params", None) or []
    return list(params.values()) if isinstance(params, dict) else list(params)


class RowIterator(EpochBatchIterator):
    """fairseq's iterator over batches of rows in a fixed order, which resumes at the same row.

    It saves how many rows all processes have read, and not only how many batches this one has, so
    that the number of processes and the batch size may change. A resumed run starts with the first
    batch that has a row not read before.
    """

    def __init__(self, dataset: Any, batches: RowBatches, **options: Any):
        """Args: batches: of all processes. options: of fairseq's iterator."""
        kept = {"disable_shuffling": True, "persistent_workers": False}
        super().__init__(dataset, dataset.collater, (), **options, **kept)
        self._frozen_batches = batches  # fairseq would make a tuple of arrays of them

    def ordered_batches(self, *_: Any) -> RowBatches:
        return self.frozen_batches.of_rank(self.shard_id, self.num_shards)

    def rows_read(self, batches: int) -> int:
        """Rows that all processes together have read after this number of batches each."""
        return self.frozen_batches.rows_before(batches * self.num_shards)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if state["iterations_in_epoch"]:
            state[ROWS] = self.rows_read(state["iterations_in_epoch"])
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if ROWS in state:
            done = state[ROWS]
            batches = bisect_right(range(len(self) + 1), done, key=self.rows_read) - 1
            batches = min(batches, len(self) - 1)  # of shorter data than before the last is left
            if batches != state["iterations_in_epoch"]:
                again = done - self.rows_read(batches)
                rows, epoch = with_noun(done, "row"), state["epoch"]
                where = f"batch {batches + 1} of each process, {with_noun(again, 'row')} again"
                logger.info("epoch %d, %s read: resuming with %s", epoch, rows, where)
            state = {**state, "iterations_in_epoch": batches}
        super().load_state_dict(state)


# --- training data ------------------------------------------------------------------------------


def opened_files(task, dataset, epoch: int, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps about the training files that have been opened.

    Keys are the task's name for a file and its number among several that are taken in turn::

        {"files": {"train": 2}, "read": {"train 1": {
            "path": "a.tsv", "rows": 21, "bytes": 9130, "sample": "5d0f..."}}}

    Args: known: what it kept before.
    """
    if not hasattr(task, "training_files") or not hasattr(dataset, "row_files"):
        return dict(known)
    files = {name: len(paths) for name, paths in task.training_files().items()}
    read = dict(known.get("read", {}))
    for name, rows in dataset.row_files.items():
        read[f"{name} {(epoch - 1) % files[name] + 1}"] = {
            "path": str(rows.path),
            "rows": len(rows),
            "bytes": total_bytes(rows.files),
            "sample": sample_digest(rows.files),
        }
    return {"files": files, "read": read}


def check_unchanged(trainer, stored: Mapping[str, Any]) -> None:
    """Compare the training files with those of the checkpoint; paths may change.

    Args: stored: what ``opened_files`` gave; empty in checkpoints without it.
    Raises: UserError that says what changed, unless --allow-changed-data was given.
    """
    if not stored or not hasattr(trainer.task, "training_files"):
        return
    found = changes(trainer.task.training_files(), stored)
    if not found:
        trainer.training_data = dict(stored)
    elif not getattr(trainer.cfg.checkpoint, "allow_changed_data", False):
        raise UserError(
            f"{found[0]}. Restore the data, resume with it as it is by --allow-changed-data, or"
            " start over by FRESH=1 or another --save-dir"
        )
    for change in found:
        logger.warning("%s; resuming as --allow-changed-data says", change)


def changes(files: Mapping[str, list[str]], stored: Mapping[str, Any]) -> list[str]:
    """What differs from ``stored``, a line each. Args: files: name -> paths taken in turn."""
    counts = {name: len(paths) for name, paths in files.items()}
    if counts != stored["files"]:
        before, now = in_words(stored["files"]), in_words(counts)
        return [f"training data: expected {before} as before, found {now}"]
    read = stored["read"]
    found = (
        change_of(path, read[f"{name} {number}"])
        for name, paths in files.items()
        for number, path in enumerate(paths, 1)
        if f"{name} {number}" in read
    )
    return list(filter(None, found))


def in_words(counts: Mapping[str, int]) -> str:
    texts = (f"{count} file{'s' * (count != 1)} for {name}" for name, count in counts.items())
    return ", ".join(texts)


def change_of(path: str, entry: Mapping[str, Any]) -> str:
    """What changed in a training file, if anything. Raises: UserError if it cannot be opened."""
    rows = open_rows(path)
    size, before = total_bytes(rows.files), entry["bytes"]
    if size >= before and sample_digest(rows.files, before) == entry["sample"]:
        if size == before:
            return ""
        found = "more of them at its end"
    elif size < before:
        found = "a shorter file"
    else:
        found = "other content" + " of the same size" * (size == before)
    return (
        f"{path}: expected the {entry['rows']} rows ({before} bytes) that this run has trained on,"
        f" found {found}: {len(rows)} rows ({size} bytes)"
    )
