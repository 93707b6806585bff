"""Rows of the pretraining files -> samples: what the tasks ask, and images cut at random."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from ofa.data.augment import MILD, RandAugment
from ofa.data.images import image_transform, mean_and_std
from ofa.data.negatives import NegativeSampler
from ofa.data.sample import Bpe, Sample, SampleBuilder
from ofa.data.span_mask import SpanMask
from ofa.io.images import decode_image
from ofa.task.pretraining_tasks import PretrainingContext, PretrainingOptions
from ofa.task.task_spec import Example, Symbols, TaskSpec
from ofa.tokens.boxes import bins_to_text, resize_ratios, squashed_to_bins
from ofa.tokens.vocabulary import Vocabulary

READ_TOKENS, KEPT_TOKENS = 512, 256  # of a text: tokens read, and the last ones that are learned
PROMPT_TOKENS = 20  # room for the prompt round a text
FILL = (128, 128, 128)
BICUBIC = Image.Resampling.BICUBIC
JITTER = (1.0, 1.5)  # smallest and largest scale of ``jittered``

Reader = Callable[[Mapping[str, str], PretrainingContext], list[Example]]


@dataclass
class Draws:
    """Random numbers of a row, the same whenever and wherever it is read: three independent
    streams."""

    rng: random.Random
    generator: torch.Generator
    colors: random.Random

    @classmethod
    def of(cls, name: str) -> "Draws":
        generator = torch.Generator().manual_seed(random.Random(f"{name}-torch").getrandbits(63))
        return cls(random.Random(name), generator, random.Random(f"{name}-colours"))


class PretrainingBuilder:
    """Turns rows into samples, each the same whenever and wherever it is read.

    Args: spec: declares no set of answers and no augmentation. split: ``train`` or the name of an
        evaluation split, where nothing is cut at random. negatives: what does not fit, if
        image-text matching is trained.
    """

    def __init__(
        self,
        spec: TaskSpec,
        options: PretrainingOptions,
        vocabulary: Vocabulary,
        bpe: Bpe,
        split: str,
        negatives: NegativeSampler | None = None,
    ):
        self.options, self.negatives, self.seed = options, negatives, 1
        self.split = split
        self.encoder = SampleBuilder(spec, options, vocabulary, bpe, split)
        starts = [
            bpe.is_beginning_of_word(symbol) or number in vocabulary.specials
            for number, symbol in enumerate(vocabulary.symbols)
        ]
        self.mask = SpanMask(
            vocabulary.mask,
            range(vocabulary.text.start, vocabulary.text.stop),
            None if options.mask_length == "subword" else torch.tensor(starts),
            options.mask_ratio,
            options.mask_length,
            options.poisson_lambda,
            options.replace_length,
            options.random_ratio,
            options.keep_ratio,
        )
        self.statistics = mean_and_std(options.imagenet_default_mean_and_std)
        self.square = image_transform(options.patch_image_size, *self.statistics)
        self.code_square = image_transform(2 * options.code_image_size, *self.statistics)

    def draws(self, epoch: int, index: int, purpose: str) -> Draws:
        return Draws.of(f"{self.seed}-{self.options.pretrain_seed}-{epoch}-{index}-{purpose}")

    def __call__(
        self, reader: Reader, row: Mapping[str, str], draws: Draws, where: str = "", index: int = 0
    ) -> list[Sample]:
        """The samples that ``reader`` makes of a row. Raises: UserError naming ``where``."""
        images = (TrainingImages if self.split == "train" else EvaluationImages)(self, draws)
        context = PretrainingContext(
            options=self.options,
            split=self.split,
            language="en",
            open_image=partial(decode_image, where=where),
            where=where,
            index=index,
            rng=draws.rng,
            images=images,
            negatives=self.negatives,
        )
        return [self.encode(example) for example in reader(row, context)]

    def encode(self, example: Example) -> Sample:
        """Token ids and pixels. What the model has no positions for is cut off."""
        example.max_source_tokens = self.options.max_source_positions - 2
        if not bool(example.extra["code_mask"]):
            example.max_target_tokens = self.options.max_target_positions - 1
        return self.encoder.encode(example, None)


class EvaluationImages:
    """Images squashed to a square, with all of their boxes. Location bins are those of a box in
    pixels of what the model sees; its squares have the side S, those of auxiliary rows S'."""

    def __init__(self, builder: PretrainingBuilder, draws: Draws):
        self.builder, self.options, self.draws = builder, builder.options, draws

    def full_view(self, image: Image.Image) -> Tensor:
        """float32[3, S, S] of an image with a text."""
        return self.builder.square(image)

    def crop_around_box(self, image: Image.Image, box: Sequence[float]) -> tuple[Tensor, Symbols]:
        """float32[3, S, S] that shows the box, and its bins."""
        (squashed,) = self.squashed(image, [box], self.options.patch_image_size)
        return self.builder.square(image), self.bins(squashed)

    def detection_view(
        self, image: Image.Image, boxes: Sequence[Sequence[float]]
    ) -> tuple[Tensor, list[tuple[int, Symbols]]]:
        """float32[3, S', S'], and those boxes that are in it: number and bins."""
        squashed = self.squashed(image, boxes, 2 * self.options.code_image_size)
        return self.builder.code_square(image), list(enumerate(map(self.bins, squashed)))

    def mask_center(self, image: Image.Image) -> Tensor:
        """float32[3, S', S'] whose middle is gray."""
        pixels = self.builder.code_square(image)
        middle = slice(self.options.code_image_size // 2, self.options.code_image_size * 3 // 2)
        pixels[:, middle, middle] = 0
        return pixels

    def blank_image(self) -> Tensor:
        """What stands for an image where there is none: float32[3, S', S']."""
        return torch.zeros(3, 2 * self.options.code_image_size, 2 * self.options.code_image_size)

    def corrupt_spans(self, text: str) -> tuple[Symbols, Symbols]:
        """A text with masks, and the whole text."""
        vocabulary, options = self.builder.encoder.vocabulary, self.options
        positions = min(options.max_source_positions, options.max_target_positions)
        kept = max(1, min(KEPT_TOKENS, (positions - PROMPT_TOKENS) * 3 // 4))
        tokens = vocabulary.ids(self.builder.encoder.bpe.encode(text))[:READ_TOKENS][-kept:]
        sentence = torch.tensor([vocabulary.bos, *tokens, vocabulary.eos])
        masked = self.builder.mask(sentence, self.draws.generator)[1:-1].tolist()
        masked_pieces, pieces = (vocabulary.pieces(ids, drop=()) for ids in (masked, tokens))
        return Symbols(masked_pieces), Symbols(pieces)

    def bins(self, box: Tensor) -> Symbols:
        bins = squashed_to_bins(box, self.options.max_image_size, self.options.num_bins)
        return Symbols(bins_to_text(bins))

    def squashed(self, image: Image.Image, boxes: Sequence[Sequence[float]], side: int) -> Tensor:
        x, y = resize_ratios(image.size, side)
        return torch.tensor(boxes, dtype=torch.float32) * torch.tensor([x, y, x, y])


class TrainingImages(EvaluationImages):
    """Images cut at random: enlarged, then a square from the middle, round an object, or from
    anywhere."""

    augment = RandAugment(MILD, 7, 0.0, FILL)

    def full_view(self, image: Image.Image) -> Tensor:
        square = F.center_crop(self.enlarge(image), [self.options.patch_image_size] * 2)
        changed = square if self.options.plain_images else self.augment(square, self.draws.colors)
        return self.pixels(changed)

    def crop_around_box(self, image: Image.Image, box: Sequence[float]) -> tuple[Tensor, Symbols]:
        larger = self.enlarge(image)
        moved = scaled(torch.tensor([box], dtype=torch.float32), image.size, larger.size)[0]
        square, moved = square_around(larger, moved, self.options.patch_image_size)
        return self.pixels(square), self.bins(moved)

    def detection_view(
        self, image: Image.Image, boxes: Sequence[Sequence[float]]
    ) -> tuple[Tensor, list[tuple[int, Symbols]]]:
        corners = torch.tensor(boxes, dtype=torch.float32)
        if self.draws.rng.random() < 0.5:
            image, corners = flipped(image, corners)
        side = 2 * self.options.code_image_size
        square, corners = jittered(image, corners, side, self.draws.generator)
        found = [(number, self.bins(corners[number])) for number in visible(corners)]
        return self.pixels(square), found

    def enlarge(self, image: Image.Image) -> Image.Image:
        largest, longest = self.options.enlargement
        sides = range(self.options.patch_image_size, largest + 1)
        return enlarged(image, sides, longest, self.draws.rng)

    def pixels(self, square: Image.Image) -> Tensor:
        return F.normalize(F.to_tensor(square), *self.builder.statistics)


# --- cuts of images that carry their boxes along ---------------------------------------------
#
# Boxes are float32[N, 4], xyxy, in pixels of the image that goes in or comes out. Draws and
# rounding are those of upstream (tests/parity/test_unify_samples.py).


def enlarged(
    image: Image.Image, sides: Sequence[int], longest: int, rng: random.Random
) -> Image.Image:
    """The shorter side becomes one of ``sides``, the longer one follows, but not beyond
    ``longest`` pixels."""
    side = rng.choice(sides)
    width, height = image.size
    if min(width, height) == side:
        size = min(width, longest), min(height, longest)
    elif width < height:
        size = side, min(int(side * height / width), longest)
    else:
        size = min(int(side * width / height), longest), side
    return image.resize(size, BICUBIC)


def scaled(boxes: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Boxes of an image that was resized. Args: before, after: its width and height."""
    x, y = (float(new) / float(old) for new, old in zip(after, before))
    return boxes * torch.tensor([x, y, x, y])


def square_around(image: Image.Image, box: Tensor, size: int) -> tuple[Image.Image, Tensor]:
    """A square of ``size`` pixels with the middle of ``box`` in its middle, as far as the image
    allows.

    Args: box: float32[4]. Returns: the square, the box in it (what lies outside is cut off).
    """
    x0, y0, x1, y1 = map(float, box)
    left, top = (
        first_pixel((low + high) / 2, size, whole)
        for low, high, whole in ((x0, x1, image.width), (y0, y1, image.height))
    )
    square = image.crop((round(left), round(top), round(left + size), round(top + size)))
    return square, cut(box, left, top, size)


def first_pixel(middle: float, size: int, whole: int) -> float:
    """Where a cut of ``size`` pixels begins so that ``middle`` is in its middle and it ends
    inside."""
    return max(middle - size / 2 + min(whole - middle - size / 2, 0), 0)


def cut(boxes: Tensor, left: float, top: float, size: int) -> Tensor:
    """Boxes in a square of the image, clipped to it."""
    return (boxes - torch.tensor([left, top, left, top])).clamp(0, size)


def flipped(image: Image.Image, boxes: Tensor) -> tuple[Image.Image, Tensor]:
    """The mirror image, left and right changed."""
    x0, y0, x1, y1 = boxes.unbind(1)
    mirrored = torch.stack([image.width - x1, y0, image.width - x0, y1], dim=1)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mirrored


def jittered(
    image: Image.Image, boxes: Tensor, size: int, generator: torch.Generator
) -> tuple[Image.Image, Tensor]:
    """A square of ``size`` pixels from anywhere in the image, whose shorter side is 1 to 1.5
    squares.

    Returns: the square, the boxes clipped to it (nothing may be left of some: see ``visible``).
    Source: large scale jitter, Ghiasi et al., Simple Copy-Paste, CVPR 2021.
    """
    whole = torch.tensor([image.height, image.width])
    low, high = JITTER
    random_scale = torch.rand(1, generator=generator) * (high - low) + low
    target = (random_scale * size).round()
    scale = torch.maximum(target / whole[0], target / whole[1])
    height, width = (whole * scale).round().int().tolist()
    before, image = image.size, image.resize((width, height), BICUBIC)
    boxes = scaled(boxes, before, image.size)
    room = torch.tensor([height - size, width - size])
    top, left = (room * torch.rand(2, generator=generator)).floor().int().tolist()
    return image.crop((left, top, left + size, top + size)), cut(boxes, left, top, size)


def visible(boxes: Tensor) -> list[int]:
    """Numbers of the boxes that have an area."""
    return ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero()[:, 0].tolist()
