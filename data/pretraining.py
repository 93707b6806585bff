"""Rows of the pretraining files -> samples: what the tasks ask, images cut at random, texts with
masked spans."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from ofa.data.cuts import enlarged, flipped, jittered, scaled, square_around, visible
from ofa.data.images import normalized, pixels_of, squashed
from ofa.data.negatives import NegativeSampler
from ofa.data.sample import Sample, SampleBuilder
from ofa.errors import UserError
from ofa.io.images import decode_image
from ofa.task.pretraining_tasks import PretrainingContext, PretrainingOptions
from ofa.task.task_spec import Example, Symbols, TaskSpec
from ofa.tokens.boxes import bins_to_text, squashed_to_bins
from ofa.tokens.bpe import Bpe
from ofa.tokens.vocabulary import Vocabulary

READ_TOKENS, KEPT_TOKENS = 512, 256  # of a text: tokens read, and the last ones that are learned
PROMPT_TOKENS = 20  # room for the prompt round a text
FILL = (128, 128, 128)
LENGTHS = ("span-poisson", "word", "subword")
RAREST, LONGEST = 1e-7, 127  # spans that are less probable, or longer in words, are not drawn

Reader = Callable[[Mapping[str, str], PretrainingContext], list[Example]]


@dataclass
class RandomStreams:
    """Three independent streams of random numbers of a row, the same wherever it is read."""

    rng: random.Random
    generator: torch.Generator
    colors: random.Random

    @classmethod
    def of(cls, name: str) -> "RandomStreams":
        generator = torch.Generator().manual_seed(random.Random(f"{name}-torch").getrandbits(63))
        return cls(random.Random(name), generator, random.Random(f"{name}-colours"))


class PretrainingBuilder(SampleBuilder):
    """Turns rows into samples, each the same whenever and wherever it is read.

    Args: spec: declares no set of answers and no augmentation. split: ``train`` or the name of an
        evaluation split, where nothing is cut at random. negatives: what does not fit, if
        image-text matching is trained.
    """

    options: PretrainingOptions

    def __init__(
        self,
        spec: TaskSpec,
        options: PretrainingOptions,
        vocabulary: Vocabulary,
        bpe: Bpe,
        split: str,
        negatives: NegativeSampler | None = None,
    ):
        super().__init__(spec, options, vocabulary, bpe, split)
        self.negatives = negatives
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

    def streams(self, epoch: int, index: int, purpose: str) -> RandomStreams:
        return RandomStreams.of(
            f"{self.seed}-{self.options.pretrain_seed}-{epoch}-{index}-{purpose}"
        )

    def samples(
        self,
        reader: Reader,
        row: Mapping[str, str],
        streams: RandomStreams,
        where: str = "",
        index: int = 0,
    ) -> list[Sample]:
        """The samples that ``reader`` makes of a row. Raises: UserError naming ``where``."""
        context = PretrainingContext(
            options=self.options,
            split=self.split,
            language="en",
            open_image=partial(decode_image, where=where),
            where=where,
            index=index,
            rng=streams.rng,
            images=(TrainingImages if self.split == "train" else EvaluationImages)(self, streams),
            negatives=self.negatives,
        )
        examples = reader(row, context)
        for example in examples:  # what the model has no positions for is cut off
            example.max_source_tokens = self.options.max_source_positions - 2
            if not bool(example.extra["code_mask"]):
                example.max_target_tokens = self.options.max_target_positions - 1
        return [self.encode(example, None) for example in examples]


class EvaluationImages:
    """Images squashed to a square, with all of their boxes. Location bins are those of a box in
    pixels of what the model sees; its squares have the side S, those of auxiliary rows S'.
    Auxiliary rows, which may have no image or an image without its middle, are float32 always."""

    def __init__(self, builder: PretrainingBuilder, streams: RandomStreams):
        self.builder, self.options, self.streams = builder, builder.options, streams

    def full_view(self, image: Image.Image) -> Tensor:
        """[3, S, S] of an image with a text."""
        return self.builder.square(image)

    def crop_around_box(self, image: Image.Image, box: Sequence[float]) -> tuple[Tensor, Symbols]:
        """[3, S, S] that shows the box, and its bins."""
        side = self.options.patch_image_size
        return self.builder.square(image), self.bins(scaled([box], image.size, (side, side))[0])

    def detection_view(
        self, image: Image.Image, boxes: Sequence[Sequence[float]]
    ) -> tuple[Tensor, list[tuple[int, Symbols]]]:
        """float32[3, S', S'], and those boxes that are in it: number and bins."""
        side = 2 * self.options.code_image_size
        squashed = scaled(boxes, image.size, (side, side))
        return self.code_square(image), list(enumerate(map(self.bins, squashed)))

    def mask_center(self, image: Image.Image) -> Tensor:
        """float32[3, S', S'] whose middle is gray."""
        pixels = self.code_square(image)
        middle = slice(self.options.code_image_size // 2, self.options.code_image_size * 3 // 2)
        pixels[:, middle, middle] = 0
        return pixels

    def code_square(self, image: Image.Image) -> Tensor:
        return self.pixels(squashed(image, 2 * self.options.code_image_size))

    def pixels(self, square: Image.Image) -> Tensor:
        return normalized(pixels_of(square), self.builder.statistics)

    def blank_image(self) -> Tensor:
        """What stands for an image where there is none: float32[3, S', S']."""
        return torch.zeros(3, *[2 * self.options.code_image_size] * 2)

    def corrupt_spans(self, text: str) -> tuple[Symbols, Symbols]:
        """A text with masks, and the whole text."""
        vocabulary, options = self.builder.vocabulary, self.options
        positions = min(options.max_source_positions, options.max_target_positions)
        kept = max(1, min(KEPT_TOKENS, (positions - PROMPT_TOKENS) * 3 // 4))
        tokens = vocabulary.ids(self.builder.bpe.encode(text))[:READ_TOKENS][-kept:]
        sentence = torch.tensor([vocabulary.bos, *tokens, vocabulary.eos])
        masked = self.builder.mask(sentence, self.streams.generator)[1:-1].tolist()
        masked_pieces, pieces = (vocabulary.pieces(ids, drop=()) for ids in (masked, tokens))
        return Symbols(masked_pieces), Symbols(pieces)

    def bins(self, box: Tensor) -> Symbols:
        bins = squashed_to_bins(box, self.options.max_image_size, self.options.num_bins)
        return Symbols(bins_to_text(bins))


class TrainingImages(EvaluationImages):
    """Images cut at random: enlarged, then a square from the middle, round an object, or from
    anywhere."""

    def full_view(self, image: Image.Image) -> Tensor:
        from torchvision.transforms.functional import center_crop

        from ofa.data.augment import MILD, RandAugment

        square = center_crop(self.enlarge(image), [self.options.patch_image_size] * 2)
        if not self.options.plain_images:
            square = RandAugment(MILD, 7, 0.0, FILL)(square, self.streams.colors)
        return self.builder.sent(square)

    def crop_around_box(self, image: Image.Image, box: Sequence[float]) -> tuple[Tensor, Symbols]:
        larger = self.enlarge(image)
        (moved,) = scaled([box], image.size, larger.size)
        square, moved = square_around(larger, moved, self.options.patch_image_size)
        return self.builder.sent(square), self.bins(moved)

    def detection_view(
        self, image: Image.Image, boxes: Sequence[Sequence[float]]
    ) -> tuple[Tensor, list[tuple[int, Symbols]]]:
        corners = torch.tensor(boxes, dtype=torch.float32)
        if self.streams.rng.random() < 0.5:
            image, corners = flipped(image, corners)
        side = 2 * self.options.code_image_size
        square, corners = jittered(image, corners, side, self.streams.generator)
        found = [(number, self.bins(corners[number])) for number in visible(corners)]
        return self.pixels(square), found

    def enlarge(self, image: Image.Image) -> Image.Image:
        largest, longest = self.options.enlargement
        sides = range(self.options.patch_image_size, largest + 1)
        return enlarged(image, sides, longest, self.streams.rng)


@dataclass(frozen=True)
class SpanMask:
    """Text infilling: some spans of whole words of token ids give way to ``<mask>``.

        the little boat sailed across the wide bay  ->  the little <mask> across the wide <mask>

    Draws are those of upstream, so that a seed gives its masks (tests/parity/test_span_mask.py).
    Source: Lewis et al., BART, ACL 2020: spans of 0, 1, 2, ... words by a Poisson distribution; a
    span of no words inserts a mask.

    Args:
        mask: id of ``<mask>``. ordinary: ids that a random token may have.
        starts: bool[V], whether a token begins a word; None: each is a word (``subword``).
        ratio: share of the words that is masked. poisson: mean length of a span in words.
        length: ``span-poisson`` or, every span one word, ``word`` or ``subword``.
        replace: a masked span becomes one ``<mask>`` (1), one per token (-1), or nothing (0).
        random_ratio, keep_ratio: shares of the masks that become a random token, or stay a token.
    """

    mask: int
    ordinary: range
    starts: Tensor | None
    ratio: float = 0.3
    length: str = "span-poisson"
    poisson: float = 3.0
    replace: int = 1
    random_ratio: float = 0.0
    keep_ratio: float = 0.0

    def __post_init__(self):
        """Raises: UserError that names the wrong option."""
        share = "expects a share from 0 to 1, found"
        if self.length not in LENGTHS:
            known = ", ".join(LENGTHS)
            raise UserError(f"--mask-length expects one of {known}; found {self.length}")
        if self.replace not in (-1, 0, 1):
            raise UserError(f"--replace-length: -1, 0 or 1, found {self.replace}")
        if not 0 <= self.ratio <= 1:
            raise UserError(f"--mask-ratio {share} {self.ratio}")
        if not 0 <= self.random_ratio <= 1:
            raise UserError(f"--random-ratio {share} {self.random_ratio}")
        if self.keep_ratio < 0 or self.random_ratio + self.keep_ratio > 1:
            raise UserError(
                f"--keep-ratio {self.keep_ratio} --random-ratio {self.random_ratio}: expects at"
                " most 1 together"
            )
        if not self.poisson > 0:
            raise UserError(f"--poisson-lambda: expects words above 0, found {self.poisson}")

    def __call__(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Args: tokens: int64[N], begin and end symbol included; both stay. Returns: int64[M]."""
        every = torch.ones(len(tokens), dtype=torch.bool)
        begins = every if self.starts is None else self.starts[tokens]
        begins[0] = begins[-1] = False
        count = math.ceil(begins.sum().float() * self.ratio)
        if count == 0:
            return tokens
        lengths = self.span_lengths(count, generator)
        inserts, lengths = int((lengths == 0).sum()), lengths[lengths > 0]
        if len(lengths):
            tokens = self.cover(tokens, begins, lengths, generator)
        return self.insert(tokens, inserts / len(tokens), generator) if inserts else tokens

    def span_lengths(self, count: int, generator: torch.Generator) -> Tensor:
        """Words of each span, ``count`` words in all: int64[spans]."""
        if self.length != "span-poisson":
            return torch.ones(count, dtype=torch.int64)
        probabilities = poisson_probabilities(self.poisson)
        lengths = torch.empty(0, dtype=torch.int64)
        while lengths.sum() < count:
            more = torch.multinomial(probabilities, count, replacement=True, generator=generator)
            lengths = torch.cat([lengths, more])
        total = lengths.cumsum(0)
        last = int((total >= count).nonzero()[0, 0])
        lengths[last] -= total[last] - count
        return lengths[: last + 1]

    def cover(
        self, tokens: Tensor, begins: Tensor, lengths: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Mask spans of 1, 2, ... words that begin at random words; they may overlap. Args:
        lengths: int64[spans], in words."""
        words = begins.nonzero()[:, 0]
        chosen = words[torch.randperm(len(words), generator=generator)[: len(lengths)]]
        chance = torch.empty(len(chosen)).uniform_(generator=generator)
        masked, remains = tokens.clone(), torch.ones(len(tokens), dtype=torch.bool)
        masks = self.replace != 0
        while len(chosen):
            if masks:  # or random tokens, or the tokens themselves
                masked[chosen] = self.mask
                random = chosen[chance < self.random_ratio]
                masked[random] = self.random_tokens(len(random), generator)
                kept = chosen[chance >= 1 - self.keep_ratio]
                masked[kept] = tokens[kept]
            else:
                remains[chosen] = False
            after = chosen + 1  # one token further in every span that has words left
            lengths = lengths - begins[chosen].long()
            goes_on = ((lengths > 0) | ~begins[after]) & (after < len(tokens) - 1)
            chosen, chance, lengths = after[goes_on], chance[goes_on], lengths[goes_on]
            masks = self.replace == -1
        return masked[remains]

    def random_tokens(self, count: int, generator: torch.Generator) -> Tensor:
        low, high = self.ordinary.start, self.ordinary.stop
        return torch.randint(low, high, (count,), generator=generator)

    def insert(self, tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
        """Add masks between the tokens, a number per token."""
        # as upstream: one more where the product is rounded up
        count = math.ceil(len(tokens) * share)
        total = len(tokens) + count
        places = torch.randperm(total - 2, generator=generator)[:count] + 1
        result, old = torch.full((total,), self.mask), torch.ones(total, dtype=torch.bool)
        random = math.ceil(count * self.random_ratio)
        result[places[:random]] = self.random_tokens(random, generator)
        old[places] = False
        result[old] = tokens
        return result


def poisson_probabilities(mean: float) -> Tensor:
    """Probability of 0, 1, 2, ... words: float32[lengths], sum 1."""
    found = [math.exp(-mean)]
    while len(found) <= LONGEST and (found[-1] >= RAREST or len(found) <= mean):
        found.append(found[-1] * mean / len(found))
    return torch.tensor(found) / torch.tensor(found).sum()
