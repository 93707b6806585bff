"""Synthetic words: small images of made-up words, from which OFA learns to read in minutes.

Letters come by chance, so nothing but the image tells the next one. Everything about an image is a
function of ``(seed, split, index)`` and the style, in the font that Pillow brings along.

    >>> word = make_word(WordStyle(), "train", 0)
    >>> word.text, render(word, WordStyle()).size
    ('i8fv', (96, 32))
"""

import functools
import random
import string
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ofa.errors import UserError
from ofa.io.flags import action, option, options_of
from ofa.io.image_grid import as_field
from ofa.io.jobs import JobsOptions
from ofa.io.resumable import fingerprint
from ofa.prepare.source import OutOptions, summary
from ofa.prepare.tsv_writer import IMAGE, Group, PreparedFolder

VERSION = 1
LETTERS = string.ascii_lowercase + string.digits
TRIES = 10000  # words drawn before a split is called empty
OVERSAMPLING = 4  # letters are drawn this much larger and reduced, which smooths their edges
FONT_SIZE = 100  # pixels, before a word is brought to its size
MARGIN = 0.06  # free space on each side, as a part of the image's height
TURN = 3.0  # degrees by which a word may be turned
CONTRAST = 90  # gray levels between letters and background at least
GRAY = (0.299, 0.587, 0.114)
Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class WordStyle:
    """Words and images. ``plain`` words are as large as they fit, in the middle, not turned."""

    seed: int = option(1, "seed of all random choices")
    width: int = option(96, "width of the images in pixels", least=8)
    height: int = option(32, "height of the images in pixels", least=8)
    letters: str = option(LETTERS, "letters and digits of the words")
    shortest: int = option(3, "letters of a word at least", least=1)
    longest: int = option(6, "letters of a word at most", least=1)
    plain: bool = option(False, "black on white, one place, one size: learned much sooner")

    def __post_init__(self):
        if not set(self.letters) <= set(LETTERS):
            raise UserError(
                f"--letters {self.letters}: expects small letters a to z and digits, which is what"
                " the texts are learned in; leave out the others"
            )
        if not 1 <= self.shortest <= self.longest:
            given = f"--shortest {self.shortest}, --longest {self.longest}"
            raise UserError(f"{given}: expects 1 <= shortest <= longest; change one of them")


@dataclass(frozen=True)
class WordImage:
    """A word and how it looks.

    Args: noise_seed: of the background's grain. ink, paper: RGB of letters and background. size: of
        the word, as a part of the largest that fits (0 to 1). place: of the word in the free space,
        from left and from top (0 to 1). turn: degrees, to the left.
    """

    image_id: str
    text: str
    noise_seed: int
    ink: Rgb = (0, 0, 0)
    paper: Rgb = (255, 255, 255)
    size: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    turn: float = 0.0


def make_word(style: WordStyle, split: str, index: int) -> WordImage:
    """Word ``index`` of an endless split."""
    rng = random.Random(f"sign world/{style.seed}/{split}/{index}")
    word = WordImage(f"{split}_{index}", _text(style, split, rng), rng.randrange(2**31))
    if style.plain:
        return word
    paper = ink = (0, 0, 0)
    while abs(np.dot(GRAY, np.subtract(paper, ink))) < CONTRAST:
        paper, ink = ((rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in "ab")
    size = round(rng.uniform(0.8, 1.0), 3)
    place = round(rng.random(), 3), round(rng.random(), 3)
    turn = round(rng.uniform(-TURN, TURN), 2)
    return replace(word, ink=ink, paper=paper, size=size, place=place, turn=turn)


def split_of(text: str) -> str:
    """The split that a word belongs to, whatever the seed: tenths of all words."""
    return {0: "test", 1: "val"}.get(zlib.crc32(text.encode()) % 10, "train")


def _text(style: WordStyle, split: str, rng: random.Random) -> str:
    for _ in range(TRIES):
        text = "".join(rng.choices(style.letters, k=rng.randint(style.shortest, style.longest)))
        if split_of(text) == split:
            return text
    raise UserError(
        f"--letters {style.letters}: expects letters enough for words of {style.shortest} to"
        f" {style.longest} letters in every split, found none for {split}; give more letters, or"
        " longer words"
    )


def make_split(style: WordStyle, split: str, count: int) -> list[WordImage]:
    return [make_word(style, split, index) for index in range(count)]


def render(word: WordImage, style: WordStyle) -> Image.Image:
    margin = round(MARGIN * style.height)
    room = style.width - 2 * margin, style.height - 2 * margin
    mask = letters(word.text).rotate(word.turn, Image.Resampling.BICUBIC, expand=True)
    scale = word.size * min(room[0] / mask.width, room[1] / mask.height)
    width, height = (max(1, round(side * scale)) for side in mask.size)
    large = mask.resize((OVERSAMPLING * width, OVERSAMPLING * height), Image.Resampling.BICUBIC)
    left, top = (
        margin + round(part * (free - side))
        for part, free, side in zip(word.place, room, (width, height))
    )
    noise = np.random.RandomState(word.noise_seed)  # the legacy generator's stream never changes
    grain = noise.randint(-6, 7, size=(style.height, style.width, 1))
    image = Image.fromarray((np.asarray(word.paper) + grain).clip(0, 255).astype(np.uint8))
    image.paste(word.ink, (left, top), large.reduce(OVERSAMPLING))
    return image


@functools.lru_cache(maxsize=4096)
def letters(text: str) -> Image.Image:
    """Gray image of a text, large, white on black, without any border."""
    font = ImageFont.load_default(FONT_SIZE)
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), text, fill=255, font=font)
    return mask


def encode(word: WordImage, style: WordStyle) -> str:
    """A PNG file in base64: small, and without the blur that JPEG gives to letters."""
    return as_field(render(word, style), optimize=True)


@dataclass(frozen=True, kw_only=True)
class WordsOptions(OutOptions, JobsOptions):
    train: int = option(10000, "training images", least=1)
    val: int = option(100, "validation images", least=1)
    test: int = option(300, "test images", least=1)
    style: dict[str, Any] = options_of(lambda: WordStyle, defaults=True)


@action
def synthetic_words(args: WordsOptions) -> None:
    """Draw the words of three splits.

    Writes ocr_train.tsv, ocr_val.tsv, ocr_test.tsv (id, image, text) and texts.txt (the training
    texts). No word of validation and test occurs in training.

    example: ofa prepare synthetic-words --letters abdhkosx --shortest 3 --longest 3 --plain --out
    dataset/signs
    """
    style = WordStyle(**args.style)
    counts = {"train": args.train, "val": args.val, "test": args.test}
    plan = fingerprint(f"sign-world {VERSION}", *counts.values(), vars(style))
    out = PreparedFolder(args.out, plan, "ofa prepare synthetic-words")
    words = {split: make_split(style, split, count) for split, count in counts.items()}
    if not out.is_finished():
        for split, found in words.items():
            groups = [Group(word, ((word.image_id, IMAGE, word.text),)) for word in found]
            out.embed(f"ocr_{split}.tsv", groups, functools.partial(encode, style=style), args.jobs)
        out.write_lines("texts.txt", (word.text for word in words["train"]))
        out.save_manifest(finished=True)
    summary(out)
