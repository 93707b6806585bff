"""Synthetic shapes as training files: captions, questions and boxes of the same scenes, in the
upstream columns.

caption_*.tsv   as of every captioning data set (``ofa.prepare.tsv_writer``)
vqa_*.tsv       question-id, image-id, question, 1.0|!+answer, objects, image
refcoco_*.tsv   uniq-id, image-id, text, x0,y0,x1,y1, image     pixels of the image
ans2label.json  every answer and its number
questions.txt, answers.txt, expressions.txt, boxes.txt   those training columns, one value per line
scenes.jsonl    the scenes themselves
"""

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from ofa.io.resumable import fingerprint
from ofa.prepare import tsv_writer
from ofa.prepare.tsv_writer import IMAGE, CaptionedImage, Group, PreparedFolder
from ofa.synthetic import shapes, shapes_chinese, shapes_expressions, shapes_questions
from ofa.synthetic.shapes import Scene, Shape, as_json, encode, make_split
from ofa.synthetic.shapes_questions import Question
from ofa.task.text import CONFIDENCE, JOIN

VERSION = 4
WORDS = {  # language -> who says what: captions, questions and their answers, expressions
    "en": SimpleNamespace(
        captions=shapes.captions,
        questions=shapes_questions.questions,
        answers=shapes_questions.answers,
        expressions=shapes_expressions.expressions,
    ),
    "zh": shapes_chinese,
}
CAPTIONS = {"train": tsv_writer.STAGE2, "val": tsv_writer.VAL, "test": tsv_writer.TEST}


def write_world(
    folder: str,
    counts: dict[str, int],
    size: int,
    seed: int,
    image_format: str,
    jobs: int,
    language: str = "en",
) -> PreparedFolder:
    """All files of a world; no description of a test or validation scene occurs in training.

    Args: counts: scenes of ``train``, ``val`` and ``test``. size: side of the images, pixels.
    language: ``en`` or ``zh``.
    """
    words: Any = WORDS[language]
    plan = fingerprint(
        f"picture-world {VERSION}",
        counts["train"],
        counts["val"],
        counts["test"],
        size,
        seed,
        image_format,
        *([] if language == "en" else [language]),
    )
    out = PreparedFolder(folder, plan, "ofa prepare synthetic-shapes")
    if out.is_finished():
        return out
    scenes = make_scenes(seed, counts)
    images = {
        split: [
            CaptionedImage(scene.scene_id, tuple(words.captions(scene)), scene) for scene in found
        ]
        for split, found in scenes.items()
    }
    tsv_writer.write_caption_files(
        out, images, functools.partial(encode, size=size, image_format=image_format), jobs
    )
    asked = {split: [words.questions(scene) for scene in found] for split, found in scenes.items()}
    pointed = {
        split: [boxes_of(words.expressions(scene), size) for scene in found]
        for split, found in scenes.items()
    }
    for split, found in scenes.items():
        write_once_more(out, f"vqa_{split}.tsv", split, found, question_rows(found, asked[split]))
        write_once_more(out, f"refcoco_{split}.tsv", split, found, box_rows(found, pointed[split]))
    labels = {answer: label for label, answer in enumerate(words.answers())}
    out.write_text(
        "ans2label.json", json.dumps(labels, indent=1, ensure_ascii=False) + "\n", len(labels)
    )
    for name, values in (
        ("questions", [question.text for found in asked["train"] for question in found]),
        ("answers", [question.answer for found in asked["train"] for question in found]),
        ("expressions", [text for found in pointed["train"] for text, _ in found]),
        ("boxes", [box for found in pointed["train"] for _, box in found]),
    ):
        write_lines(out, f"{name}.txt", values)
    write_lines(
        out,
        "scenes.jsonl",
        [
            json.dumps(
                {**as_json(scene, size), "captions": words.captions(scene)}, ensure_ascii=False
            )
            for found in scenes.values()
            for scene in found
        ],
    )
    out.save_manifest(finished=True)
    return out


def make_scenes(seed: int, counts: dict[str, int]) -> dict[str, list[Scene]]:
    """The scenes of each split, training first."""
    seen: set[tuple] = set()
    scenes = {}
    for split in ("test", "val", "train"):
        scenes[split] = list(make_split(seed, split, counts[split], seen))
        seen.update(scene.description() for scene in scenes[split])
    return {split: scenes[split] for split in ("train", "val", "test")}


def boxes_of(expressions: list[tuple[str, Shape]], size: int) -> list[tuple[str, str]]:
    """Expressions and the boxes of what they mean, ``x0,y0,x1,y1`` in pixels."""
    return [
        (text, ",".join(f"{v:g}" for v in thing.box_px(size, size))) for text, thing in expressions
    ]


def question_rows(
    scenes: Sequence[Scene], asked: Sequence[list[Question]]
) -> Iterator[list[tuple[str, ...]]]:
    """The rows of each scene; questions are numbered, as in VQA, from 1 on."""
    number = itertools.count(1)
    for scene, found in zip(scenes, asked):
        objects = JOIN.join(thing.shape for thing in scene.things)
        yield [
            (
                str(next(number)),
                scene.scene_id,
                question.text,
                f"1.0{CONFIDENCE}{question.answer}",
                objects,
                IMAGE,
            )
            for question in found
        ]


def box_rows(
    scenes: Sequence[Scene], pointed: Sequence[list[tuple[str, str]]]
) -> Iterator[list[tuple[str, ...]]]:
    """The rows of each scene."""
    for scene, found in zip(scenes, pointed):
        yield [
            (f"{scene.scene_id}_{number}", scene.scene_id, text, box, IMAGE)
            for number, (text, box) in enumerate(found)
        ]


def write_once_more(
    out: PreparedFolder,
    name: str,
    split: str,
    scenes: Sequence[Scene],
    rows: Iterable[list[tuple[str, ...]]],
) -> None:
    """A file of other rows of the scenes; the images are those of the caption file."""
    groups = [Group(scene, tuple(found)) for scene, found in zip(scenes, rows)]
    # of two twins one above the other none can be pointed at
    shown = [bool(group.rows) for group in groups]

    def images(skip: int) -> Iterator[str]:
        return itertools.islice(
            itertools.compress(images_again(out, split, len(scenes)), shown), skip, None
        )

    out.write_groups(name, list(itertools.compress(groups, shown)), images)


def images_again(out: PreparedFolder, split: str, count: int, first: int = 0) -> Iterator[str]:
    """Base64 of the images of a split from the given scene on, as the caption file has them.
    Args: count: scenes."""
    return itertools.islice(
        tsv_writer.images_of(out.folder / CAPTIONS[split], [1] * count), first, None
    )


def write_lines(out: PreparedFolder, name: str, lines: Sequence[str]) -> None:
    out.write_text(name, "".join(f"{line}\n" for line in lines), len(lines))
