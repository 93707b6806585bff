"""Checkpoint + rows -> predictions, scores and the result file; by one process or many.

The rows are cut into batches first and the batches are dealt out to the processes, so every row is
predicted exactly once and in the same batch however many processes there are.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from tqdm import tqdm

from ofa.data.row_files import column_numbers
from ofa.data.shards import names_shards
from ofa.errors import UserError
from ofa.failures import message_of
from ofa.inference.image_writer import ImageWriter
from ofa.inference.options import EvaluationOptions
from ofa.inference.predictor import Predictor, cut, use_tf32
from ofa.io.image_files import list_images, readable
from ofa.io.images import encode_image, read_image_file, upright_file
from ofa.io.jobs import count_cores
from ofa.task.prediction import Prediction
from ofa.task.results import merge_predictions, write_predictions
from ofa.task.scoring import Evaluation, references_of
from ofa.task.task_spec import TaskSpec, seed_of
from ofa.tasks import declared_specs
from ofa.trainer.checks import first_row
from ofa.trainer.processes import data_workers, free_port

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 16
BASE64 = re.compile(r"[A-Za-z0-9+/=_-]{64,}")  # no words; the smallest image has more
SECONDS_TO_END = 10  # that a process which failed is given


def evaluate(options: EvaluationOptions) -> Evaluation | None:
    """Predict all rows and write ``OUT/SUBSET_predict.json``. Returns: None on the other processes
    of torchrun. Raises: UserError for anything the user can fix; nothing is written then."""
    if options.jobs == 0:  # one for each GPU
        gpus = 0 if options.device == "cpu" else torch.cuda.device_count()
        options = replace(options, jobs=max(gpus, 1))
    if options.jobs > 1 and "WORLD_SIZE" not in os.environ:
        return in_processes(options)
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")
    return in_one_line(_evaluate_rank, options, rank, world)


def _evaluate_rank(options: EvaluationOptions, rank: int, world: int) -> Evaluation | None:
    """The share of one process; the first one gathers and writes."""
    predictor, task = load(options)
    dataset = open_rows(task, options)
    references, count = None, len(dataset)
    if rank == 0:
        warn_of_another_task(options, task.spec)
        if not options.images:
            warn_of_images_elsewhere(task)
        references = references_of(task.spec, dataset.rows.texts, count, dataset.rows.where)
    writer = image_writer_of(task, options)
    out = options.out or (str(writer.folder) if writer is not None else None)
    size = options.batch_size or predictor.checkpoint.valid_batch_size or DEFAULT_BATCH_SIZE
    decoding = task.spec.decoding(task.options(), options.zero_shot)
    generation = predictor.generation(task, options.generation, options.n_best or 1)
    seeds = [seed_of(options.seed, row) for row in range(count)]
    torch.manual_seed(options.seed)
    started, batches = time.monotonic(), cut(count, size)[rank::world]
    best = options.n_best or decoding.best
    predicted = predictor.predict(
        task, dataset, batches, decoding, generation, best, seeds, workers_of(predictor, options)
    )
    found: list[tuple[int, tuple[Any, Prediction]]] = []
    with tqdm(total=count, desc=options.subset, unit="row", disable=rank > 0) as bar:
        for rows, batch, predictions in predicted:
            if task.generates_images:
                keep_images(task, batch, zip(rows, predictions), writer)
            found += zip(rows, zip(batch.get("id", rows), predictions))
            bar.update(min(len(rows) * world, bar.total - bar.n))
        bar.update(bar.total - bar.n)
    parts: Any = [found]
    if world > 1:
        parts = [None] * world if rank == 0 else None
        distributed.gather_object(found, parts)
    if rank > 0:
        return None
    merged = merge_predictions(parts, count)
    entries = [task.spec.result(row_id, prediction) for row_id, prediction in merged]
    for entry in entries if writer is not None else ():
        entry["files"] = [os.path.relpath(file, out) for file in entry["files"]]
    return Evaluation(
        spec=task.spec,
        predictions=[prediction for _, prediction in merged],
        references=references,
        row=dataset.rows.__getitem__,
        subset=options.subset,
        model=options.checkpoint,
        source=options.data or options.images or "",
        seconds=time.monotonic() - started,
        path=write_predictions(out, options.subset, entries) if out else None,
        broken=bool(getattr(dataset.file, "broken", None)),
    )


def load(options: EvaluationOptions) -> tuple[Predictor, Any]:
    """What predicts, and the task to evaluate."""
    given = {"data": None, **options.replaced}  # never the files that a checkpoint names
    given |= {
        name: getattr(options, name) for name in ("device", "precision", "ema", "task", "compile")
    }
    if options.data:
        given["data"] = options.data
    predictor = Predictor.load(options.checkpoint.split(":"), **given)
    if predictor.device.type == "cuda":
        torch.cuda.set_device(predictor.device)
        use_tf32(predictor.device)
    checkpoint = predictor.checkpoint
    return predictor, checkpoint.task(checkpoint.evaluated(options.task))


def workers_of(predictor: Predictor, options: EvaluationOptions) -> int:
    """Data workers of this process: on a GPU they read rows while it computes."""
    if options.num_workers is not None or predictor.device.type != "cuda":
        return options.num_workers or 0
    return data_workers(int(os.environ.get("LOCAL_WORLD_SIZE", options.jobs)))


def open_rows(task: Any, options: EvaluationOptions) -> Any:
    """The rows to predict: of the TSV, or one per image file of a folder."""
    # rows of the training file are evaluated as others: nothing is augmented
    split = "test" if options.subset == "train" else options.subset
    if not options.images:
        if not task.cfg.data:
            raise UserError(
                "expected a TSV file or a folder of images to evaluate, found neither; give one"
            )
        task.load_dataset(split)
        dataset = task.datasets[split]
    else:
        dataset = task.dataset_of(ImageFolder(options.images, task.spec), split)
    dataset.prepare_for_device()
    return dataset


def warn_of_another_task(options: EvaluationOptions, spec: TaskSpec) -> None:
    """Columns are read by number: a file that is called as those of another task may hold something
    else in them."""
    name = Path((options.data or "").split(",")[-1]).name
    starts = {start: one for one in declared_specs() for start in one.files}
    start = max((start for start in starts if name.startswith(f"{start}_")), key=len, default=None)
    if start is None or start in spec.files or options.selected_cols:
        return
    logger.warning(
        "%s: called as a file of task '%s', but read as rows of task '%s' (%s); give --task,"
        " another checkpoint or, if they are right, --selected-cols",
        *(name, starts[start].name, spec.name, ", ".join(spec.column_names)),
    )


def warn_of_images_elsewhere(task: Any) -> None:
    """A row may have no image; one that has it in another column is a row of another task. The
    first row of a TSV tells."""
    path = (task.cfg.data or "").split(",")[-1]
    if names_shards(path) or not Path(path).is_file():
        return
    spec, cells = task.spec, first_row(path)
    numbers = column_numbers(path, task.cfg.selected_cols or spec.default_cols, len(cells))
    images = [number for number, cell in enumerate(cells) if BASE64.fullmatch(cell)]
    for name, number in zip(spec.names_of(len(numbers), path), numbers):
        column = spec.column(name)
        if images and column and column.kind == "image" and not cells[number].strip():
            logger.warning(
                "%s:1: task '%s' expects the image in column %d, which is empty; column %d has one."
                " Give --task if these rows are of another, or their columns by --selected-cols",
                *(path, spec.name, number, images[0]),
            )


class ImageFolder:
    """The image files of a folder as rows, upright: the file's name is the id, the other columns
    are empty. ``broken``: path -> why it cannot be read, of the files that are skipped. Raises:
    UserError if there is no image or the task needs more than an image."""

    def __init__(self, folder: str, spec: TaskSpec):
        if not Path(folder).is_dir():
            raise UserError(
                f"{folder}: expected a folder of image files, found none; check --images"
            )
        if spec.needed_names or not (spec.has("id") and spec.has("image")):
            raise UserError(
                f"{folder}: task '{spec.name}' asks about more than an image"
                f" ({', '.join(spec.needed_names) or 'other columns'}); give it a TSV file with the"
                f" columns {', '.join(spec.column_names)}"
            )
        self.path, self.columns, self.image = str(folder), spec.column_names, spec.images[0].name
        self.selected_cols = list(range(len(self.columns)))
        self.files, self.broken = readable(list_images(folder))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[str]:
        path = self.files[index]
        image = encode_image(upright_file(read_image_file(path), str(path), lossless=True))
        values = {"id": path.name, self.image: image}
        return [values.get(column, "") for column in self.columns]

    def texts(self, index: int, columns: Sequence[int]) -> list[str]:
        """As ``ofa.data.tsv.TsvFile.texts``."""
        name = self.files[index].name
        return [name if self.columns[column] == "id" else "" for column in columns]

    def where(self, index: int) -> str:
        return str(self.files[index])


def image_writer_of(task: Any, options: EvaluationOptions) -> ImageWriter | None:
    """Where drawn images go; results without a folder of their own go there too. None if no
    images are made. Raises: UserError if they are asked for, but nothing makes them of codes, or
    the folder cannot be written."""
    if not task.generates_images:
        return None
    folder = task.cfg.gen_images_path
    if task.image_tokenizer is None and not folder and not task.names_scorer:
        logger.warning("no images are made: give --image-tokenizer; the results hold codes")
        return None
    task.check_tokenizer()
    folder = folder or (Path(options.out) / "images" if options.out else None)
    return ImageWriter(folder) if folder else None


@torch.inference_mode()
def keep_images(task: Any, batch: dict[str, Any], drawn: Any, writer: ImageWriter | None) -> None:
    """Drawn images, and the true ones beside them, become files. Args: drawn: rows with their
    predictions."""
    for (row, best), known, column in zip(drawn, task.rows(batch), batch["code_images"]):
        if writer is not None:
            writer.keep(row, best, task.true_image(known, column, needed=False))
        for one in (best, *best.others):
            one.image = None


# --- several processes


def in_processes(options: EvaluationOptions) -> Evaluation | None:
    """Every process takes its share; if one fails, all end. Returns: what the first one returns."""
    address = f"tcp://127.0.0.1:{free_port()}"
    threads, others = torch.get_num_threads(), options.jobs - 1
    context = torch.multiprocessing.spawn(_in_group, (options, address), nprocs=others, join=False)
    try:
        result = in_one_line(_in_group, -1, options, address)
        while not context.join():
            pass
        return result
    except RuntimeError:  # the connection to a process that ended is broken: it says why
        in_one_line(context.join, SECONDS_TO_END)
        raise
    finally:
        for process in context.processes:
            process.terminate()
        torch.set_num_threads(threads)


def _in_group(index: int, options: EvaluationOptions, address: str) -> Evaluation | None:
    """Args: index: among the other processes; -1 is the first one."""
    rank, count = index + 1, options.jobs
    if rank > 0:
        os.environ["LOCAL_RANK"] = str(rank)
        logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(max(1, count_cores() // count))
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=count)
    try:
        return _evaluate_rank(options, rank, count)
    finally:
        distributed.destroy_process_group()


def in_one_line(function: Callable[..., Any], *args: Any) -> Any:
    """Call; a UserError that comes wrapped in a worker's traceback is raised as itself."""
    try:
        return function(*args)
    except (UserError, RuntimeError, torch.multiprocessing.ProcessRaisedException) as error:
        message = message_of(error)
        if message is None:
            raise
    raise UserError(message)
