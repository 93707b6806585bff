"""Synthetic shapes as training files in the columns of upstream.

Finetuning: the files of every captioning data set (``ofa.prepare.tsv_writer``), ``vqa_*.tsv``,
``refcoco_*.tsv`` (boxes in pixels) and their training columns as text files, and the scenes.
Pretraining, in English: questions, captions and boxes of an image; its shapes from left to right;
sentences about these scenes and others, never shown. The test rows of regions end with all other
phrases that mean the same. Codes: of the middle of an image, half the side; of whole images, with
captions that tell all things and where they lie, also of scenes that no other file has.
``..._val.tsv`` and ``..._test.tsv`` hold the scenes of those splits.
"""

import functools
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from ofa.errors import UserError
from ofa.io.fingerprint import sha256_of
from ofa.io.flags import action, option
from ofa.io.resumable import fingerprint
from ofa.prepare import negatives, tsv_writer
from ofa.prepare.image_code_columns import tokenizer_files
from ofa.prepare.source import WriteOptions, summary
from ofa.prepare.tsv_writer import IMAGE, CaptionedImage, Group, PreparedFolder
from ofa.synthetic.shapes import COLORS, SHAPES, Box, Scene, Shape, encode, make_split, make_splits
from ofa.synthetic.shapes import render as draw
from ofa.synthetic.shapes_language import ENGLISH, LANGUAGES
from ofa.synthetic.shapes_phrases import pointing_at
from ofa.task.text import CONFIDENCE, JOIN
from ofa.tokens.image_codes import codes_to_text

VERSION, PRETRAINING_VERSION, CODES_VERSION = 4, 3, 2
DATASET = "synthetic_shapes"
CAPTIONS_SHOWN = 2  # of a scene in pretraining; the files for finetuning have five
ENCODED = 64  # images that are encoded together
# of objects, in the order of their numbers
NAMES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)

Pairs = Sequence[tuple[str, str]]  # questions and answers, or expressions and boxes
Rows = Iterable[tuple[str, ...]]
# images of one size -> the codes of each, in rows
Encode = Callable[[Sequence[Image.Image]], Any]


@dataclass(frozen=True, kw_only=True)
class ShapesFolder(WriteOptions):
    """Files that are made of the same scenes."""

    train: int = option(10000, "training scenes", least=1)
    val: int = option(100, "validation scenes", least=1)
    test: int = option(300, "test scenes", least=1)
    size: int = option(64, "side of the square images in pixels", least=1)
    image_format: Literal["jpeg", "png"] = option("jpeg", "format of the images")
    language: Literal["en", "zh"] = option("en", "language of captions, questions and expressions")
    pretrain: bool = option(False, "also write the files of pretraining, for all three splits")
    tokenizer: str | None = option(None, "image tokenizer for files with codes, with --pretrain")
    drawings: int = option(0, "further scenes of image_gen_train.tsv, with --tokenizer", least=1)

    @property
    def counts(self) -> dict[str, int]:
        return {"train": self.train, "val": self.val, "test": self.test}

    @functools.cached_property
    def scenes(self) -> dict[str, list[Scene]]:
        return make_splits(self.seed, self.counts)

    def write_finetuning(self) -> PreparedFolder:
        words, more = LANGUAGES[self.language], [self.language] * (self.language != "en")
        settings = (*self.counts.values(), self.size, self.seed, self.image_format, *more)
        plan = fingerprint(f"picture-world {VERSION}", *settings)
        out = PreparedFolder(self.out, plan, "ofa prepare synthetic-shapes")
        if out.is_finished():
            return out

        images = {
            split: [CaptionedImage(s.scene_id, tuple(words.captions(s)), s) for s in scenes]
            for split, scenes in self.scenes.items()
        }
        file = functools.partial(encode, size=self.size, image_format=self.image_format)
        tsv_writer.write_caption_files(out, images, file, self.jobs)
        columns: dict[str, Iterable[str]] = {}
        for split, scenes in self.scenes.items():
            asked = list(map(words.questions, scenes))
            meant = [self._boxes(words.expressions(scene)) for scene in scenes]
            self._write_rows(out, f"vqa_{split}.tsv", split, question_rows(scenes, asked))
            self._write_rows(out, f"refcoco_{split}.tsv", split, map(box_rows, scenes, meant))
            if split == "train":
                told = (*zip(*itertools.chain(*asked)), *zip(*itertools.chain(*meant)))
                columns = dict(zip(("questions", "answers", "expressions", "boxes"), told))
        labels = {answer: label for label, answer in enumerate(words.answers())}
        text = json.dumps(labels, indent=1, ensure_ascii=False) + "\n"
        out.write_text("ans2label.json", text, len(labels))
        for name, column in columns.items():
            out.write_lines(f"{name}.txt", column)
        records = (
            {**image.source.to_json(self.size), "captions": image.captions}
            for image in itertools.chain(*images.values())
        )
        out.write_lines("scenes.jsonl", (json.dumps(one, ensure_ascii=False) for one in records))
        out.save_manifest(finished=True)
        return out

    def write_pretraining(self) -> PreparedFolder:
        """The files without codes, beside those of ``write_finetuning``, whose images they take."""
        version = f"picture-world pretraining {VERSION}.{PRETRAINING_VERSION}"
        out = self._folder(version, "pretraining", "--pretrain")
        if out.is_finished():
            return out
        for split, scenes in self.scenes.items():
            more = map(self._phrase_rows, scenes if split == "test" else ())
            pairs = itertools.chain(map(self._pair_rows, scenes), more)
            self._write_rows(out, file_name("vision_language", split), split, pairs)
            objects = map(self._object_rows, scenes)
            self._write_rows(out, file_name("detection", split), split, objects)
            unseen = make_split(self.seed, f"{split} texts", len(scenes))  # told, never shown
            lines = [
                f"{scene.scene_id}_{number}\t{text}"
                for scene in (*scenes, *unseen)
                for number, text in enumerate(ENGLISH.pretraining_texts(scene))
            ]
            # an evaluation may take the first ones
            random.Random(f"texts/{self.seed}/{split}").shuffle(lines)
            out.write_lines(file_name("text", split), lines)
        out.save_manifest(finished=True)
        return out

    def write_codes(self, encode: Encode, tokenizer: str) -> PreparedFolder:
        """The files with codes; of few images a model learns the grain by heart, so drawings may be
        more. Args: encode, tokenizer: it, and a digest of its weights."""
        version = f"picture-world codes {VERSION}.{CODES_VERSION}"
        out = self._folder(version, "codes", "--pretrain --tokenizer", tokenizer, self.drawings)
        if out.is_finished():
            return out
        held_out = {s.description() for split in ("val", "test") for s in self.scenes[split]}
        for split, scenes in self.scenes.items():
            groups = [Group(scene, ((scene.scene_id, IMAGE),)) for scene in scenes]
            middles = functools.partial(self._images_and_middles, split, encode)
            out.write_groups(file_name("image", split), groups, middles)
            count = self.drawings if split == "train" else 0
            drawn = [*scenes, *make_split(self.seed, "drawings", count, held_out)]
            rows = ((f"{s.scene_id}_0", IMAGE, ENGLISH.complete_caption(s)) for s in drawn)
            wholes = functools.partial(self._codes, drawn, encode, (0, 0, self.size, self.size))
            out.write_groups(
                f"image_gen_{split}.tsv", [Group(None, (row,)) for row in rows], wholes
            )
        out.save_manifest(finished=True)
        return out

    def _folder(self, version: str, name: str, flags: str, *more: object) -> PreparedFolder:
        """The folder with a manifest of its own for these files. Args: more: settings."""
        plan = fingerprint(version, self.counts, self.size, self.seed, self.image_format, *more)
        command = f"ofa prepare synthetic-shapes {flags}"
        return PreparedFolder(self.out, plan, command, manifest=f"manifest_{name}.json")

    def _write_rows(self, out: PreparedFolder, name: str, split: str, rows: Iterable[Rows]) -> None:
        """A file of the rows of each scene of a split, once or several times. A scene without rows
        is not in it: of two twins one above the other none can be pointed at."""
        shown = zip(itertools.cycle(self._images(split)), map(tuple, rows))
        out.embed(name, [Group(image, found) for image, found in shown if found], str, jobs=1)

    def _images(self, split: str) -> list[str]:
        """Base64 of the images of a split, as the caption file has them."""
        name = f"caption_{'stage2_train' if split == 'train' else split}.tsv"
        return [*tsv_writer.last_column(Path(self.out, name))]

    def _images_and_middles(self, split: str, encode: Encode, first: int) -> Iterator[str]:
        """Base64 of each image and, as one more column, the codes of its middle."""
        start, end = self.size // 4, self.size // 4 + self.size // 2
        codes = self._codes(self.scenes[split], encode, (start, start, end, end), first)
        return map("\t".join, zip(self._images(split)[first:], codes))

    def _codes(self, scenes: list[Scene], encode: Encode, part: Box, first: int) -> Iterator[str]:
        """The codes of a part (xyxy in pixels) of each image from the given one on, as text."""
        images = (draw(scene, self.size).crop(part) for scene in scenes[first:])
        while batch := list(itertools.islice(images, ENCODED)):
            yield from map(codes_to_text, encode(batch))

    def _boxes(self, expressions: Iterable[tuple[str, Shape]]) -> Pairs:
        """Expressions and the boxes of what they mean."""
        return [(text, self._box(thing)) for text, thing in expressions]

    def _box(self, thing: Shape) -> str:
        """``x0,y0,x1,y1`` in pixels."""
        return ",".join(f"{v:g}" for v in thing.box_px(self.size))

    def _pair_rows(self, scene: Scene) -> Rows:
        """Captions, questions and boxes."""
        objects = JOIN.join(dict.fromkeys(" ".join(thing.look) for thing in scene.things))
        for number, caption in enumerate(ENGLISH.captions(scene)[:CAPTIONS_SHOWN]):
            row_id = f"{scene.scene_id}_c{number}"
            yield row_id, IMAGE, caption, "", "", objects, DATASET, "caption"
        for number, (text, answer) in enumerate(ENGLISH.questions(scene)):
            row_id, answers = f"{scene.scene_id}_q{number}", f"1.0{CONFIDENCE}{answer}"
            yield row_id, IMAGE, "", text, answers, objects, DATASET, "qa"
        yield from self._region_rows(f"{scene.scene_id}_b", ENGLISH.expressions(scene))

    def _phrase_rows(self, scene: Scene) -> Rows:
        """The other phrases that mean the regions of ``_pair_rows``: any of them is right."""
        known = dict(ENGLISH.expressions(scene))
        every = (
            (thing, ENGLISH.the(p)) for thing in scene.things for p in pointing_at(scene, thing)
        )
        others = ((text, thing) for thing, text in every if text not in known)
        return self._region_rows(f"{scene.scene_id}_p", others)

    def _region_rows(self, prefix: str, expressions: Iterable[tuple[str, Shape]]) -> Rows:
        for number, (text, box) in enumerate(self._boxes(expressions)):
            yield f"{prefix}{number}", IMAGE, text, "", box, "", DATASET, "visual_grounding"

    def _object_rows(self, scene: Scene) -> Rows:
        """One row of all objects."""
        named = ((thing, " ".join(thing.look)) for thing in scene.things)
        cells = (f"{self._box(thing)},{NAMES.index(name)},{name}" for thing, name in named)
        yield scene.scene_id, IMAGE, JOIN.join(cells)


def question_rows(scenes: Sequence[Scene], asked: Sequence[Pairs]) -> Iterator[Rows]:
    """Of each scene. Questions are numbered, as in VQA, from 1 on."""
    number = itertools.count(1)
    for scene, pairs in zip(scenes, asked):
        objects = JOIN.join(thing.shape for thing in scene.things)
        cells = ((text, f"1.0{CONFIDENCE}{answer}", objects, IMAGE) for text, answer in pairs)
        yield [(str(next(number)), scene.scene_id, *cell) for cell in cells]


def box_rows(scene: Scene, meant: Pairs) -> Rows:
    for number, (text, box) in enumerate(meant):
        yield f"{scene.scene_id}_{number}", scene.scene_id, text, box, IMAGE


def file_name(kind: str, split: str) -> str:
    """``text``, ``train`` -> ``text_examples.tsv``; ``text``, ``val`` -> ``text_val.tsv``."""
    return f"{kind}_{'examples' if split == 'train' else split}.tsv"


@action
def synthetic_shapes(args: ShapesFolder) -> None:
    """Draw the scenes of three splits and write what is said and asked of them.

    Writes the files of coco-captions, vqa_*.tsv with ans2label.json, refcoco_*.tsv, the texts of
    both, and scenes.jsonl (shapes, colors, boxes). --pretrain: vision_language_, text_ and
    detection_examples.tsv and negative_sample/; with --tokenizer also image_examples.tsv (codes of
    the center) and image_gen_*.tsv (of the whole image).
    """
    if args.tokenizer and not args.pretrain:
        raise UserError("--tokenizer: codes of images are for pretraining; add --pretrain")
    if args.drawings and not args.tokenizer:
        raise UserError("--drawings: scenes to draw are files of codes; give a --tokenizer")
    if args.pretrain and args.language != "en":
        raise UserError("--pretrain: the texts of pretraining are English; give --language en")
    encode = tokenizer_of(args.tokenizer, args.size) if args.tokenizer else None
    summary(args.write_finetuning())
    if args.pretrain:
        summary(args.write_pretraining())
        pairs, objects = (
            f"{args.out}/{file_name(kind, 'train')}" for kind in ("vision_language", "detection")
        )
        out = f"{args.out}/negative_sample"
        negatives.build(negatives.NegativesOptions(data=(pairs,), detection=(objects,), out=out))
    if args.tokenizer and encode:
        digests = map(sha256_of, sorted(tokenizer_files(Path(args.tokenizer))))
        summary(args.write_codes(encode, json.dumps([*digests])))


def tokenizer_of(path: str, size: int) -> Encode:
    """What encodes images. Raises: UserError if it is no tokenizer, or does not fit the images."""
    from ofa.models.image_tokenizer.codec import encode_images, load_image_tokenizer

    tokenizer = load_image_tokenizer(path)
    if size % (2 * tokenizer.factor):
        raise UserError(
            f"--size {size}: a tokenizer of {tokenizer.factor} pixels per code expects a"
            f" multiple of {2 * tokenizer.factor} (codes of the image and of its middle); choose"
            " another size"
        )
    return functools.partial(encode_images, tokenizer)
