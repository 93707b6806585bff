"""Checkpoint + rows -> predictions, scores and the result file; by one process or many.

    evaluation = evaluate(
        EvaluationOptions(checkpoint="checkpoint_best.pt", data="caption_test.tsv", out="results")
    )

The rows are cut into batches first and the batches are dealt out to the processes, so every row is
predicted exactly once and in the same batch however many processes there are.
"""

import logging
import os
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from tqdm import tqdm

from ofa.devices import default_device, require_bf16
from ofa.errors import UserError
from ofa.inference.image_folder import ImageFolder
from ofa.inference.image_writer import ImageWriter
from ofa.inference.options import EvaluationOptions
from ofa.inference.processes import gathered, in_one_line, in_processes
from ofa.io.json_files import load_json
from ofa.models.inference_weights import inference_network
from ofa.process_state import kept_process_state
from ofa.task.prediction import Prediction
from ofa.task.results import check_folder, merge_predictions, write_predictions
from ofa.task.scoring import references_of
from ofa.task.task_spec import Decoding, seed_of

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DEFAULT_BATCH_SIZE = 16
# What validation would compute while training; evaluation scores the whole file at the end instead.
NOT_WHILE_EVALUATING = {
    "eval_cider": False,
    "eval_bleu": False,
    "eval_acc": False,
    "eval_rouge": False,
    "scst": False,
}


@dataclass
class Evaluation:
    """The outcome, in the order of the rows.

    Args:
        entries: what the result file holds.
        predictions: the best one per row, with the others that were asked for.
        references: what the file holds per row (``TaskSpec.row_references``), empty for rows
            without; None if no row has any.
        task, dataset: for those who want to look at rows and images again.
    """

    entries: list[dict[str, Any]]
    predictions: list[Prediction]
    references: list[Any] | None
    task: Any
    dataset: Any
    seconds: float
    result_path: Path | None = None

    @property
    def texts(self) -> list[str]:
        """The predictions in words."""
        return [prediction.text for prediction in self.predictions]


def evaluate(options: EvaluationOptions) -> Evaluation | None:
    """Predict all rows and write ``OUT/SUBSET_predict.json``.

    Returns: the outcome on the first process; None on the other processes of torchrun.
    Raises: UserError for anything the user can fix; nothing is written then.
    """
    if options.jobs > 1:
        return in_processes(options.jobs, _evaluate_rank, options)
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return in_one_line(_evaluate_rank, options, rank, world)


# ---------------------------------------------------------------------------------------- one
# process


def _evaluate_rank(options: EvaluationOptions, rank: int, world: int) -> Evaluation | None:
    """The share of one process; the first one gathers and writes."""
    if options.out and rank == 0:
        check_folder(options.out)
    device = choose_device(options.device, rank, options.precision)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    task, models, stored = load(options, device)
    dataset = open_rows(task, options)
    references = (
        references_of(task.spec, dataset.rows.texts, len(dataset), dataset.rows.where)
        if rank == 0
        else None
    )
    batch_size = (
        options.batch_size
        or stored.get("dataset", {}).get("batch_size_valid")
        or DEFAULT_BATCH_SIZE
    )
    decoding = task.spec.decoding(task.options(), options.zero_shot)
    generator = task.generator_for(
        models, Namespace(**generation_options(options, stored)), decoding
    )
    writer = image_writer_of(task, options)
    if writer is not None and not options.out:
        options = replace(options, out=str(writer.folder))
    torch.manual_seed(options.seed)
    started = time.monotonic()
    batches = [
        range(start, min(start + batch_size, len(dataset)))
        for start in range(0, len(dataset), batch_size)
    ]
    found = []
    with tqdm(total=len(dataset), desc=options.gen_subset, unit="row", disable=rank > 0) as bar:
        for rows, hypotheses in predict(
            task, models, generator, decoding, dataset, batches[rank::world], options, writer
        ):
            found += hypotheses
            bar.update(min(len(rows) * world, bar.total - bar.n))
        bar.update(bar.total - bar.n)
    parts = gathered(found, rank, world)
    if rank > 0:
        return None
    merged = merge_predictions(parts, len(dataset))
    entries = [one["entry"] for one in merged]
    evaluation = Evaluation(
        entries,
        [one["prediction"] for one in merged],
        references,
        task,
        dataset,
        time.monotonic() - started,
    )
    if options.out:
        evaluation.result_path = write_predictions(options.out, options.gen_subset, entries)
    return evaluation


def choose_device(name: str | None = None, rank: int = 0, precision: str = "fp32") -> torch.device:
    """The device of a name; several processes take turns on the GPUs.

    Args: name: cpu, cuda, cuda:1, mps; auto or None for a CUDA GPU if there is one, else the CPU.
    Raises: UserError if this build of torch cannot use a GPU that is there, or the GPU not this
        precision.
    """
    if name in (None, "auto"):
        name = default_device()
    if name == "cpu" or name == "mps" and torch.backends.mps.is_available():
        return torch.device(name)
    if not str(name).startswith("cuda") or not torch.cuda.is_available():
        raise UserError(
            f"device '{name}': expected a GPU of this kind, found none; leave the option out or use"
            " --device cpu"
        )
    count = torch.cuda.device_count()
    taken = int(os.environ.get("LOCAL_RANK", rank)) % count
    device = torch.device("cuda", taken) if name == "cuda" else torch.device(str(name))
    if device.index is not None and device.index >= count:
        raise UserError(
            f"device '{name}': expected the number of a GPU, from 0 to {count - 1}; use --device"
            " cuda"
        )
    if precision == "bf16":
        require_bf16(device)
    return device


def load(
    options: EvaluationOptions, device: torch.device
) -> tuple[Any, list[torch.nn.Module], dict]:
    """Task, models for inference on their device in the chosen precision, and the stored
    configuration."""
    overrides = {**NOT_WHILE_EVALUATING, **options.replaced}
    if options.data or "data" not in overrides:  # never the files that a checkpoint names
        overrides["data"] = options.data
    with kept_process_state():
        from ofa import fairseq_plugin

        fairseq_plugin.register()
        from ofa.inference.fairseq_loading import load_task_and_models
    with kept_process_state():
        task, models, stored = load_task_and_models(
            options.checkpoint.split(":"), options.task, overrides, options.ema
        )
    return (
        task,
        [
            inference_network(model.to(device=device, dtype=PRECISIONS[options.precision]))
            for model in models
        ],
        stored,
    )


def generation_options(options: EvaluationOptions, stored: dict) -> dict[str, Any]:
    """The stored ``--eval-args`` of training, then what the caller gives."""
    try:
        trained_with = load_json(stored.get("task", {}).get("eval_args") or "{}")
    except ValueError:
        trained_with = {}
    return {**trained_with, **options.generation}


def open_rows(task, options: EvaluationOptions):
    """The rows to predict: of the TSV, or one per image file of a folder."""
    if not options.images:
        if not task.cfg.data:
            raise UserError(
                "expected a TSV file or a folder of images to evaluate, found neither; give one"
            )
        task.load_dataset(options.gen_subset)
        return task.datasets[options.gen_subset]
    from ofa.data.fairseq_dataset import OFADataset
    from ofa.data.sample import SampleBuilder

    rows: Any = ImageFolder(options.images, task.spec)
    return OFADataset(
        rows,
        SampleBuilder(
            task.spec, task.cfg, task.vocabulary, task.bpe, options.gen_subset, options.seed
        ),
    )


def image_writer_of(task, options: EvaluationOptions) -> ImageWriter | None:
    """Where drawn images go; results without a folder of their own go there too. None if no
    images are made.

    Raises: UserError if images are asked for, but nothing makes them of codes, or the folder
    cannot be written.
    """
    if not task.draws:
        return None
    folder = getattr(task.cfg, "gen_images_path", None)
    if task.image_tokenizer is None and not folder and not task.names_scorer:
        logger.warning("no images are made: give --image-tokenizer; the results hold codes")
        return None
    task.check_tokenizer()
    folder = folder or (Path(options.out) / "images" if options.out else None)
    return ImageWriter(folder) if folder else None


def predict(
    task,
    models,
    generator,
    decoding: Decoding,
    dataset,
    batches: Sequence[Any],
    options: EvaluationOptions,
    writer: ImageWriter | None = None,
) -> Iterator[tuple[range, list[tuple[int, dict]]]]:
    """Per batch: its rows, and ``(row, {"entry": ..., "prediction": ...})`` of each."""
    loader = torch.utils.data.DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collater, num_workers=options.num_workers
    )
    device = next(models[0].parameters()).device
    for rows, batch in zip(batches, loader):
        batch = {
            **to_device(batch, device, PRECISIONS[options.precision]),
            "seeds": [seed_of(options.seed, row) for row in rows],
        }
        with torch.inference_mode():
            predictions = task.predict(
                batch, models, generator, decoding, options.n_best or decoding.best
            )
            keep_images(task, batch, rows, predictions, writer)
        ids = batch.get("id", rows)
        found = [
            (row, {"entry": task.spec.result(row_id, prediction), "prediction": prediction})
            for row, row_id, prediction in zip(rows, ids, predictions)
        ]
        if writer is not None:
            for _, one in found:
                one["entry"]["files"] = [
                    os.path.relpath(file, options.out) for file in one["entry"]["files"]
                ]
        yield rows, found


def keep_images(
    task,
    batch: dict[str, Any],
    rows: range,
    predictions: list[Prediction],
    writer: ImageWriter | None,
) -> None:
    """Drawn images, and the true ones beside them, become files."""
    if not task.draws:
        return
    for row, known, column, prediction in zip(
        rows, task.rows(batch), batch["code_images"], predictions
    ):
        if writer is not None:
            writer.keep(row, prediction, task.true_image(known, column, needed=False))
        for one in (prediction, *prediction.others):
            one.image = None


def to_device(batch: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """A batch on the device. What the network sees has its precision; boxes and confidences keep
    theirs: in half precision a corner would be off by a pixel or more.
    """
    moved = {
        key: value.to(device) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }
    moved["net_input"] = {
        key: (
            value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            if isinstance(value, torch.Tensor)
            else value
        )
        for key, value in batch["net_input"].items()
    }
    return moved
