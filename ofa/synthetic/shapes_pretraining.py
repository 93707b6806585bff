"""Synthetic shapes as files for pretraining and for drawing, in the columns of upstream.

    vision_language_examples.tsv  id, image, caption, question, answers, objects, dataset, type:
                                  captions, questions, boxes; that of the tests ends with all other
                                  phrases that mean the same regions
    detection_examples.tsv        id, image, x0,y0,x1,y1,number,name&&...: every shape of an image
                                  from left to right
    text_examples.tsv             id, text: sentences about these scenes and others, never shown
    image_examples.tsv            id, image, codes of the middle, half the side
    image_gen_train.tsv           id, codes of the whole image, caption that tells all things and
                                  where they lie; also of scenes that no other file has

``..._val.tsv`` and ``..._test.tsv`` hold the scenes of those splits. The last two need an image
tokenizer and have a manifest of their own (``manifest_codes.json``), for they are made later: the
tokenizer learns from these images.
"""

import functools
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ofa.io.resumable import fingerprint
from ofa.prepare.tsv_writer import IMAGE, Group, PreparedFolder
from ofa.synthetic.shapes import COLORS, SHAPES, Scene, captions, listing, make_split, name, render
from ofa.synthetic.shapes_expressions import expressions, pointing_at
from ofa.synthetic.shapes_files import VERSION as WORLD
from ofa.synthetic.shapes_files import boxes_of, images_again, make_scenes
from ofa.synthetic.shapes_questions import questions
from ofa.synthetic.shapes_texts import texts, where
from ofa.task.text import CONFIDENCE, JOIN
from ofa.tokens.image_codes import codes_to_text

VERSION, CODES_VERSION = 3, 2
MANIFEST, CODES_MANIFEST = "manifest_pretraining.json", "manifest_codes.json"
DATASET = "synthetic_shapes"
CAPTIONS_SHOWN = 2  # of a scene; the files for finetuning have five
ENCODED = 64  # images that are encoded together
# of objects, in the order of their numbers
NAMES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)

# images of one size -> the codes of each, in rows
Encode = Callable[[Sequence[Image.Image]], Any]


def file_name(kind: str, split: str) -> str:
    """``text``, ``train`` -> ``text_examples.tsv``; ``text``, ``val`` -> ``text_val.tsv``."""
    return f"{kind}_{'examples' if split == 'train' else split}.tsv"


def write_pretraining(
    folder: str, counts: dict[str, int], size: int, seed: int, image_format: str
) -> PreparedFolder:
    """The files without codes, beside those of ``write_world``, whose images they take.

    Args: counts: scenes of ``train``, ``val`` and ``test``. size: side of the images, pixels.
    """
    plan = fingerprint(
        f"picture-world pretraining {WORLD}.{VERSION}", counts, size, seed, image_format
    )
    out = PreparedFolder(folder, plan, "ofa prepare synthetic-shapes --pretrain", manifest=MANIFEST)
    if out.is_finished():
        return out
    for split, scenes in make_scenes(seed, counts).items():
        for kind, rows in (
            ("vision_language", functools.partial(pair_rows, size=size)),
            ("detection", functools.partial(object_rows, size=size)),
        ):
            groups = [Group(scene, tuple(rows(scene))) for scene in scenes]
            if (kind, split) == ("vision_language", "test"):
                groups += [Group(scene, tuple(phrase_rows(scene, size))) for scene in scenes]
            shown = [bool(group.rows) for group in groups]
            out.write_groups(
                file_name(kind, split),
                list(itertools.compress(groups, shown)),
                functools.partial(images_of, out, split, scenes, shown),
            )
        unseen = make_split(seed, f"{split} texts", len(scenes))  # told, never shown
        lines = [
            f"{scene.scene_id}_{number}\t{text}\n"
            for scene in [*scenes, *unseen]
            for number, text in enumerate(texts(scene))
        ]
        # an evaluation may take the first ones
        random.Random(f"texts/{seed}/{split}").shuffle(lines)
        out.write_text(file_name("text", split), "".join(lines), len(lines))
    out.save_manifest(finished=True)
    return out


def images_of(
    out: PreparedFolder, split: str, scenes: Sequence[Scene], shown: Sequence[bool], first: int
) -> Iterator[str]:
    """Base64 of the images of a file that goes through the scenes of a split once or twice, from
    the given group on.

    Args: shown: whether a scene has rows, one per scene and time.
    """
    times = range(len(shown) // len(scenes))
    every = itertools.chain.from_iterable(images_again(out, split, len(scenes)) for _ in times)
    return itertools.islice(itertools.compress(every, shown), first, None)


def pair_rows(scene: Scene, size: int) -> Iterator[tuple[str, ...]]:
    """Rows of captions, questions and boxes."""
    objects = JOIN.join(dict.fromkeys(f"{thing.color} {thing.shape}" for thing in scene.things))
    for number, caption in enumerate(captions(scene)[:CAPTIONS_SHOWN]):
        yield f"{scene.scene_id}_c{number}", IMAGE, caption, "", "", objects, DATASET, "caption"
    for number, question in enumerate(questions(scene)):
        yield (
            f"{scene.scene_id}_q{number}",
            IMAGE,
            "",
            question.text,
            f"1.0{CONFIDENCE}{question.answer}",
            objects,
            DATASET,
            "qa",
        )
    for number, (text, box) in enumerate(boxes_of(expressions(scene), size)):
        yield f"{scene.scene_id}_b{number}", IMAGE, text, "", box, "", DATASET, "visual_grounding"


def phrase_rows(scene: Scene, size: int) -> Iterator[tuple[str, ...]]:
    """Rows of the other phrases that mean the regions of ``pair_rows``: an answer is right if it
    is any of them."""
    known = dict(expressions(scene))
    every = (
        (f"the {phrase.text()}", thing)
        for thing in scene.things
        for phrase in pointing_at(scene, thing)
    )
    for number, (text, box) in enumerate(
        boxes_of([(text, thing) for text, thing in every if text not in known], size)
    ):
        yield f"{scene.scene_id}_p{number}", IMAGE, text, "", box, "", DATASET, "visual_grounding"


def object_rows(scene: Scene, size: int) -> Iterator[tuple[str, ...]]:
    """The row of a scene's objects."""
    found = []
    for thing in scene.things:
        label = f"{thing.color} {thing.shape}"
        found.append(
            ",".join(
                [*(f"{v:g}" for v in thing.box_px(size, size)), str(NAMES.index(label)), label]
            )
        )
    yield scene.scene_id, IMAGE, JOIN.join(found)


# -------------------------------------------------------------------------------------------------
# codes


def write_codes(
    folder: str,
    counts: dict[str, int],
    size: int,
    seed: int,
    image_format: str,
    encode: Encode,
    tokenizer: str,
    drawings: int = 0,
) -> PreparedFolder:
    """The files with codes.

    Args: encode: the tokenizer. tokenizer: a digest of its weights; other weights make other files.
        drawings: further scenes to learn drawing from: their codes take little room, and with few
        images a model learns their grain by heart.
    """
    plan = fingerprint(
        f"picture-world codes {WORLD}.{CODES_VERSION}",
        counts,
        size,
        seed,
        image_format,
        tokenizer,
        drawings,
    )
    out = PreparedFolder(
        folder, plan, "ofa prepare synthetic-shapes --pretrain --tokenizer", manifest=CODES_MANIFEST
    )
    if out.is_finished():
        return out
    splits = make_scenes(seed, counts)
    unseen = {scene.description() for split in ("val", "test") for scene in splits[split]}
    for split, scenes in splits.items():
        out.write_groups(
            file_name("image", split),
            [Group(scene, ((scene.scene_id, IMAGE),)) for scene in scenes],
            functools.partial(images_and_middles, out, split, scenes, size, encode),
        )
        drawn = (
            [*scenes, *make_split(seed, "drawings", drawings, unseen)]
            if split == "train"
            else scenes
        )
        out.write_groups(
            f"image_gen_{split}.tsv",
            [Group(scene, tuple(drawing_rows(scene))) for scene in drawn],
            functools.partial(wholes, drawn, size, encode),
        )
    out.save_manifest(finished=True)
    return out


def drawing_rows(scene: Scene) -> Iterator[tuple[str, ...]]:
    """The caption to draw by. The codes stand in place of an image."""
    yield f"{scene.scene_id}_0", IMAGE, drawing_caption(scene)


def drawing_caption(scene: Scene) -> str:
    """``a small red circle at the top left and a large blue star in the middle on gray dots``"""
    things = [f"{name(thing, size=thing.size)} {where(thing)}" for thing in scene.things]
    return f"{listing(things)} on {scene.backdrop} {scene.texture}"


def wholes(scenes: Sequence[Scene], size: int, encode: Encode, first: int) -> Iterator[str]:
    """Codes of whole images from the given one on."""
    return coded((render(scene, size) for scene in scenes[first:]), encode)


def images_and_middles(
    out: PreparedFolder, split: str, scenes: Sequence[Scene], size: int, encode: Encode, first: int
) -> Iterator[str]:
    """Base64 of each image and, as one more column, the codes of its middle."""
    middle = (size // 4, size // 4, size // 4 + size // 2, size // 4 + size // 2)
    codes = coded((render(scene, size).crop(middle) for scene in scenes[first:]), encode)
    yield from map("\t".join, zip(images_again(out, split, len(scenes), first), codes))


def coded(images: Iterator[Image.Image], encode: Encode) -> Iterator[str]:
    """The codes of each image as text."""
    while batch := list(itertools.islice(images, ENCODED)):
        yield from map(codes_to_text, encode(batch))


def digest_of(path: str | Path) -> str:
    """What tells one tokenizer from another: its files."""
    import hashlib

    path = Path(path)
    files = (
        sorted(file for file in path.iterdir() if file.suffix in (".pt", ".ckpt", ".yaml"))
        if path.is_dir()
        else [path]
    )
    return json.dumps(
        [
            hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.name != "training.pt"
        ]
    )
