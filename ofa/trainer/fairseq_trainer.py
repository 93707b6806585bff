"""fairseq's trainer, whose runs resume exactly: what this project adds to it, in the order in which
it happens."""

import copy
import functools
import logging
import math
import os
import random
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from fairseq import utils
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from omegaconf import DictConfig, open_dict

from ofa.data.images import normalize_images
from ofa.errors import UserError
from ofa.models.compiling import compile_network
from ofa.trainer import fairseq_checkpoint as checkpoints
from ofa.trainer import fairseq_optim as optim
from ofa.trainer import fairseq_resume as resume
from ofa.trainer import fairseq_weights as weights
from ofa.trainer.fairseq_adam import use_few_operators
from ofa.trainer.fairseq_console import Progress, on_host, rows_of
from ofa.trainer.fairseq_distributed import Request, mark, without_fairscale
from ofa.trainer.nonfinite import look_at_losses, report_non_finite
from ofa.trainer.patch import specialize

if TYPE_CHECKING:  # what divides a run among processes is imported when one is: half a second
    from ofa.trainer.fairseq_fully_sharded import DividedNetwork

logger = logging.getLogger(__name__)

BOXES = ("w_resize_ratios", "h_resize_ratios", "region_coords")  # of a batch: measures, no input


class OFATrainer(Trainer):
    """Makes the updates of a training, and saves and restores all that it consists of."""

    resumes = False  # the run whose checkpoint it loaded; the same command wrote it
    base: Optional[weights.Base] = None  # what checkpoints leave out
    # of the validation that a save on request follows, which does not get it
    epoch_loss: Optional[float] = None
    saves = 0  # how often this run has been saved
    divided: Optional["DividedNetwork"] = None  # with --ddp-backend fully_sharded, once it trains

    def __init__(self, cfg, task, model, criterion, quantizer=None):
        metric = cfg.checkpoint.best_checkpoint_metric  # a typo would be a KeyError after an epoch
        known = task.metric_names() if hasattr(task, "metric_names") else [metric]
        if not cfg.dataset.disable_validation and metric not in known:
            raise UserError(
                f"--best-checkpoint-metric: task '{cfg.task._name}' validates "
                f"{', '.join(sorted(known))}; found '{metric}'. Choose one of these, or switch the "
                "metric on (for example --eval-cider)."
            )
        super().__init__(cfg, task, model, criterion, quantizer)
        if cfg.common.compile:
            compile_network(self.get_model(), self.device)
        self.progress = Progress(self)
        self.training_data: dict[str, Any] = {}  # what checkpoints tell of it (``opened_files``)

    # --- start and resume -----------------------------------------------------------------------

    def start(self, load, options: DictConfig, **iterator_options) -> tuple[Optional[dict], Any]:
        """Load the checkpoint that this run starts from or resumes, if there is one.

        The run in ``--save-dir`` goes before the file of the flags if the command is the same.
        Args: load: fairseq's ``checkpoint_utils.load_checkpoint``: calls ``load_checkpoint`` below,
        then ``get_train_iterator`` with ``iterator_options``. options: fairseq's of checkpoints.
        Returns: the extra state of the checkpoint, and the iterator over what is left to read.
        Raises: RunFinished if nothing is left to do. UserError.
        """
        if not options.no_save:
            space = functools.partial(
                checkpoints.check_space, self.cfg, self.get_model(), options.save_dir
            )
            resume.decided_by_first_rank(space, self)
        choice = None
        if not self.checkpoint_suffix:
            choice = resume.decided_by_first_rank(functools.partial(resume.choose, options), self)
        if choice is not None:
            path, self.resumes = choice
            options = copy.deepcopy(options)  # the run's own are saved, and compared at the next
            with open_dict(options):
                options.update(restore_file=path, finetune_from_model=None)
                if self.resumes:  # flags such as --reset-optimizer apply to the first start alone
                    options.update(dict.fromkeys(resume.RESETS, False))
        extra_state, batches = load(options, self, **iterator_options)
        starts_anew = options.reset_lr_scheduler or options.finetune_from_model is not None
        if extra_state is not None and not starts_anew:
            # what the learning rate does at the end of an epoch, which comes after it was saved
            position, exact = extra_state["train_iterator"], extra_state.get(resume.STATE_KEY, {})
            if position.get("iterations_in_epoch") == 0 and position["epoch"] > 1:
                loss = exact.get("epoch_loss", extra_state.get("val_loss"))
                self.lr_step(position["epoch"] - 1, loss)
        seconds = self._previous_training_time
        if choice is not None and (finished := resume.end_of_run(self, batches, seconds)):
            raise resume.RunFinished(f"{path}: {finished}")
        return extra_state, batches

    def load_checkpoint(self, filename, reset_optimizer=False, *more, reset_meters=False):
        """Load a checkpoint. Returns: its extra state; None if there is no file."""
        if os.path.isfile(filename):
            flags = self.cfg.checkpoint
            if self.is_data_parallel_master or flags.load_checkpoint_on_all_dp_ranks:
                state = checkpoints.load_checkpoint_to_cpu(filename, {"base": flags.base})
                weights.arrange_weights(state, self.cfg, filename, self.resumes)
                self.base = weights.find_base(self.get_model(), filename, state, flags)
                checkpoints.prefetched[filename] = state
        assert self.divided is None, "a network that is divided among processes loads nothing"
        try:
            extra_state = super().load_checkpoint(
                filename, reset_optimizer, *more, reset_meters=reset_meters
            )
        except AssertionError as error:
            raise optim.mismatch(filename, error) from None
        if reset_meters:  # another run's weights: its hours do not count for --stop-time-hours
            self._previous_training_time = 0
        if extra_state is None:
            return None
        if not reset_optimizer:
            exact = extra_state.get(resume.STATE_KEY, {})
            if self.divided:
                self.divided.cut_masters(exact)
            resume.ExtraTrainerState.restore(self, exact)
        if not reset_meters and "metrics" in extra_state:
            # fairseq drops all averages at the start of an epoch; those of a log line outlast it.
            metrics.load_state_dict(extra_state["metrics"])
            if extra_state["train_iterator"].get("iterations_in_epoch") == 0:
                metrics.reset_meters("train")
        if self.cfg.ema.store_ema:
            # counts on towards --ema-update-freq
            counted = self.get_num_updates() % max(self.cfg.ema.ema_update_freq, 1)
            self.ema.update_freq_counter = counted
        if self.resumes:
            resume.check_unchanged(self, extra_state.get(resume.DATA_KEY) or {})
        return extra_state

    # --- save -----------------------------------------------------------------------------------

    def consolidate_optimizer(self) -> None:
        """Called by fairseq on every rank before the run is saved, and on one that failed, which
        the others, whose moments it would need, do not wait for."""
        if self.sharding != "none" and (error := sys.exc_info()[1]) is not None:
            raise error
        self.saves += 1
        super().consolidate_optimizer()
        if self.divided:
            self.divided.gather(self)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self.divided:
            self.divided.complete(state)
        weights.leave_base_out(state, self.get_model(), self.base)
        return state

    def save_checkpoint(self, filename, extra_state):
        """Write a checkpoint, whole or not at all. Returns: its path; None on other ranks."""
        if not self.should_save_checkpoint_on_current_rank:
            return None
        path = os.path.abspath(filename)
        logger.info("Saving checkpoint to %s", path)
        state = utils.move_to_cpu(self.state_dict())
        own = {
            resume.STATE_KEY: resume.ExtraTrainerState.collect(self),
            resume.DATA_KEY: self.training_data,
        }
        state["extra_state"].update(extra_state | own)
        checkpoints.save_whole(state, filename)
        logger.info("Finished saving checkpoint to %s", path)
        return path

    # --- updates --------------------------------------------------------------------------------

    def get_train_iterator(self, epoch, combine=True, load_dataset=True, **kwargs):
        """The batches of an epoch; the schedule learns how many there are."""
        batches = super().get_train_iterator(epoch, combine, load_dataset, **kwargs)
        prepare_for_device(batches.dataset)
        if load_dataset:
            dataset = self.task.dataset(self.cfg.dataset.train_subset)
            self.training_data = resume.opened_files(self.task, dataset, epoch, self.training_data)
        self.progress.updates = total = optim.count_updates(len(batches), self.cfg.optimization)
        self.progress.epochs = optim.last_epoch(len(batches), self.cfg.optimization)
        schedule = self.lr_scheduler
        if isinstance(schedule, optim.WarmupRatioSchedule) and not schedule.knows_total:
            known = schedule.total_num_update if total == math.inf else int(total)
            schedule.reinit(known, self.get_num_updates())
        return batches

    def get_valid_iterator(self, subset, **kwargs):
        batches = super().get_valid_iterator(subset, **kwargs)
        prepare_for_device(batches.dataset)
        return batches

    def begin_epoch(self, epoch) -> None:
        Request.training = True
        super().begin_epoch(epoch)
        self.progress.begin()

    def train_step(self, samples, raise_oom=False):
        """One update. Raises: UserError if a loss or gradient is not finite."""
        rows = rows_of(samples)
        generates = getattr(self.cfg.task, "scst", False)
        with report_non_finite(self, samples), self.progress.utilization.counted(rows):
            with self.gathered(self._model) if generates else nullcontext():
                log = super().train_step(samples, raise_oom)
        self.progress.log(rows)
        return log

    def valid_step(self, sample, raise_oom=False):
        averages = [self.ema.get_model()] if getattr(self.task, "uses_ema", False) else []
        with report_non_finite(self), self.gathered(self._model, *averages):
            return super().valid_step(sample, raise_oom)

    @property
    def sharding(self) -> str:
        """What each process keeps a part of: "none"; "os", the moments; "full", weights and
        gradients as well."""
        alone = self.data_parallel_world_size == 1
        return "none" if alone else self.cfg.distributed_training.zero_sharding

    @property
    def model(self) -> Any:
        if self.sharding == "full" and self._wrapped_model is None:
            return self._model  # whole, until there is an optimizer
        return super().model

    def gathered(self, *networks: Any) -> AbstractContextManager:
        """Inside, each process has whole weights."""
        if self.sharding != "full":
            return nullcontext()
        from ofa.trainer.fairseq_fully_sharded import gathered

        return gathered(*networks)

    def _build_optimizer(self) -> None:
        if self.sharding == "full" and self.divided is None:
            if self._ema is None:
                self._build_ema()
            from ofa.trainer.fairseq_fully_sharded import DividedNetwork

            group = self.data_parallel_process_group
            self.divided = DividedNetwork(self._model, group, self.device.type)
        if self.divided:
            self._wrapped_model = self.divided.parts  # what the optimizer gets
        with without_fairscale(self.cfg):
            super()._build_optimizer()
        use_few_operators(self._optimizer)
        if self.sharding == "os":
            from ofa.trainer.fairseq_sharding import shard_moments

            shard_moments(self._optimizer, self.data_parallel_process_group)
        specialize(self._lr_scheduler, optim.ExactPlateauSchedule)
        self._optimizer.load_state_dict = functools.partial(optim.load_fitting, self._optimizer)
        if self.divided:
            self.divided.adopt(self._optimizer)
            self._wrapped_model = self._model

    def _build_ema(self) -> None:
        if self.cfg.ema.store_ema:
            device = None if self.sharding == "full" else self.device  # later: only a part of it
            self._ema = weights.ModelAverages(self._model, self.cfg.ema, device)

    def _set_seed(self) -> None:
        """Seed torch for an update, Python's generator (``sample_patch_num``) and numpy's too."""
        super()._set_seed()
        seed = self.cfg.common.seed + self.get_num_updates()
        random.seed(seed)
        np.random.seed(seed % 2**32)

    def clip_grad_norm(self, clip_norm):
        norm = super().clip_grad_norm(clip_norm)
        if getattr(self.optimizer, "scaler", None) is None:  # else later: the update is skipped
            look_at_losses()  # here, where fairseq waits for the norm anyway
        return norm

    def _prepare_sample(self, sample, is_dummy=False):
        """Returns: the batch, and whether it is a filler that counts as nothing."""
        if sample and hasattr(self._criterion, "prepare") and not isinstance(sample, str):
            sample = self._criterion.prepare(sample, self.model.training)
        prepared, is_filler = super()._prepare_sample(sample, is_dummy)
        marks = is_filler and self.model.training and hasattr(self.task, "spec")
        return (mark(prepared), False) if marks else (prepared, is_filler)

    def _fp_convert_sample(self, sample):
        """Images normalized; floats rounded for ``--fp16`` and ``--bf16``, but no boxes: they would
        move by pixels."""
        sample = normalize_images(sample)
        converted = super()._fp_convert_sample(sample)
        if isinstance(sample, dict):
            converted.update({key: sample[key] for key in BOXES if key in sample})
        return converted

    def _aggregate_logging_outputs(self, logging_outputs, *extra_stats_to_sum, ignore=False):
        """Sum figures over the ranks; one more of them tells who was asked to stop."""
        asked = float(Request.signal_number is not None)
        logging_outputs, sums = super()._aggregate_logging_outputs(
            logging_outputs, *extra_stats_to_sum, asked, ignore=ignore
        )
        *sums, asked = sums
        Request.agreed = Request.agreed or float(asked) > 0
        return logging_outputs, sums

    def _reduce_and_log_stats(self, logging_outputs, sample_size, grad_norm=None):
        """Log what an update or a batch of a validation gave; its figures come by one copy."""
        logging_outputs, grad_norm = on_host([logging_outputs, grad_norm])
        return super()._reduce_and_log_stats(logging_outputs, sample_size, grad_norm)


def prepare_for_device(dataset: Any) -> None:
    """Images travel to the device as uint8 and are normalized there (``_fp_convert_sample``)."""
    if hasattr(dataset, "prepare_for_device"):  # a task may be one of fairseq's own
        dataset.prepare_for_device()
