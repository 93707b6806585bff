"""What the page of ``ofa demo`` does: from an image's file and a text to what is shown.

A task of the page is any task that is asked with texts; its key is the method of ``OFA`` that it
calls: ``Demo(OFA.load(path)).predict("answer", "dog.jpg", "what color is it?")``.
"""

import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image, ImageOps

from ofa.data.images import from_file
from ofa.errors import UserError
from ofa.inference.api import DRAW, OFA
from ofa.inference.predictions import Answer, Region
from ofa.inference.requests import Request
from ofa.report.annotate import PREDICTED, Mark, annotated, draw_boxes
from ofa.report.page import data_url, rendered
from ofa.synthetic.shapes import Scene, make_scene, render
from ofa.synthetic.shapes_language import ENGLISH, drawing_caption
from ofa.task.columns import Column
from ofa.task.task_spec import TaskSpec
from ofa.task.template import is_template
from ofa.tasks import caption, declared_specs, refcoco, spec_of

logger = logging.getLogger(__name__)

# sides of shown images, pixels; smaller ones are enlarged with hard edges
LARGEST, SMALLEST = (1200, 224)
LETTERS = 20_000  # longer texts are refused before they are cut into tokens
MOST_ANSWERS, MOST_IMAGES, MOST_SEED = 10, 16, 2**63 - 1
NOTHING = "(nothing)"
SEED, SPLIT, SIDE = 5, "demo", 256  # of the examples; pixels
PRETRAINING = "unify_task"
ANSWER_LEGEND = (
    "Score: log-probability, averaged over the pieces of an answer; of answers chosen from a list,"
    " of the whole answer. Confidence: its exponential."
)
FIT_LEGEND = "Fit: how well image and text agree, as the scorer judges; higher is better."
DRAWN_LEGEND = "Score: log-probability, averaged over the codes of an image."


def page_tasks(trained: Sequence[TaskSpec] = ()) -> dict[str, TaskSpec]:
    """Every task that is asked with texts, by its verb, or by its name where several share a
    verb; those that most checkpoints know first."""
    specs = sorted((*trained, *declared_specs()), key=lambda spec: not spec.usage.taught_by)
    specs = [spec for spec in specs if all(column.kind == "text" for column in texts_of(spec))]
    verbs = Counter(spec.verb for spec in specs)
    return {spec.name if verbs[spec.verb] > 1 else spec.verb: spec for spec in specs}


def texts_of(spec: TaskSpec) -> list[Column]:
    """What a task is asked with."""
    return [column for column in spec.asked if column.needed]


@dataclass
class DemoResult:
    """What is shown of an answer."""

    heading: str = ""  # the best answer, in large type
    rows: dict[str, float] = field(default_factory=dict)  # answer -> score or NaN, best first
    column: str = "Answer"  # head of the column of answers
    image: Image.Image | None = None  # with the box that was found
    alt: str = ""  # the same in words
    drawn: list[tuple[Image.Image, str]] = field(default_factory=list)  # with a line about each
    legend: str = ANSWER_LEGEND  # of the numbers


class Demo:
    """The tasks of a page, asked of one model.

    Args:
        wanted: tasks; default: those that most checkpoints know, those that the model was trained
            for, and drawing if a tokenizer is at hand.
    Attributes: tasks: those of the page by key. first: the key of the one to begin with.
    Raises: UserError if drawing is wanted and cannot be done, or a task is unknown.
    """

    def __init__(self, model: OFA, wanted: Sequence[str] = ()):
        self.model = model
        trained = model.checkpoint.trained
        known = page_tasks([spec_of(name) for name in trained if is_template(name)])
        keys = {name: key for key, spec in reversed(known.items()) for name in spec.names}
        keys |= {key: key for key in known}
        unknown = [name for name in wanted if name not in keys]
        if unknown:
            raise UserError(f"--tasks: expects some of {', '.join(known)}, found {unknown[0]!r}")
        chosen = [keys[name] for name in wanted] or [
            key for key, spec in known.items() if self.is_usual(spec)
        ]
        self.tasks = {key: spec for key, spec in known.items() if key in chosen}
        for spec in self.tasks.values():
            if spec.generates_images:
                model.checkpoint.task(spec.name).check_tokenizer()
        able = [key for key, spec in self.tasks.items() if model.was_trained_on(spec.name)]
        self.first = (able or list(self.tasks))[0]

    def is_usual(self, spec: TaskSpec) -> bool:
        """Whether the page offers a task that nobody asks for: what most checkpoints know, and
        what this one was trained for; drawing where there is a tokenizer."""
        checkpoint = self.model.checkpoint
        if spec.generates_images:
            tokenizer = checkpoint.config(DRAW).get("image_tokenizer")
            given = checkpoint.overrides.get("image_tokenizer")
            return bool(tokenizer and (given or Path(tokenizer).exists()))
        return bool(spec.usage.taught_by) or spec.name in checkpoint.trained

    def subtitle(self) -> str:
        """``checkpoint_best.pt · trained for captions · 10.3 million parameters · CPU``."""
        name, known = Path(self.model.checkpoint.path).name, set(self.model.checkpoint.trained)
        size = sum(parameter.numel() for parameter in self.model.network.parameters()) / 1e6
        device = self.model.device.type.replace("cuda", "GPU").replace("cpu", "CPU")
        trained = "pretrained" if known == {PRETRAINING} else f"trained for {self.trained()}"
        return f"{name} · {trained} · {size:.1f} million parameters · {device}"

    def trained(self) -> str:
        nouns = {spec.name: spec.noun for spec in declared_specs()} | {PRETRAINING: "pretraining"}
        found = [nouns.get(name, name) for name in self.model.checkpoint.trained]
        return ", ".join(found) or "tasks that it does not name"

    def note(self, key: str) -> str:
        """What to know before a task is asked; nothing if the model was trained for it."""
        spec = self.tasks[key]
        if self.model.was_trained_on(spec.name):
            return ""
        return (
            f"This checkpoint was trained for {self.trained()}, not for {spec.noun}: what it says"
            " here may mean nothing."
        )

    def example_texts(self, number: int, key: str) -> list[str]:
        """What to ask about the image of an example."""
        columns = texts_of(self.tasks[key])
        language = "zh" if self.model.checkpoint.bpe.kind == "bert" else "en"
        found = questions_about(number, language).get(key)
        return [found] if found and len(columns) == 1 else [column.example for column in columns]

    def ask(self, *request: Any, **settings: Any) -> str:
        """The result as HTML, or what is wrong. Arguments as of ``predict``."""
        started = time.monotonic()
        try:
            result = self.predict(*request, **settings)
        except UserError as error:
            return message(str(error))
        except Exception:  # of ours or of the machine (memory): the page continues
            logger.exception("'%s' failed", request[0])
            return message(
                "Something went wrong inside the program. The terminal in which ofa demo runs has"
                " the details."
            )
        return rendered(
            "ofa.demo",
            "demo_result.html",
            result=result,
            seconds=time.monotonic() - started,
            url=partial(data_url, largest=LARGEST),
            number=number,
            percent=percent,
        )

    def check(self, path: str | None) -> str:
        """HTML that says what is wrong with an image; nothing if it is fine or there is none
        yet."""
        try:
            if path is not None:
                image_of(path)
        except UserError as error:
            return message(str(error))
        return ""

    def predict(
        self,
        key: str,
        path: str | None,
        texts: str | Sequence[str] = "",
        best: int = 5,
        samples: int = 4,
        seed: int = 7,
    ) -> DemoResult:
        """What the model predicts.

        Args:
            path: of the image's file, for tasks about images. texts: one for each column that
                it asks with. best: answers. samples, seed: of drawn images.
        Raises: UserError with what is missing or wrong.
        """
        best = integer("number of answers", best, 1, MOST_ANSWERS)
        samples = integer("number of images", samples, 1, MOST_IMAGES)
        seed = integer("seed", seed or 0, 0, MOST_SEED)
        spec = self.tasks[key]
        if spec.has("image") and path is None:
            raise UserError(
                "There is no image yet. Upload one, paste one, or choose one of the examples."
            )
        typed = texts if isinstance(texts, (list, tuple)) else [texts]
        given = {
            column.public_name: self.checked(spec, column, text)
            for column, text in zip(texts_of(spec), typed, strict=False)
        }
        if spec.generates_images:
            (text,) = given.values()
            images: Any = self.model.draw(text, samples, seed)
            return drawn(images)
        file = Path(path or "")
        image = image_of(str(file)) if spec.has("image") else None
        found = getattr(self.model, key)(image, *given.values(), best=best)
        return answered(found, image, Request(spec, file, file.name, given))

    def checked(self, spec: TaskSpec, column: Column, text: str) -> str:
        """The text without spaces around it. Raises: UserError if it is empty, or longer than
        what the model reads."""
        text = (text or "").strip()
        if not text:
            hint = f", for example: {column.example}" if column.example else ""
            raise UserError(f"The {column.public_name} is empty. Type one{hint}")
        config = self.model.checkpoint.config(spec.name)
        most, words = int(config.get("max_src_length", 128)), len(text.split())
        if words > most:
            raise UserError(
                f"The text has {words} words; this checkpoint reads at most {most}. Shorten it."
            )
        # start and end; what a prompt needs besides, the network predicts
        room = int(config.get("max_source_positions", 1024)) - 2
        if len(text) > LETTERS or len(self.model.checkpoint.bpe.encode(f" {text}").split()) > room:
            raise UserError(
                f"The text is too long: this checkpoint reads at most {room} pieces of words."
                " Shorten it."
            )
        return text


def integer(name: str, value: Any, least: int, most: int) -> int:
    """Raises: UserError if it is no integer from ``least`` to ``most``: a request may hold what
    the page does not offer."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise UserError(f"The {name} has to be a number from {least} to {most}.")
    return int(value)


def image_of(path: str) -> Image.Image:
    """The image of a file, the right way up. Raises: UserError in words for somebody who has
    just chosen it."""
    name = Path(path).name
    try:
        return from_file(Path(path), name)
    except UserError as error:
        logger.info("skipped: %s", error)
        raise UserError(
            f"{name} cannot be read as an image. Is it damaged, or too large, or no image?"
            " Export it as JPEG or PNG and try again."
        ) from None


def answered(found: Answer | Region, image: Image.Image | None, request: Request) -> DemoResult:
    """Different answers, or boxes, best first; the image with the box of the first."""
    rows: dict[str, float] = {}
    for one in (found, *found.others):
        rows.setdefault(in_words(one), one.score)
    if isinstance(found, Answer):
        result = DemoResult(in_words(found), rows)
        if found.region is not None and image is not None:
            result.image = draw_boxes(image, [Mark(found.region.box, "", PREDICTED)])
            result.alt = "the image with the region that was named"
        return result
    if found.bins is None or image is None:
        return DemoResult("The model named no region.", rows, "Region")
    column = f"Left, top, right, bottom in pixels of {image.width} × {image.height}"
    alt = f"the image with a box: {' '.join(map(str, request.words.values()))}"
    return DemoResult("", rows, column, annotated(request, image, found), alt)


def in_words(found: Answer | Region) -> str:
    if isinstance(found, Region):
        return ", ".join(str(round(one)) for one in found.box) if found.bins else "no region"
    return str(found) or NOTHING


def drawn(images: Sequence[Image.Image]) -> DemoResult:
    """Images, best first, with what they were judged by."""
    fits, scores = ([image.info[name] for image in images] for name in ("clip_score", "score"))
    judged = all(fit is not None and math.isfinite(fit) for fit in fits)
    lines = [f"fit {fit:.2f}" for fit in fits] if judged else [f"score {number(s)}" for s in scores]
    small = max(1, -(-SMALLEST // max(images[0].size)))
    large = [ImageOps.scale(image, small, Image.Resampling.NEAREST) for image in images]
    return DemoResult(drawn=list(zip(large, lines)), legend=FIT_LEGEND if judged else DRAWN_LEGEND)


def number(score: float) -> str:
    """``−0.46``"""
    return f"{score:.2f}".replace("-", "−")


def percent(score: float) -> float | None:
    """Of a log-probability, if there is one."""
    return 100 * math.exp(min(score, 0.0)) if math.isfinite(score) else None


def message(text: str) -> str:
    """HTML of something that the user can fix."""
    return str(Markup('<p class="ofa-message" role="alert">{}</p>').format(text))


# --- images to try a model with when none is at hand


def example_image(number: int) -> Image.Image:
    """Args: number: from 0, without an end. The same number is always the same image."""
    return render(scene_of(number), SIDE)


def questions_about(number: int, language: str = "en") -> dict[str, str]:
    """What to ask about an example, by method of ``OFA``; statements are true of every other
    example alone."""
    scene = scene_of(number)
    stated = scene if number % 2 == 0 else scene_of(number + 1)
    region = ENGLISH.expressions(scene)[0][0]
    prompt = caption.PROMPTS[language] if number % 2 else refcoco.PROMPTS[language].format(region)
    return {
        "answer": ENGLISH.questions(scene)[0][0],
        "ground": region,
        "entails": ENGLISH.captions(stated)[0],
        "draw": drawing_caption(scene),
        "generate": prompt.strip(),
    }


@cache
def scene_of(number: int) -> Scene:
    """The scene of an example: of all scenes those in which there is something to tell apart."""
    scenes = (make_scene(SEED, SPLIT, index) for index in itertools.count())
    telling = (scene for scene in scenes if len(scene.things) > 1 and ENGLISH.expressions(scene))
    return next(itertools.islice(telling, number, None))
