"""Ask a model about images, from Python.

    from ofa import OFA

    model = OFA.load("checkpoint_best.pt")
    model.caption("dog.jpg")                                  # 'a dog lying on a sofa'
    model.answer("dog.jpg", "what color is the sofa?")        # 'red'
    model.answer("dog.jpg", "what is it?", region=(30, 40, 200, 180))
    model.ground("dog.jpg", "the cushion on the left").box    # (31.2, 40.6, 204.9, 180.0), pixels
    model.entails("dog.jpg", "an animal is outdoors")         # 'no'
    model.read("sign.jpg")                                    # 'open daily'
    model.generate("dog.jpg", "what does the image describe?")
    model.ask("vqa", "dog.jpg", "how many dogs?")             # any task, by its name or an alias
    model.draw("a red circle", tokenizer="tokenizer.pt")[0].save("circle.png")

An image is a path, a PIL image, an array or a tensor (``ofa.data.load_image``). Every argument may
be a list: several images, several texts for one image, or as many texts as images; the
replies are a list then, computed in batches. Options of the generator (``beam=3, max_len_b=20``,
see ``ofa.models.generation.options``) may be given to each call.

A model may be used by several threads, which get what they would get alone; it may be copied and
pickled. On a CPU it keeps a second form of its weights for speed
(``ofa.models.inference_weights``), and makes another one after they have changed.
"""

import copy
import functools
import json
import logging
import threading
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ofa.data.collate import collate
from ofa.data.load_image import as_image
from ofa.data.sample import SampleBuilder
from ofa.errors import UserError
from ofa.inference.evaluate import NOT_WHILE_EVALUATING, PRECISIONS, choose_device, to_device
from ofa.inference.predictions import Answer, Region, answer_of, region_of
from ofa.models.inference_weights import inference_network, version_of_weights
from ofa.process_state import kept_process_state
from ofa.task.task_spec import TAUGHT_BY_ANY, TaskSpec, seed_of
from ofa.task.template import is_template
from ofa.tasks import declared_specs, spec_of

logger = logging.getLogger(__name__)

CAPTION, ANSWER, REGION_ANSWER, GROUND, ENTAIL, INSTRUCT = (
    "caption",
    "vqa_gen",
    "grounded_qa",
    "refcoco",
    "snli_ve",
    "instruction",
)
DRAW, READ = "image_gen", "ocr"
# Generation options where neither the training nor the task names any.
OTHERWISE = {"beam": 5, "max_len_b": 30}
KEPT_TASKS = 32  # a service may be given other ``answers`` in every call

ImageInput = Any  # see ofa.data.load_image.as_image
Row = dict[str, str]


class OFA:
    """A model that captions, answers, grounds, judges, reads and follows instructions. Made by
    ``OFA.load``.

    Attributes:
        checkpoint: network, vocabulary and stored options
            (``ofa.inference.fairseq_predicting.LoadedCheckpoint``).
        batch_size: images that go through the network together.
    """

    def __init__(self, checkpoint, device: torch.device, dtype: torch.dtype, batch_size: int = 16):
        self.checkpoint, self.batch_size = checkpoint, batch_size
        self.device, self.dtype = device, dtype
        self.network = checkpoint.network.to(device=device, dtype=dtype)
        self._forget_made()

    def _forget_made(self) -> None:
        """What calls make and share begins empty."""
        self._lock = threading.RLock()  # around the making; using needs none
        self._tasks: dict[tuple, Any] = {}
        self._inference: tuple[Any, Any] = (None, None)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs; what calls have made, the copy makes again."""
        return {
            name: value
            for name, value in vars(self).items()
            if name not in ("_lock", "_tasks", "_inference")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        with kept_process_state():
            from ofa import fairseq_plugin

            fairseq_plugin.register()  # a process of its own may have loaded nothing yet
        vars(self).update(state)
        self._forget_made()

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        bpe_dir: str | Path | None = None,
        *,
        device: str | None = None,
        precision: str = "fp32",
        ema: bool = False,
        base: str | Path | None = None,
        batch_size: int = 16,
        **overrides: Any,
    ) -> "OFA":
        """A model from a checkpoint file of this project or of upstream.

        Args:
            bpe_dir: vocabulary folder; default: the one of the training, as the checkpoint names
                it.
            device: ``cpu``, ``cuda`` or None for a GPU if there is one. precision: fp32, fp16 or
                bf16.
            ema: take the averaged weights.
            base: of a checkpoint that holds tuned weights only: where its base is now; default: as
                it names it.
            overrides: other stored options to replace, e.g. ``patch_image_size=384,
                ans2label_file="answers.json"``.
        Raises: UserError if the checkpoint or the folder cannot be read or do not fit together.
        """
        if precision not in PRECISIONS:
            raise UserError(
                f"precision: expects one of {', '.join(PRECISIONS)}, found {precision!r}"
            )
        given = {**NOT_WHILE_EVALUATING, **overrides, "base": base and str(base)}
        if bpe_dir is not None:
            given |= {"bpe_dir": str(bpe_dir), "bpe": None}
        with kept_process_state():
            from ofa import fairseq_plugin

            fairseq_plugin.register()
            from ofa.inference.fairseq_predicting import LoadedCheckpoint
        with kept_process_state():  # the weights that the network begins with are random numbers
            loaded = LoadedCheckpoint(str(checkpoint), given, ema)
        return cls(
            loaded, choose_device(device, precision=precision), PRECISIONS[precision], batch_size
        )

    # --- what can be asked
    # ------------------------------------------------------------------------------------

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
            task: its name or an alias. image: one, or a list; None for tasks of texts alone.
            words: what it asks with, one for each of its columns that a user has to give, in order;
                or by name in ``given``.
            best: answers of each; all but the first are its ``others``.
            answers: choose among these. Default: the set of answers that the checkpoint was trained
                with, if it was; else any words.
            given: columns by name, and options of the generator.
        Returns: an ``Answer``, of a task that predicts boxes a ``Region``; a list if anything is a
        list.
        """
        spec = _asked_task(task)
        return self._ask(spec, image, _columns(spec, words, given), best, answers, given)

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
        spec = _asked_task(task)
        said = _columns(spec, (), dict(columns))
        return self._ask(spec, image, said, best, answers, generation)

    def _ask(
        self,
        spec: TaskSpec,
        image: Any,
        columns: dict[str, Any],
        best: int,
        answers: Sequence[str] | None,
        generation: dict[str, Any],
    ) -> Any:
        """Args: columns: of ``_columns``."""
        if spec.has("image") == (image is None):
            expected, found = ("an image", "none") if image is None else ("texts alone", "an image")
            raise UserError(f"task '{spec.name}' asks about {expected}, found {found}")
        changes = {column.option: column.name in columns for column in spec.asked if column.option}
        if answers is not None:
            changes |= _chosen_among(answers)
        inputs = {column.name: image for column in spec.images[:1]}
        inputs |= {one.name: columns.pop(one.name) for one in spec.images[1:]}
        single, images, rows = self._rows(inputs, columns)
        predictions = self._predict(spec.name, images, rows, best, generation, **changes)
        boxes = any(column.kind == "box" for column in spec.targets)
        sizes = [shown[0].size if shown else None for shown in images]
        reply: Any = region_of if boxes else answer_of
        replies = [reply(one, size) for one, size in zip(predictions, sizes, strict=True)]
        return replies[0] if single else replies

    def __getattr__(self, name: str) -> Any:
        """Every task is a method by its name, verb or alias: ``model.counting("dog.jpg", "how
        many dogs?")``."""
        if is_template(name):
            return functools.partial(self.ask, name)
        specs = [] if name.startswith("_") else declared_specs()
        known = [spec for spec in specs if name in spec.names] or [
            spec for spec in specs if name == spec.verb
        ]
        if not known:
            raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")
        return functools.partial(self.ask, known[0].name)

    def caption(
        self, image: ImageInput | Sequence[ImageInput], *, best: int = 1, **generation: Any
    ) -> Answer | list[Answer]:
        """What the image shows. Args: best: captions per image; all but the first are its
        ``others``."""
        return self.ask(CAPTION, image, best=best, **generation)

    def answer(
        self,
        image: ImageInput | Sequence[ImageInput],
        question: str | Sequence[str],
        region: Any = None,
        *,
        answers: Sequence[str] | None = None,
        best: int = 1,
        **generation: Any,
    ) -> Answer | list[Answer]:
        """The answer to a question.

        Args: region: the box that the question is about: left, top, right, bottom in pixels; or one
        per question. answers: as of ``ask``.
        """
        about = {} if region is None else {"region": region}
        return self.ask(
            REGION_ANSWER if about else ANSWER,
            image,
            question,
            best=best,
            answers=answers,
            **about,
            **generation,
        )

    def ground(
        self,
        image: ImageInput | Sequence[ImageInput],
        text: str | Sequence[str],
        *,
        best: int = 1,
        **generation: Any,
    ) -> Region | list[Region]:
        """The region that a text describes. Args: best: regions per text; all but the first are
        its ``others``."""
        return self.ask(GROUND, image, text, best=best, **generation)

    def entails(
        self,
        image: ImageInput | Sequence[ImageInput],
        hypothesis: str | Sequence[str],
        premise: Any = None,
        *,
        best: int = 1,
        **generation: Any,
    ) -> Answer | list[Answer]:
        """``yes``, ``no`` or ``maybe``: does the image show what the hypothesis says?

        Args: premise: a text that belongs to the image; then image and premise together have to say
        it.
        """
        with_premise = {} if premise is None else {"premise": premise}
        return self.ask(ENTAIL, image, hypothesis, best=best, **with_premise, **generation)

    def read(
        self, image: ImageInput | Sequence[ImageInput], *, best: int = 1, **generation: Any
    ) -> Answer | list[Answer]:
        """The text on the image. Args: best: readings per image; all but the first are its
        ``others``."""
        return self.ask(READ, image, best=best, **generation)

    def generate(
        self,
        image: ImageInput | Sequence[ImageInput],
        instruction: str | Sequence[str],
        *,
        best: int = 1,
        **generation: Any,
    ) -> Answer | list[Answer]:
        """What the model predicts for any instruction; symbols such as ``<bin_12>`` in it stand for
        themselves."""
        return self.ask(INSTRUCT, image, instruction, best=best, **generation)

    def draw(
        self,
        text: str | Sequence[str],
        samples: int = 16,
        seed: int = 7,
        *,
        tokenizer: Any = None,
        scorer: Any = None,
        **generation: Any,
    ) -> list[Image.Image] | list[list[Image.Image]]:
        """Images of a caption, those first that fit it best (of several captions a list for
        each).

        Args:
            samples: images per caption. seed: the same seed draws the same images.
            tokenizer: what makes images of codes, an object or its path; default: as
                ``OFA.load(..., image_tokenizer=path)`` or the checkpoint names it.
            scorer: an object with ``score(images, texts)``, which decides what comes first;
                default: CLIP if ``OFA.load`` was given a ``clip_model_path``; without either the
                likeliest image comes first.
        Returns: images; ``info`` of each has its ``codes``, ``score`` (mean log-probability),
        ``fit`` (by the scorer) and ``seed``.
        """
        captions = [text] if isinstance(text, str) else list(text)
        replies = []
        for best in self.drawings(captions, samples, seed, generation, tokenizer, scorer):
            replies.append([one.image for one in (best, *best.others)])
            for one in (best, *best.others):
                one.image.info = {
                    "codes": one.codes,
                    "score": one.score,
                    "clip_score": one.clip_score,
                    "seed": one.seed,
                }
        return replies[0] if isinstance(text, str) else replies

    def drawings(
        self,
        captions: Sequence[str],
        samples: int,
        seed: int,
        generation: dict[str, Any],
        tokenizer: Any = None,
        scorer: Any = None,
    ) -> Iterator[Any]:
        """Of each caption the prediction of its best image, with the others. Arguments as of
        ``draw``."""
        for number, caption in enumerate(captions, 1):
            if not isinstance(caption, str) or not caption.strip():
                raise UserError(f"text {number}: expects a caption, found {caption!r}")
        changes = {"image_tokenizer": str(tokenizer)} if isinstance(tokenizer, (str, Path)) else {}
        options = {**generation, "beam": samples}
        shared, builder, decoding, options = self._prepared(DRAW, samples, options, changes)
        task = copy.copy(shared)  # what is given for this call stays with it
        with self._lock:  # what the options name is loaded once
            task.image_tokenizer = (
                shared.image_tokenizer if tokenizer is None or changes else tokenizer
            )
            task.image_text_scorer = shared.image_text_scorer if scorer is None else scorer
            if isinstance(task.image_tokenizer, torch.nn.Module):
                task.image_tokenizer.to(self.device)
        task.check_tokenizer()
        rows = [{"text": caption} for caption in captions]
        seeds = [seed if number == 0 else seed_of(seed, number) for number in range(len(rows))]
        nothing = [None] * len(rows)
        for part in self._batches(task, builder, decoding, options, nothing, rows, samples, seeds):
            yield from part

    def was_trained_on(self, name: str) -> bool:
        """Whether the checkpoint was trained for what a task asks, as far as it says;
        instructions are never foreign."""
        trained, taught_by = self.checkpoint.trained, spec_of(name).usage.taught_by
        return (
            not trained
            or name in trained
            or TAUGHT_BY_ANY in taught_by
            or any(one in taught_by for one in trained)
        )

    def trained_tasks(self) -> list[TaskSpec]:
        """The tasks that the checkpoint was trained on."""
        lines = [spec_of(name) for name in self.checkpoint.trained if is_template(name)]
        return lines + [spec for spec in declared_specs() if spec.name in self.checkpoint.trained]

    # --- how it is done
    # ---------------------------------------------------------------------------------------

    def _rows(
        self, inputs: dict[str, Any], columns: dict[str, Any]
    ) -> tuple[bool, list[tuple[Image.Image, ...]], list[Row]]:
        """Whether one reply is wanted, and the images and the columns of every row."""
        given = {**inputs, **columns}
        lengths = {
            name: len(value) for name, value in given.items() if isinstance(value, (list, tuple))
        }
        count = next(iter(lengths.values()), 1)
        if set(lengths.values()) - {count}:
            found = ", ".join(f"{length} of '{name}'" for name, length in lengths.items())
            raise UserError(f"expects lists of one length, found {found}")
        opened = [
            [
                as_image(one, "" if isinstance(one, (str, Path)) else f"{name} {number}")
                for number, one in enumerate(image if name in lengths else [image], 1)
            ]
            for name, image in inputs.items()
        ]
        images = [tuple(each[row % len(each)] for each in opened) for row in range(count)]
        rows = [
            {name: value[row] if name in lengths else value for name, value in columns.items()}
            for row in range(count)
        ]
        for number, row in enumerate(rows, 1):
            for name, value in row.items():
                if not isinstance(value, str) or not value.strip():
                    raise UserError(f"{name} {number}: expects a text, found {value!r}")
        return not lengths, images, rows

    def _predict(
        self,
        name: str,
        images: Sequence[Image.Image | tuple[Image.Image, ...]],
        rows: list[Row],
        best: int,
        generation: dict[str, Any],
        **changes: Any,
    ):
        return [
            one
            for part in self.predict_batches(name, images, rows, best, generation, **changes)
            for one in part
        ]

    def predict_batches(
        self,
        name: str,
        images: Sequence[Image.Image | tuple[Image.Image, ...]],
        rows: Sequence[Row],
        best: int = 1,
        generation: dict[str, Any] | None = None,
        seeds: Sequence[int] | None = None,
        **changes: Any,
    ) -> Iterator[list]:
        """The predictions of a task, batch by batch.

        Args:
            name: of the task. images: of each row, one or all that the task asks about.
            rows: columns of each row by name; those left out are empty.
            seeds: of each row, for what is drawn by chance.
            changes: options of the task to replace.
        """
        yield from self._batches(
            *self._prepared(name, best, generation or {}, changes), images, rows, best, seeds
        )

    def _batches(
        self,
        task: Any,
        builder: SampleBuilder,
        decoding: Any,
        options: dict[str, Any],
        images: Sequence[Image.Image | tuple[Image.Image, ...] | None],
        rows: Sequence[Row],
        best: int,
        seeds: Sequence[int] | None,
    ) -> Iterator[list]:
        """As ``predict_batches``, with what ``_prepared`` returned."""
        network = self._inference_network()
        for start in range(0, len(rows), self.batch_size):
            samples = []
            for row in range(start, min(start + self.batch_size, len(rows))):
                shown = images[row] if isinstance(images[row], tuple) else (images[row],)
                places = {column.name: str(place) for place, column in enumerate(task.spec.images)}
                columns = {
                    **dict.fromkeys(task.spec.column_names, ""),
                    "id": str(row),
                    **places,
                    **rows[row],
                }
                samples.append(
                    builder(
                        columns,
                        row,
                        where=f"image {row + 1}",
                        open_image=lambda place, shown=shown: shown[int(place)],
                    )
                )
            batch = to_device(
                collate(samples, self.checkpoint.vocabulary.pad), self.device, self.dtype
            )
            if seeds is not None:
                batch["seeds"] = list(seeds[start : start + self.batch_size])
            generator = task.generator_for(
                [network], Namespace(**_behind_prompt(options, task.prefix_tokens(batch))), decoding
            )
            with torch.inference_mode():
                predictions = task.predict(batch, [network], generator, decoding, best)
            yield predictions  # outside: what the caller does in between is not ours

    def _inference_network(self) -> torch.nn.Module:
        """The network as it predicts fastest, made once for all calls; again after the weights
        have changed."""
        with self._lock:
            version = version_of_weights(self.network)
            if version != self._inference[0]:
                self._inference = version, inference_network(self.network)
            return self._inference[1]

    def _prepared(
        self, name: str, best: int, generation: dict[str, Any], changes: dict[str, Any]
    ) -> tuple[Any, SampleBuilder, Any, dict[str, Any]]:
        """Task, sample builder, decoding and generation options of a call."""
        task, builder = self._task_and_builder(name, changes)
        untrained = name not in self.checkpoint.trained and not changes.get("ans2label_dict")
        decoding = task.spec.decoding(task.options(), untrained)
        by_language = task.spec.usage.generation
        language = "zh" if task.bpe.kind == "bert" else "en"
        usual = (
            self.checkpoint.generation(name)
            or by_language.get(language)
            or by_language.get("en")
            or OTHERWISE
        )
        options = {**usual, **generation}
        options["beam"] = max(options.get("beam", 5), best)
        return task, builder, decoding, options

    def _task_and_builder(self, name: str, changes: dict[str, Any]) -> tuple[Any, SampleBuilder]:
        """Made once for all calls that ask the same; those asked last are kept."""
        key = (name, json.dumps(changes, sort_keys=True))
        with self._lock:
            if key not in self._tasks:
                if not self.was_trained_on(name):
                    logger.warning(
                        "'%s' is asked of a checkpoint that was trained for %s: it may not know"
                        " what to say",
                        name,
                        ", ".join(self.checkpoint.trained),
                    )
                task = self.checkpoint.task(name, **changes)
                self._tasks[key] = (
                    task,
                    SampleBuilder(
                        task.spec,
                        task.options(),
                        task.vocabulary,
                        task.bpe,
                        "predict",
                        answers=task.answers,
                    ),
                )
            self._tasks[key] = self._tasks.pop(key)  # the last one now
            while len(self._tasks) > KEPT_TASKS:
                self._tasks.pop(next(iter(self._tasks)))
            return self._tasks[key]


def _behind_prompt(options: dict[str, Any], prefix: torch.Tensor | None) -> dict[str, Any]:
    """The options for hypotheses that begin with a prompt: callers mean the length of what comes
    behind it."""
    if prefix is None or "max_len_b" not in options:
        return options
    return {**options, "max_len_b": options["max_len_b"] + prefix.size(1)}


def _asked_task(name: str) -> TaskSpec:
    """Raises: UserError if there is no such task, or it is not asked about images or texts."""
    spec = spec_of(name, "task")
    if spec.generates_images:
        raise UserError(f"task '{spec.name}' makes images of texts; use draw()")
    return spec


def _columns(spec: TaskSpec, words: Sequence[Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is said for each column that a task asks with, taken out of ``given``."""
    if len(words) > len(spec.needed_names):
        raise UserError(
            f"task '{spec.name}' asks with {', '.join(spec.needed_names) or 'an image alone'},"
            f" found {len(words)} words"
        )
    said = dict(zip(spec.needed_names, words, strict=False))
    columns = {}
    for column in spec.asked:
        for name in filter(given.__contains__, column.names):
            said[column.public_name] = given.pop(name)
        if column.public_name in said:
            value = said[column.public_name]
            columns[column.name] = _boxes_in_words(value) if column.kind == "box" else value
        elif column.needed:
            raise UserError(f"task '{spec.name}' expects {column.public_name}, found none")
    return columns


def _chosen_among(answers: Sequence[str]) -> dict[str, Any]:
    """The options of a task whose answers are these."""
    if isinstance(answers, str) or not answers:
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
