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
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ofa.data.images import from_file
from ofa.errors import UserError, did_you_mean
from ofa.inference.api import DRAW, OFA
from ofa.inference.predictions import Answer, Box, Region
from ofa.synthetic.shapes import Scene, make_scene, render
from ofa.synthetic.shapes_language import ENGLISH
from ofa.task.columns import Column
from ofa.task.task_spec import TaskSpec
from ofa.task.template import is_template
from ofa.tasks import caption, declared_specs, refcoco, spec_of

logger = logging.getLogger(__name__)

LARGEST, SMALLEST = 1200, 512  # sides of shown images, pixels
LINE, THIN_LINE = 0.012, 0.005  # of frames, parts of the shorter side
LETTERS = 20_000  # longer texts are refused before they are cut into tokens
MOST_ANSWERS, MOST_IMAGES, MOST_SEED = 10, 16, 2**63 - 1
NOTHING = "(nothing)"
SEED, SPLIT, SIDE = 5, "demo", 256  # of the examples; pixels
PRETRAINING = "unify_task"
PER_TOKEN, AMONG_ANSWERS = "mean probability per token", "probability among the answers"


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
    """What is shown of an answer; what is empty is not shown."""

    message: str = ""  # what is missing or wrong, instead of all else
    answers: dict[str, float] = field(default_factory=dict)  # text -> probability, best first
    image: Image.Image | None = None  # with the boxes that were found:
    boxes: list[tuple[np.ndarray, str]] = field(default_factory=list)  # mask and legend of each
    drawn: list[tuple[Image.Image, str]] = field(default_factory=list)  # with the measure of each
    measure: str = PER_TOKEN  # what the numbers are
    details: dict[str, Any] = field(default_factory=dict)  # all of it as plain data


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
            raise UserError(
                f"--tasks: expects some of {', '.join(known)}, found"
                f" {unknown[0]!r}{did_you_mean(unknown[0], keys)}"
            )
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

    def ask(self, *request: Any, **settings: Any) -> DemoResult:
        """The result, or what is wrong. Arguments as of ``predict``."""
        started = time.monotonic()
        try:
            result = self.predict(*request, **settings)
        except UserError as error:
            return DemoResult(str(error))
        except Exception:  # of ours or of the machine (memory): the page continues
            logger.exception("'%s' failed", request[0])
            return DemoResult(
                "Something went wrong inside the program. The terminal in which ofa demo runs has"
                " the details."
            )
        result.details["seconds"] = round(time.monotonic() - started, 2)
        return result

    def check(self, path: str | None) -> str:
        """What is wrong with an image; nothing if it is fine or there is none yet."""
        try:
            if path is not None:
                image_of(path)
        except UserError as error:
            return str(error)
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
        image = image_of(str(path)) if spec.has("image") else None
        result = answered(getattr(self.model, key)(image, *given.values(), best=best), image)
        options = self.model.task_and_builder(spec.name)[0].options()
        if spec.decoding(options, spec.name not in self.model.checkpoint.trained).rank:
            result.measure = AMONG_ANSWERS
        return result

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


def answered(found: Answer | Region, image: Image.Image | None) -> DemoResult:
    """Different answers, or boxes, best first."""
    result, boxes, others = DemoResult(details=found.as_json()), [], LINE
    if isinstance(found, Region):
        regions = {in_words(one): one for one in (found, *found.others) if one.bins}
        boxes, others = [(one.box, line) for line, one in regions.items()], THIN_LINE
        result.message = "" if boxes else "The model named no region."
    else:
        for answer in (found, *found.others):
            result.answers.setdefault(str(answer) or NOTHING, probability(answer.score))
        named = [(found.region, str(found))] if found.region is not None else []
        boxes = [(region.box, name) for region, name in (*named, *found.objects)]
    if boxes and image is not None:
        result.image, result.boxes = outlined(image, boxes, others)
    return result


def in_words(region: Region) -> str:
    """``61%: 64, 85, 320, 299``"""
    corners = ", ".join(str(round(corner)) for corner in region.box)
    return f"{probability(region.score):.0%}: {corners}"


def probability(score: float) -> float:
    """Of a log-probability; 0 of one that is not finite: a page knows no NaN."""
    return math.exp(min(score, 0.0)) if math.isfinite(score) else 0.0


def outlined(
    image: Image.Image, boxes: Sequence[tuple[Box, str]], others: float
) -> tuple[Image.Image, list[tuple[np.ndarray, str]]]:
    """The image at a size to be looked at, and the frame of each box as a mask float[H, W].

    Args: boxes: xyxy, pixels of the image; a legend. others: width of the frames but the first, as
    a part of the shorter side.
    """
    shown = enlarged(image.convert("RGB"))
    shown.thumbnail((LARGEST, LARGEST))
    scale = np.tile(np.divide(shown.size, image.size), 2)
    masks = []
    for number, (box, legend) in enumerate(boxes):
        mask = Image.new("1", shown.size)
        x0, y0, x1, y1 = (scale * box).round().astype(int)
        width = max(1, round((others if number else LINE) * min(shown.size)))
        frame = x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)
        ImageDraw.Draw(mask).rectangle(frame, outline=1, width=width)
        masks.append((np.array(mask, dtype=float), legend))
    return shown, masks


def drawn(images: Sequence[Image.Image]) -> DemoResult:
    """Images, best first, with what they were judged by."""
    fits, scores = ([image.info[name] for image in images] for name in ("clip_score", "score"))
    result = DemoResult(details={"scores": scores})
    values = [f"{probability(score):.1%}" for score in scores]
    if all(fit is not None and math.isfinite(fit) for fit in fits):
        result.measure, values = "CLIP score", [f"{fit:.2f}" for fit in fits]
        result.details["clip_scores"] = fits
    result.drawn = list(zip(map(enlarged, images), values))
    return result


def enlarged(image: Image.Image) -> Image.Image:
    """A small image with hard edges, so that its pixels stay visible."""
    factor = max(1, SMALLEST // max(image.size))
    return ImageOps.scale(image, factor, Image.Resampling.NEAREST)


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
        "draw": ENGLISH.complete_caption(scene),
        "generate": prompt.strip(),
    }


@cache
def scene_of(number: int) -> Scene:
    """The scene of an example: of all scenes those in which there is something to tell apart."""
    scenes = (make_scene(SEED, SPLIT, index) for index in itertools.count())
    telling = (scene for scene in scenes if len(scene.things) > 1 and ENGLISH.expressions(scene))
    return next(itertools.islice(telling, number, None))
