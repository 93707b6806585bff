"""A checkpoint on its device: samples of a task in, predictions out, batch by batch.

The Python API, ``ofa evaluate`` and the scores of a pretraining predict with it.
"""

import json
import logging
import os
import threading
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import DataLoader

from ofa.data.images import normalize_images
from ofa.data.sample import SampleBuilder
from ofa.devices import default_device, require_bf16
from ofa.errors import UserError
from ofa.io.checkpoint_files import check_checkpoint_file
from ofa.io.values import value_as
from ofa.models.compiling import compile_network
from ofa.models.inference_weights import inference_network, version_of_weights
from ofa.process_state import kept_process_state
from ofa.task.prediction import Prediction
from ofa.task.task_spec import TAUGHT_BY_ANY, Decoding, TaskSpec
from ofa.task.template import is_template
from ofa.tasks import declared_specs, spec_of

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What validation would compute while training; evaluation scores the whole file at the end instead.
NOT_WHILE_PREDICTING = dict.fromkeys(
    ("eval_cider", "eval_bleu", "eval_acc", "eval_rouge", "scst"), False
)
FOREIGN_TASK = "'%s' is asked of a checkpoint that was trained for %s: it may not know what to say"
UNTRAINED = {"beam": 5, "max_len_b": 30}  # a model may not know when to end
KEPT_TASKS = 32  # a service may be given other ``answers`` in every call


class Predictor:
    """The networks of a checkpoint (``ofa.inference.fairseq_loading.LoadedCheckpoint``), and what
    predicts with them. A model may be used by several threads; it may be copied and pickled."""

    def __init__(
        self,
        checkpoint,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: int = 16,
        compile: bool = False,
    ):
        self.checkpoint, self.batch_size = checkpoint, batch_size
        self.device, self.dtype = device, dtype
        for network in checkpoint.networks:
            network.to(device=device, dtype=dtype)
            if compile:
                compile_network(network, device)
        self._forget_made()

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | Sequence[str],
        bpe_dir: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
        ema: bool = False,
        base: str | Path | None = None,
        batch_size: int = 16,
        task: str | None = None,
        compile: bool = False,
        **overrides: Any,
    ) -> Self:
        """A model from a checkpoint file of this project or of upstream.

        Args:
            checkpoint: one file, or several of one vocabulary: an ensemble.
            bpe_dir: vocabulary folder; default: the one that the checkpoint names.
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, also as ``torch.device``; None: a GPU if
                there is one.
            precision: ``fp32``, ``fp16`` or ``bf16``; None: fp16 on GPUs, else fp32.
            ema: take the moving averages of the weights.
            base: base of a delta checkpoint; default: the file that the checkpoint names.
            batch_size: rows that go through the network together.
            task: the task that will be asked, if it is known.
            compile: layers of the encoder by torch.compile: for many images.
            overrides: other stored options to replace, such as ``patch_image_size=384``.

        Raises:
            UserError: if a file cannot be read, files do not fit together, or there is no such
                option.
        """
        if precision is not None and precision not in PRECISIONS:
            raise UserError(
                f"precision: expects one of {', '.join(PRECISIONS)}, found {precision!r}"
            )
        batch_size = at_least_one("batch_size", batch_size)
        paths = [checkpoint] if isinstance(checkpoint, (str, Path)) else list(checkpoint or ())
        if not paths:
            raise UserError(
                f"checkpoint: expects the path of a file, or several, found {checkpoint!r}"
            )
        for path in paths:
            check_checkpoint_file(path)
        chosen = choose_device(device, precision)
        with kept_process_state():
            from ofa import fairseq_plugin

            fairseq_plugin.register()
            from ofa.inference.fairseq_loading import LoadedCheckpoint, check_overrides

            overrides = check_overrides(str(paths[0]), overrides)
        given = {**NOT_WHILE_PREDICTING, **overrides, "base": base and str(base)}
        if bpe_dir is not None:
            given |= {"bpe_dir": str(bpe_dir), "bpe": overrides.get("bpe")}
        with kept_process_state():  # the weights that the network begins with are random numbers
            loaded = LoadedCheckpoint(list(map(str, paths)), given, ema, task)
        dtype = PRECISIONS[inference_precision(chosen, precision)]
        return cls(loaded, chosen, dtype, batch_size, compile)

    def __repr__(self) -> str:
        """``OFA('runs/a/checkpoint_best.pt', trained for caption, on cpu)``"""
        trained = ", ".join(self.checkpoint.trained) or "no task that is known"
        name = type(self).__name__
        return f"{name}({self.checkpoint.path!r}, trained for {trained}, on {self.device})"

    @property
    def network(self) -> torch.nn.Module:
        return self.checkpoint.network

    # --- what calls make and share

    def _forget_made(self) -> None:
        self._lock = threading.RLock()  # around the making; using needs none
        self._tasks: dict[tuple, Any] = {}
        self._inference: tuple[Any, list[torch.nn.Module]] = (None, [])
        self._kept: dict[int, Any] = {}  # memory and graphs of a decoder's steps

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs; what calls have made, the copy makes again."""
        made = ("_lock", "_tasks", "_inference", "_kept")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with kept_process_state():
            from ofa import fairseq_plugin

            fairseq_plugin.register()  # a process of its own may have loaded nothing yet
        vars(self).update(state)
        self._forget_made()

    def inference_networks(self) -> list[torch.nn.Module]:
        """The networks as they predict fastest, made once for all calls; again after the weights
        have changed."""
        with self._lock:
            version = tuple(map(version_of_weights, self.checkpoint.networks))
            if version != self._inference[0]:
                made = list(map(inference_network, self.checkpoint.networks))
                self._inference = version, made
            return self._inference[1]

    def task_and_builder(self, name: str, **changes: Any) -> tuple[Any, SampleBuilder]:
        """A task and what makes its samples, once for all calls that ask the same; those asked last
        are kept. Args: changes: options of the task to replace."""
        key = (name, json.dumps(changes, sort_keys=True))
        with self._lock:
            if key not in self._tasks:
                if not self.was_trained_on(name):
                    logger.warning(FOREIGN_TASK, name, ", ".join(self.checkpoint.trained))
                task = self.checkpoint.task(name, **changes)
                builder = task.builder("predict")
                builder.for_device = True
                self._tasks[key] = task, builder
            self._tasks[key] = self._tasks.pop(key)  # the last one now
            while len(self._tasks) > KEPT_TASKS:
                self._tasks.pop(next(iter(self._tasks)))
            return self._tasks[key]

    # --- what the checkpoint was trained on

    def was_trained_on(self, name: str) -> bool:
        """Whether the checkpoint was trained for what a task asks, as far as it says;
        instructions are never foreign."""
        teachers = {name, *spec_of(name).usage.taught_by}
        trained = self.checkpoint.trained.keys()
        return not trained or bool(teachers & {TAUGHT_BY_ANY, *trained})

    def trained_tasks(self) -> list[TaskSpec]:
        """The tasks that the checkpoint was trained on."""
        lines = [spec_of(name) for name in self.checkpoint.trained if is_template(name)]
        return lines + [spec for spec in declared_specs() if spec.name in self.checkpoint.trained]

    def generation(self, task: Any, given: Mapping[str, Any], best: int = 1) -> dict[str, Any]:
        """Options of the generator: those of the training's validation, else the task's usual
        ones, replaced by the given ones. Args: best: hypotheses of a row that are wanted."""
        name, usual = task.spec.name, task.spec.usage.generation
        of_language = usual.get("zh" if task.bpe.kind == "bert" else "en") or usual.get("en")
        untrained = {} if name in self.checkpoint.trained else UNTRAINED
        options = {**(self.checkpoint.generation(name) or of_language or untrained), **given}
        return {**options, "beam": max(options.get("beam", 5), best)}

    # --- predicting

    def predict(
        self,
        task: Any,
        dataset: Any,
        batches: Sequence[Any],
        decoding: Decoding,
        generation: Mapping[str, Any],
        best: int = 1,
        seeds: Sequence[int] | None = None,
        num_workers: int = 0,
    ) -> Iterator[tuple[Sequence[int], dict[str, Any], list[Prediction]]]:
        """Of each batch its rows, the batch itself and the prediction of each row.

        Args:
            dataset: ``dataset[row]`` is a sample, ``dataset.collater`` makes a batch of several.
            batches: rows that go through the network together.
            generation: options of the generator.
            best: hypotheses to keep of each row.
            seeds: of each row, for what is sampled.
            num_workers: processes that read rows.
        """
        networks = self.inference_networks()
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=min(num_workers, len(batches)),
            collate_fn=dataset.collater,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # torch's own random numbers are the caller's
        )
        for rows, batch in zip(batches, loader):
            batch = to_device(batch, self.device, self.dtype)
            if seeds is not None:
                batch["seeds"] = [seeds[row] for row in rows]
            options = dict(generation)
            prefix = None if decoding.rank else task.prefix_tokens(batch)
            if prefix is not None:
                batch["prefix_tokens"] = prefix
                if "max_len_b" in options:  # callers mean what comes behind the prompt
                    options["max_len_b"] += prefix.size(1)
            generator = task.generator_for(networks, Namespace(**options), decoding)
            generator.kept = self._kept
            with torch.inference_mode():
                predictions = task.predict(batch, networks, generator, decoding, best)
            yield rows, batch, predictions  # outside: what the caller does in between is not ours


def at_least_one(name: str, value: Any) -> int:
    """An argument that counts something. Raises: UserError if it is no integer from 1 on."""
    number = value_as(name, value, int)
    if number < 1:
        raise UserError(f"{name}: expects an integer of at least 1, found {number}")
    return number


def cut(count: int, size: int) -> list[range]:
    """Numbers of rows as batches."""
    return [range(count)[start : start + size] for start in range(0, count, size)]


def choose_device(
    name: str | torch.device | None = None, precision: str | None = None
) -> torch.device:
    """The device of a name: cpu, cuda, cuda:1, mps; auto or None for a GPU if there is one, else
    the CPU. Several processes (``LOCAL_RANK``) take turns on the GPUs.

    Raises: UserError if this build of torch cannot use the GPU, or the GPU has no such precision.
    """
    name = default_device() if name in (None, "auto") else str(name)
    if name == "cpu" or name == "mps" and torch.backends.mps.is_available():
        return torch.device(name)
    if name.partition(":")[0] not in ("cuda", "mps"):
        raise UserError(f"device: expected auto, cpu, cuda, cuda:1 or mps, found '{name}'")
    if not name.startswith("cuda") or not torch.cuda.is_available():
        raise UserError(
            f"device '{name}': expected a GPU of this kind, found none; leave the option out or use"
            " --device cpu"
        )
    count = torch.cuda.device_count()
    taken = int(os.environ.get("LOCAL_RANK", 0)) % count
    device = torch.device("cuda", taken) if name == "cuda" else torch.device(name)
    if device.index is not None and device.index >= count:
        raise UserError(
            f"device '{name}': expected the number of a GPU, from 0 to {count - 1}; use --device"
            " cuda"
        )
    if precision == "bf16":
        require_bf16(device)
    return device


def inference_precision(device: torch.device, wanted: str | None = None) -> str:
    """The number format of a network that predicts: the one wanted; else fp16 on NVIDIA GPUs, as
    upstream evaluates, and nearer to fp32 than bf16 by three bits; fp32 elsewhere."""
    if wanted is not None:
        return wanted
    return "fp16" if device.type == "cuda" else "fp32"


def use_tf32(device: torch.device) -> None:
    """From now on products and convolutions of float32 may round their factors to 10 bits on a
    GPU: up to eight times as fast. For commands: it changes the process."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


def to_device(batch: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """A batch on the device, its images normalized. What the network sees has its precision; boxes
    and confidences keep theirs: in half precision a corner would be off by a pixel or more.

    Pinned memory is copied while the device computes.
    """
    overlaps = device.type == "cuda"

    def moved(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: value.to(device, non_blocking=overlaps) if torch.is_tensor(value) else value
            for key, value in values.items()
        }

    there = normalize_images({**moved(batch), "net_input": moved(batch["net_input"])})
    seen = {
        key: value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value
        for key, value in there["net_input"].items()
    }
    return {**there, "net_input": seen}
