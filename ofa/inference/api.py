"""Ask a model about images, from Python: ``OFA.load("checkpoint_best.pt").caption("dog.jpg")``.

Every argument of a call may be a list; all calls take ``best`` and options of the generator, those
of a task that chooses ``answers`` as well. ``docs/asking.md`` shows each of them.
"""

import copy
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ofa.data.collate import collate
from ofa.data.images import as_image
from ofa.data.sample import Sample, SampleBuilder
from ofa.errors import UserError, did_you_mean
from ofa.inference.predictions import Region, answer_of, region_of
from ofa.inference.predictor import Predictor, at_least_one, cut
from ofa.inference.training import TrainingRun, train
from ofa.models.generation.options import check_options
from ofa.task.prediction import Prediction
from ofa.task.task_spec import TaskSpec, seed_of
from ofa.task.template import is_template
from ofa.tasks import declared_specs, spec_of, specs_called

DRAW = "image_gen"


class OFA(Predictor):
    """A model that captions, answers, grounds, judges, reads and follows instructions. Made by
    ``OFA.load``."""

    def ask(
        self,
        task: str,
        image: Any = None,
        *words: Any,
        best: int = 1,
        answers: Sequence[str] | None = None,
        **given: Any,
    ) -> Any:
        """What the model answers to a task of any kind, a task of an installed package too.

        Args:
            task: its name or an alias.
            image: one, or a list; None for tasks of texts alone.
            words: what it asks with, one for each of its columns that a user has to give, in order;
                or by name in ``given``.
            best: answers of each; all but the first are its ``others``.
            answers: choose among these. Default: the set of answers that the checkpoint was trained
                with, if it was; else any words.
            given: columns by name, and options of the generator.

        Returns:
            An ``Answer``, of a task that predicts boxes a ``Region``; a list if anything is a list.
        """
        spec = spec_of(task, "task")
        if len(words) > len(spec.needed_names):
            raise UserError(
                f"task '{spec.name}' asks with {', '.join(spec.needed_names) or 'an image alone'},"
                f" found {len(words)} words"
            )
        names = given.keys() & {name for column in spec.asked for name in column.names}
        columns = dict(zip(spec.needed_names, words)) | {name: given.pop(name) for name in names}
        return self.ask_columns(spec.name, image, columns, best, answers, **given)

    def ask_columns(
        self,
        task: str,
        image: Any,
        columns: Mapping[str, Any],
        best: int = 1,
        answers: Sequence[str] | None = None,
        **generation: Any,
    ) -> Any:
        """As ``ask``, for columns of any names: one of a template may be called ``best``."""
        spec = spec_of(task, "task")
        if spec.generates_images:
            raise UserError(f"task '{spec.name}' makes images of texts; use draw()")
        texts = _texts(spec, columns)
        if spec.has("image") == (image is None):
            expected, found = ("an image", "none") if image is None else ("texts alone", "an image")
            raise UserError(f"task '{spec.name}' asks about {expected}, found {found}")
        changes = {column.option: column.name in texts for column in spec.asked if column.option}
        if answers is not None:
            changes |= _chosen_among(spec, answers)
        inputs = {column.name: image for column in spec.images[:1]}
        inputs |= {one.name: texts.pop(one.name) for one in spec.images[1:]}
        single, images, rows = _rows(inputs, texts)
        task, builder = self.task_and_builder(spec.name, **changes)
        untrained = spec.name not in self.checkpoint.trained and answers is None
        call = CallRows(builder, images, rows)
        predictions = self._predict(task, call, untrained, best, generation)
        form: Any = region_of if spec.predicts("box") else answer_of
        sizes = (shown[0].size if shown else None for shown in images)
        results = list(map(form, predictions, sizes))
        return results[0] if single else results

    def _predict(
        self, task: Any, rows: "CallRows", untrained: bool, best: int, given: Any, seeds: Any = None
    ) -> Iterator[Prediction]:
        """The prediction of each row. Args: given: options of the generator. Raises: UserError for
        one that it does not know, or a value that none can be."""
        given = check_options(given, f"task '{task.spec.name}'")
        if given.get("beam") is not None:
            at_least_one("beam", given["beam"])
        best = at_least_one("best", best)
        decoding = task.spec.decoding(task.options(), untrained)
        options = self.generation(task, given, best)
        batches = cut(len(rows.rows), self.batch_size)
        for _, _, found in self.predict(task, rows, batches, decoding, options, best, seeds):
            yield from found

    def finetune(
        self, data: str | Path | Sequence[str | Path], task: str, out: str | Path, **options: Any
    ) -> TrainingRun:
        """Train this model further, on own data, in a process of its own: the model stays as it is,
        ``OFA.load(run.checkpoint)`` is the new one. Arguments as of ``ofa.train``."""
        own = {"start": self.checkpoint.path, "bpe_dir": self.checkpoint.bpe.folder}
        return train(task, data, out, **{**own, **options})

    def __getattr__(self, name: str) -> Any:
        """Every task is a method by its name, verb or alias: ``model.counting("dog.jpg", "how
        many dogs?")``."""
        known = [] if name.startswith("_") else specs_called(name)
        if not known and not is_template(name):
            names = [*dir(type(self)), *(one for spec in declared_specs() for one in spec.names)]
            raise AttributeError(
                f"'{type(self).__name__}' has no attribute '{name}'{did_you_mean(name, names)}"
            )
        return functools.partial(self.ask, known[0].name if known else name)

    def caption(self, image: Any, **options: Any) -> Any:
        """What the image shows."""
        return self.ask("caption", image, **options)

    def answer(self, image: Any, question: Any, region: Any = None, **options: Any) -> Any:
        """The answer to a question.

        Args:
            region: the box that the question is about: left, top, right, bottom in pixels; or one
                per question.
        """
        if region is None:
            return self.ask("vqa_gen", image, question, **options)
        return self.ask("grounded_qa", image, question, region=region, **options)

    def ground(self, image: Any, text: Any, **options: Any) -> Any:
        """The region that a text describes."""
        return self.ask("refcoco", image, text, **options)

    def entails(self, image: Any, hypothesis: Any, premise: Any = None, **options: Any) -> Any:
        """``yes``, ``no`` or ``maybe``: does the image, together with the premise if there is one,
        say what the hypothesis says?"""
        if premise is not None:
            options["premise"] = premise
        return self.ask("snli_ve", image, hypothesis, **options)

    def read(self, image: Any, **options: Any) -> Any:
        """The text on the image."""
        return self.ask("ocr", image, **options)

    def generate(self, image: Any, instruction: Any, **options: Any) -> Any:
        """What the model predicts for any instruction; symbols such as ``<bin_12>`` in it stand for
        themselves."""
        return self.ask("instruction", image, instruction, **options)

    def draw(
        self, text: str | Sequence[str], samples: int = 16, seed: int = 7, **options: Any
    ) -> Any:
        """Images of a caption, those first that fit it best (of several captions a list for
        each), with their ``codes``, ``score`` (mean log-probability), ``clip_score`` (by the
        scorer) and ``seed`` as ``info``. Arguments as of ``drawings``."""
        found: list[list[Image.Image]] = []
        captions = [text] if isinstance(text, str) else list(text)
        for best in self.drawings(captions, samples, seed, **options):
            found.append([])
            for one in (best, *best.others):
                assert one.image is not None  # there is a tokenizer
                names = ("codes", "score", "clip_score", "seed")
                one.image.info = {name: getattr(one, name) for name in names}
                found[-1].append(one.image)
        return found[0] if isinstance(text, str) else found

    def drawings(
        self,
        captions: Sequence[str],
        samples: int = 16,
        seed: int = 7,
        *,
        tokenizer: Any = None,
        scorer: Any = None,
        **generation: Any,
    ) -> Iterator[Prediction]:
        """Of each caption the prediction of its best image, with the others.

        Args:
            captions: what the images show.
            samples: images per caption.
            seed: the same seed draws the same images.
            tokenizer: what makes images of codes, an object or its path; default: as ``OFA.load``
                was given an ``image_tokenizer``, or the checkpoint names it.
            scorer: an object with ``score(images, texts)``, which decides what comes first;
                default: CLIP of a ``clip_model_path``; without either the likeliest comes first.
        """
        for number, caption in enumerate(captions, 1):
            if not isinstance(caption, str) or not caption.strip():
                raise UserError(f"text {number}: expects a caption, found {caption!r}")
        changes = {"image_tokenizer": str(tokenizer)} if isinstance(tokenizer, (str, Path)) else {}
        shared, builder = self.task_and_builder(DRAW, **changes)
        task = copy.copy(shared)  # what is given for this call stays with it
        with self._lock:  # what the options name is loaded once
            own = tokenizer is None or changes
            task.image_tokenizer = shared.image_tokenizer if own else tokenizer
            task.image_text_scorer = shared.image_text_scorer if scorer is None else scorer
            if isinstance(task.image_tokenizer, torch.nn.Module):
                task.image_tokenizer.to(self.device)
        task.check_tokenizer()
        samples = at_least_one("samples", samples)
        untrained, options = DRAW not in self.checkpoint.trained, {**generation, "beam": samples}
        rows = CallRows(builder, [()] * len(captions), [{"text": caption} for caption in captions])
        seeds = [seed, *(seed_of(seed, number) for number in range(1, len(captions)))]
        yield from self._predict(task, rows, untrained, samples, options, seeds)


@dataclass
class CallRows:
    """The rows of a call as samples."""

    builder: SampleBuilder
    images: Sequence[tuple[Image.Image, ...]]  # of each row, one for each column of images
    rows: Sequence[Mapping[str, str]]  # columns by name; those that are left out are empty

    def __getitem__(self, row: int) -> Sample:
        spec, shown = self.builder.spec, self.images[row]
        columns = {**dict.fromkeys(spec.column_names, ""), "id": str(row), **self.rows[row]}
        columns |= {column.name: str(place) for place, column in enumerate(spec.images)}
        where, open_image = f"image {row + 1}", lambda place: shown[int(place)]
        return self.builder(columns, row, where=where, open_image=open_image)

    def collater(self, samples: list[Sample]) -> dict[str, Any]:
        return collate(samples, self.builder.vocabulary.pad, self.builder.for_device)


def _rows(
    inputs: Mapping[str, Any], columns: Mapping[str, Any]
) -> tuple[bool, list[tuple[Image.Image, ...]], list[dict[str, str]]]:
    """Whether one prediction is wanted, and the images and the columns of every row."""
    given = {**inputs, **columns}
    lists = {name: value for name, value in given.items() if isinstance(value, (list, tuple))}
    count = len(next(iter(lists.values()), [None]))
    if any(len(value) != count for value in lists.values()):
        found = ", ".join(f"{len(value)} of '{name}'" for name, value in lists.items())
        raise UserError(f"expects lists of one length, found {found}")
    of_each = {name: lists.get(name, [value] * count) for name, value in given.items()}
    for name in columns:
        for number, value in enumerate(of_each[name], 1):
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"{name} {number}: expects a text, found {value!r}")
    for name, image in inputs.items():
        opened = [
            as_image(one, "" if isinstance(one, (str, Path)) else f"{name} {number}")
            for number, one in enumerate(lists.get(name, [image]), 1)
        ]
        of_each[name] = opened if name in lists else opened * count
    images = [tuple(of_each[name][row] for name in inputs) for row in range(count)]
    return (
        not lists,
        images,
        [{name: of_each[name][row] for name in columns} for row in range(count)],
    )


def _texts(spec: TaskSpec, columns: Mapping[str, Any]) -> dict[str, Any]:
    """What is said for each column that a task asks with, as a TSV has it."""
    found = {}
    for column in spec.asked:
        said = [columns[name] for name in column.names if name in columns]
        if said:
            found[column.name] = _boxes_in_words(said[-1]) if column.kind == "box" else said[-1]
        elif column.needed:
            raise UserError(f"task '{spec.name}' expects {column.public_name}, found none")
    return found


def _chosen_among(spec: TaskSpec, answers: Sequence[str]) -> dict[str, Any]:
    """The options of a task whose answers are these."""
    if spec.answers is None:
        able = [one.name for one in declared_specs() if one.answers is not None]
        raise UserError(
            f"answers: task '{spec.name}' does not choose from a set, {', '.join(able)} do; leave"
            " the argument out"
        )
    is_text = isinstance(answers, str) or not all(isinstance(one, str) for one in answers)
    if is_text or not answers:
        raise UserError(f"answers: expects a list of texts to choose from, found {answers!r}")
    return {
        "ans2label_dict": json.dumps({text: number for number, text in enumerate(answers)}),
        "ans2label_file": None,
        "unconstrained_training": False,
        "val_inference_type": "allcand",
    }


def _boxes_in_words(region: Any) -> str | list:
    """A box, or a list of boxes, as a TSV has them."""
    boxes = region.tolist() if hasattr(region, "tolist") else region
    if isinstance(boxes, Region):
        boxes = boxes.box
    if isinstance(boxes, (list, tuple)) and boxes and isinstance(boxes[0], (list, tuple, Region)):
        return [_boxes_in_words(box) for box in boxes]
    try:
        x0, y0, x1, y1 = map(float, boxes)
    except (TypeError, ValueError):
        raise UserError(
            f"region: expects left, top, right, bottom in pixels, found {region!r}"
        ) from None
    return f"{x0},{y0},{x1},{y1}"
