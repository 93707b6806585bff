"""``ofa predict``: captions, answers, regions for one image, a folder or a file of requests, as
JSON lines."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa.cli.options import load
from ofa.errors import UserError
from ofa.inference.options import ModelOptions, PrecisionOptions, generation_options
from ofa.io.flags import Parser, command, flags_of, option, options_of, words

logger = logging.getLogger(__name__)

EXAMPLE = """\
examples:
  ofa predict checkpoint_best.pt photos/                                     captions of every image
  ofa predict checkpoint_best.pt dog.jpg --question "what color is the sofa?"
  ofa predict checkpoint_best.pt dog.jpg --text "the left cushion" --draw drawn/
  ofa predict checkpoint_best.pt signs/ --task read                          the text on every image
  ofa predict checkpoint_best.pt requests.jsonl --out predictions.jsonl

A line of a .jsonl file: {"image": "a.jpg", "question": "what is it?", "region": [3, 4, 90, 80]};
paths are as seen from the file. An image that cannot be read is named and skipped (its line holds
the reason); the exit status is 1 then."""


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What to ask about an image that no line of a .jsonl file says more about."""

    TITLE = "what to ask (a line of a .jsonl file comes first)"

    task: str | None = option(None, "task, if the words below and the checkpoint do not tell")
    answers: str | None = option(None, "answers to choose from", metavar="TEXT,...")
    columns: dict[str, str] = words(
        "--COLUMN TEXT for each column that the task asks with: --question, --text, --hypothesis,"
        " --instruction, --region X0,Y0,X1,Y1, ..."
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ModelOptions, PrecisionOptions, RequestOptions):
    """A model, images and what to ask about them."""

    input: str = option(help="an image, a folder of images, or a .jsonl file", positional=True)
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
        "beam",
        "max_len_b",
        "min_len",
        "lenpen",
        "temperature",
        "no_repeat_ngram_size",
    )


def set_up(parser: Parser) -> None:
    """The flags of ``ofa predict``."""
    command(parser, PredictOptions, run, EXAMPLE)


WINDOW = 4  # batches of images in memory


def run(args: PredictOptions) -> int:
    """Ask, write, draw. Returns: 0, or 1 if images could not be read."""
    from tqdm import tqdm

    from ofa.inference.requests import read_requests, tasks_called, usual_tasks
    from ofa.io.atomic import replacing

    def read(tasks: Sequence[Any]) -> list[Any]:
        flags = flags_of(PredictOptions)
        return read_requests(args.input, tasks, args.columns, args.images, flags)

    # what is wrong is named before the checkpoint is loaded
    requests = read(tasks_called(args.task)) if args.task else []
    if args.draw:
        Path(args.draw).mkdir(parents=True, exist_ok=True)
    model = load(
        args,
        precision=args.precision,
        ans2label_file=args.ans2label_file,
        batch_size=args.batch_size,
    )
    requests = requests or read(usual_tasks(model.trained_tasks()))
    broken = 0
    with replacing(args.out) if args.out else nullcontext(sys.stdout) as file:
        with tqdm(total=len(requests), unit="image", disable=None) as bar:
            for line in lines(model, requests, args):
                broken += "error" in line
                file.write(text_of_line(line) + "\n")
                bar.update()
    if broken:
        logger.warning(
            "%d of %d images could not be read; their lines hold the reason", broken, len(requests)
        )
    return 1 if broken else 0


def text_of_line(line: dict[str, Any]) -> str:
    """A line of the output in JSON. What UTF-8 cannot hold, half of a character, stays as it
    came: an escape."""
    from ofa.io.values import SURROGATE, finite

    text = json.dumps(finite(line), ensure_ascii=False)
    return json.dumps(finite(line)) if SURROGATE.search(text) else text


def lines(model: Any, requests: Sequence[Any], args: PredictOptions) -> Iterator[dict[str, Any]]:
    """One line per request, in order."""
    from ofa.report.annotate import AnnotatedImageWriter

    drawer = AnnotatedImageWriter(args.draw) if args.draw else None
    size = WINDOW * args.batch_size
    for start in range(0, len(requests), size):
        window = requests[start : start + size]
        images = [images_of(request, args.stop_on_broken) for request in window]
        predictions = predictions_of(model, window, images, args)
        for request, image, prediction in zip(window, images, predictions):
            words = {
                name: str(word) if isinstance(word, Path) else word
                for name, word in request.words.items()
            }
            about = {"image": request.name} if request.image else {}
            about |= {"task": request.task.verb, **words, **request.kept}
            if isinstance(image, UserError):
                yield {**about, "error": str(image)}
                continue
            if drawer and image:
                about["drawn"] = drawer.draw(request, image[""], prediction)
            yield {**about, **prediction.as_json()}


def images_of(request: Any, stop_on_broken: bool) -> dict[str, Any] | UserError:
    """The images of a request as it names them, or why one cannot be read."""
    from ofa.data.load_image import from_file

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
