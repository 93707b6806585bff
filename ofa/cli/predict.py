"""A model at work: ``ofa predict | draw | demo``."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ofa.errors import UserError
from ofa.inference.options import ModelOptions, PrecisionOptions, generation_options, task_options
from ofa.io.flags import action, flags_of, option, options_of
from ofa.io.terminal import with_noun
from ofa.io.text_files import read_lines
from ofa.trainer.processes import data_workers

logger = logging.getLogger(__name__)

WINDOW = 4  # batches of images in memory
DRAWN_WITH = """
    code_image_size image_tokenizer vqgan_model_path vqgan_config_path clip_model_path
    image_text_scorer
""".split()


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    TITLE = "what to ask (a line of a .jsonl file comes first)"

    task: str | None = option(None, "task, if the words below and the checkpoint do not tell")
    answers: str | None = option(None, "answers to choose from", metavar="TEXT,...")
    columns: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "words": "--COLUMN TEXT for each column that the task asks with: --question, --text,"
            " --hypothesis, --instruction, --region X0,Y0,X1,Y1, ..."
        },
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ModelOptions, PrecisionOptions, RequestOptions):
    input: tuple[str, ...] = option(
        help="images, folders of images, or .jsonl files", positional=True
    )
    images: tuple[str, ...] = option(
        (), "folder of images for lines of a .jsonl file; may be repeated", repeat=True
    )
    out: str | None = option(None, "JSON lines to write as a whole, instead of printing them")
    draw: str | None = option(None, "folder for the images with boxes and texts drawn on them")
    n_best: int = option(1, "predictions per request, with scores", least=1, also=("--best",))
    stop_on_broken: bool = option(False, "end at an image that cannot be read")
    ans2label_file: str | None = option(None, "answer set, if it has moved since training")
    batch_size: int = option(16, "images at a time", least=1)
    generation: dict[str, Any] = options_of(
        generation_options,
        *"beam max_len_b min_len lenpen temperature no_repeat_ngram_size".split(),
    )


@dataclass(frozen=True, kw_only=True)
class DrawOptions(ModelOptions, PrecisionOptions):
    text: tuple[str, ...] = option((), "captions", positional=True)
    texts: str | None = option(None, "further captions, one per line")
    out: str = option(help="folder for the images")
    samples: int = option(16, "images per caption", least=1)
    seed: int = option(7, "seed of the samples")
    batch_size: int = option(4, "captions at a time", least=1)
    image_options: dict[str, Any] = options_of(task_options, *DRAWN_WITH)
    generation: dict[str, Any] = options_of(
        generation_options, "sampling_topk", "sampling_topp", "temperature"
    )


@dataclass(frozen=True, kw_only=True)
class DemoOptions(ModelOptions, PrecisionOptions):
    ans2label_file: str | None = option(None, "answer set, if it has moved since training")
    image_tokenizer: str | None = option(
        None, "image tokenizer to generate images: tokenizer.pt, or model.yaml and last.ckpt"
    )
    tasks: tuple[str, ...] = option((), "tasks of the page, if not those that the model knows")
    port: int | None = option(None, "port of the page, if not the first free one from 7860")
    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0: whoever reaches this machine")
    allow_host: tuple[str, ...] = option((), "another name of the host; repeatable", repeat=True)
    no_browser: bool = option(False, "only print the address")


def load(options: ModelOptions, **overrides: Any) -> Any:
    """The model of a command. Args: overrides: as of ``OFA.load``; None counts as left out."""
    from ofa.io.checkpoint_files import check_checkpoint_file

    check_checkpoint_file(options.checkpoint)  # before torch is loaded
    from ofa.inference.api import OFA
    from ofa.inference.predictor import use_tf32

    names = "bpe_dir", "device", "ema", "base", "precision", "ans2label_file"
    given = {name: getattr(options, name, None) for name in names} | overrides
    known = {name: value for name, value in given.items() if value is not None}
    model = OFA.load(options.checkpoint, **known)
    use_tf32(model.device)
    return model


@action
def predict(args: PredictOptions) -> int:
    """Captions, answers, regions for images, folders or files of requests, as JSON lines.

    examples:
      ofa predict checkpoint_best.pt photos/                                 captions of every image
      ofa predict checkpoint_best.pt a.jpg b.jpg photos/*.png                in this order
      ofa predict checkpoint_best.pt dog.jpg --question "what color is the sofa?"
      ofa predict checkpoint_best.pt dog.jpg --text "the left cushion" --draw drawn/
      ofa predict checkpoint_best.pt signs/ --task read                      the text on every image
      ofa predict checkpoint_best.pt requests.jsonl --out predictions.jsonl

    A line of a .jsonl file, with paths as seen from the file:

      {"image": "a.jpg", "question": "what is it?", "region": [3, 4, 90, 80]}

    An image that cannot be read is named and skipped (its line holds the reason); the exit status
    is 1 then.
    """
    from tqdm import tqdm

    from ofa.inference.requests import check_source, read_requests, tasks_called, usual_tasks
    from ofa.io.atomic import replacing
    from ofa.io.checkpoint_files import check_checkpoint_file

    def read(tasks: Sequence[Any]) -> list[Any]:
        flags = flags_of(PredictOptions)
        return read_requests(args.input, tasks, args.columns, args.images, flags)

    # what is wrong is named before torch and the checkpoint are loaded
    asked = tasks_called(args.task) if args.task else []
    check_checkpoint_file(args.checkpoint)
    for source in args.input:
        check_source(source)
    requests = read(asked) if asked else []
    if args.draw:
        Path(args.draw).mkdir(parents=True, exist_ok=True)
    model = load(args, batch_size=args.batch_size)
    requests = requests or read(usual_tasks(model.trained_tasks()))
    broken = 0
    with replacing(args.out) if args.out else nullcontext(sys.stdout) as file:
        lines = lines_of(model, requests, args)
        for line in tqdm(lines, total=len(requests), unit="image", disable=None):
            broken += "error" in line
            file.write(text_of_line(line) + "\n")
    if broken:
        logger.warning(
            "%d of %s without an answer; the lines hold the reason",
            *(broken, with_noun(len(requests), "request")),
        )
    return 1 if broken else 0


def text_of_line(line: dict[str, Any]) -> str:
    """A line of the output in JSON. What UTF-8 cannot hold, half of a character, stays as it
    came: an escape."""
    from ofa.io.values import SURROGATE, finite

    text = json.dumps(finite(line), ensure_ascii=False)
    return json.dumps(finite(line)) if SURROGATE.search(text) else text


def lines_of(model: Any, requests: Sequence[Any], args: PredictOptions) -> Iterator[dict[str, Any]]:
    """One line per request, in order."""
    from ofa.report.annotate import AnnotatedImageWriter

    drawer = AnnotatedImageWriter(args.draw) if args.draw else None
    threads = data_workers(1) if model.device.type == "cuda" else 0
    for window, images in windows_of(
        requests, WINDOW * args.batch_size, args.stop_on_broken, threads
    ):
        predictions = predictions_of(model, window, images, args)
        for request, image, prediction in zip(window, images, predictions):
            about = {"image": request.name} if request.image else {}
            about["task"] = request.task.verb
            for name, word in request.words.items():
                about[name] = str(word) if isinstance(word, Path) else word
            about |= request.kept
            if isinstance(image, UserError):
                yield {**about, "error": str(image)}
                continue
            if drawer and image:
                about["drawn"] = drawer.draw(request, image[""], prediction)
            yield {**about, **prediction.as_json()}


def windows_of(
    requests: Sequence[Any], size: int, stop_on_broken: bool, threads: int
) -> Iterator[tuple[Sequence[Any], list[dict[str, Any] | UserError]]]:
    """Some requests at a time with their images, as ``images_of``. Args: threads: read those of the
    next requests meanwhile; 0: nobody does."""
    windows = [requests[start : start + size] for start in range(0, len(requests), size)]
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        read = pool.map if threads else map  # at once, or when the images are asked for
        opened = partial(images_of, stop_on_broken=stop_on_broken)
        begun = ((window, read(opened, window)) for window in windows)
        ahead = next(begun, None)
        while ahead is not None:
            (window, images), ahead = ahead, next(begun, None)
            yield window, list(images)


def images_of(request: Any, stop_on_broken: bool) -> dict[str, Any] | UserError:
    """The images of a request as it names them, or why one cannot be read."""
    from ofa.data.images import from_file

    try:
        return {name: from_file(path, str(path)) for name, path in request.images.items()}
    except UserError as error:
        if stop_on_broken:
            raise
        logger.warning("skipped: %s", error)
        return error


def predictions_of(
    model: Any, requests: Sequence[Any], images: Sequence[Any], args: PredictOptions
) -> list[Any]:
    """The model's prediction for each request; requests of one kind are asked together."""
    predictions: list[Any] = [None] * len(requests)
    kinds: dict[tuple, list[int]] = {}
    for row, request in enumerate(requests):
        if not isinstance(images[row], UserError):
            kinds.setdefault(request.kind, []).append(row)
    for (_, *names), rows in kinds.items():
        task = requests[rows[0]].task
        columns = {
            name: [images[row].get(name, requests[row].words[name]) for row in rows]
            for name in names
        }
        shown = [images[row][""] for row in rows] if task.has("image") else None
        choices = args.answers.split(",") if args.answers and task.answers is not None else []
        answers = [text.strip() for text in choices] or None
        found = model.ask_columns(
            task.name, shown, columns, args.n_best, answers, **args.generation
        )
        for row, prediction in zip(rows, found):
            predictions[row] = prediction
    return predictions


@action
def draw(args: DrawOptions) -> None:
    """Captions -> images.

    examples:
      ofa draw checkpoint_best.pt "a small red circle" --image-tokenizer tokenizer.pt --out drawn
      ofa draw checkpoint_best.pt --texts captions.txt --samples 24 --image-tokenizer vqgan/ \\
          --clip-model-path ViT-B-16.pt --out drawn

    DIR gets every image (all_results, top1), a sheet of all samples per caption, and
    draw_predict.json that names them. A scorer (--clip-model-path or --image-text-scorer) puts
    those first that fit their caption best.
    """
    from tqdm import tqdm

    from ofa.inference.image_writer import ImageWriter
    from ofa.io.image_grid import grid
    from ofa.task.results import write_predictions
    from ofa.tasks import spec_of

    given = [*args.text, *(read_lines(args.texts) if args.texts else ())]
    captions = [text.strip() for text in given if text.strip()]
    if not captions:
        raise UserError(
            "expected captions to draw, found none; give them as arguments, or in a file by --texts"
        )
    entries, writer, result = [], ImageWriter(args.out), spec_of("draw").result
    model = load(args, batch_size=args.batch_size, **args.image_options)
    drawn = model.drawings(captions, args.samples, args.seed, **args.generation)
    bar = tqdm(drawn, total=len(captions), unit="caption", disable=None)
    for row, prediction in enumerate(bar):
        sheet = grid([one.image for one in (prediction, *prediction.others)])
        writer.write(f"{writer.keep(row, prediction)}.png", sheet)
        entry = result(row, prediction)
        files = [str(Path(file).relative_to(writer.folder)) for file in entry["files"]]
        entries.append({**entry, "files": files})
    print(f"images: {write_predictions(args.out, 'draw', entries)}")


@action
def demo(args: DemoOptions) -> None:
    """A page in the browser on which a model can be tried; until Ctrl-C.

    examples:
      ofa demo checkpoint_best.pt
      ofa demo checkpoint_best.pt --image-tokenizer tokenizer.pt --tasks caption draw
      ofa demo ofa_base.pt --bpe-dir BPE --device cpu --port 8000 --no-browser

    The page is seen from this machine alone and loads nothing from elsewhere. Ctrl-C ends it.
    """
    from ofa.io.checkpoint_files import check_checkpoint_file

    check_checkpoint_file(args.checkpoint)  # before gradio and torch are loaded
    from ofa.demo.app import check_address, open_browser, serve

    check_address(args.host, args.port)
    from ofa.demo.service import Demo

    shown = Demo(load(args, image_tokenizer=args.image_tokenizer), args.tasks)
    page = serve(shown, args.host, args.port, args.allow_host)
    print(f"{shown.subtitle()}\nopen {page.local_url} in a browser; Ctrl-C ends it", flush=True)
    if args.host not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("--host %s: everyone who reaches this machine can use the page", args.host)
    if not args.no_browser:
        open_browser(str(page.local_url))
    page.block_thread()
