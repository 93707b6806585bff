"""One row of a TSV file -> one sample of token ids and pixels.

The content of a sample depends on the row and on ``(seed, epoch, index)`` alone, so rows may be
read in any order, by any number of workers, and a run resumes exactly.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Optional, TypedDict, cast

import numpy as np
import torch
from PIL import Image

from ofa.data.encoded_images import EncodedImage
from ofa.data.images import IMAGE_STATISTICS, mean_and_std, normalized, pixels_of, squashed
from ofa.io.images import UndecodedJpeg, decode_image, open_undecoded
from ofa.task.answers import AnswerSet
from ofa.task.task_spec import Example, RowContext, Symbols, TaskOptions, TaskSpec, Text
from ofa.tokens.bpe import Bpe
from ofa.tokens.vocabulary import Vocabulary


class Sample(TypedDict, total=False):
    """A sample before batching; keys that a task does not use are left out. Letters: S source
    length, T target length, V vocabulary size."""

    id: Any  # from the file, or a number
    source: torch.Tensor  # int64[S]: <s> what does the image describe? </s>
    # float32[3, H, W], normalized; or uint8, or a file (``for_device``)
    patch_image: torch.Tensor | EncodedImage
    patch_image_2: torch.Tensor | EncodedImage  # the same, second image of a pair
    image_statistics: torch.Tensor  # float32[2, 3], to normalize images of uint8 by
    patch_mask: torch.Tensor  # bool[1], False: no image, patch_image is a filler
    code_mask: torch.Tensor  # bool[1], True: the target is image codes
    code_image: Any  # image that the codes of the target were made from
    target: torch.Tensor  # int64[T]: a cat </s>
    prev_output_tokens: torch.Tensor  # int64[T]: <s> a cat
    conf: torch.Tensor  # float32[1], confidence of the answer, weighs the loss
    ref_dict: dict[str, float]  # accepted answer -> score
    constraint_mask: Optional[torch.Tensor]  # bool[T, V], tokens allowed at each position
    answers: AnswerSet  # what may answer this row, where that differs from row to row
    # int64[P], beginning of prev_output_tokens that is given, not predicted
    decoder_prompt: np.ndarray
    prefix_tokens: torch.Tensor  # int64[P - 1], decoder_prompt without <s>
    target_str: str  # target as in the file
    w_resize_ratio: torch.Tensor  # float32[], model pixels per original pixel
    h_resize_ratio: torch.Tensor
    region_coord: torch.Tensor  # float32[4], xyxy in original pixels
    task: str  # name of the task, where samples of several tasks meet


TASK: Final = "task"  # that key, also of a batch whose samples are all of one task


def text_ids(text: Text, vocabulary: Vocabulary, bpe: Bpe) -> list[int]:
    """Token ids of a text, or of a sequence of texts and ``Symbols``; no start or end symbol."""
    parts = [text] if isinstance(text, str) else text
    pieces = [part if isinstance(part, Symbols) else bpe.encode(part) for part in parts]
    return vocabulary.ids(" ".join(piece for piece in pieces if piece))


@dataclass
class SampleBuilder:
    """Turns rows of one split into samples, as a task declares it.

    Args:
        split: ``train`` or the name of an evaluation split.
        seed: of the run.
        answers: the set of the task, if it has one; made here when left out.
        for_device: images stay as decoded, a quarter of the bytes and less work for who reads
            rows, or as files (``--decode-on-device``), and batches have ``facts``; whoever asks
            for it gives batches to ``normalize_images`` on their device. Others get the batches of
            upstream.
    """

    spec: TaskSpec
    options: TaskOptions
    vocabulary: Vocabulary
    bpe: Bpe
    split: str
    seed: int = 1
    answers: Optional[AnswerSet] = None
    for_device: bool = False

    def __post_init__(self):
        if self.answers is None:
            self.answers = answer_set(self.spec, self.options, self.vocabulary, self.bpe)
        statistics = mean_and_std(self.options.imagenet_default_mean_and_std)
        self.statistics = torch.tensor(statistics)  # float32[2, 3]
        if self.split == "train":  # before each of the data workers imports it, in every epoch
            import ofa.data.augment  # noqa: F401

    @cached_property
    def augmenting(self) -> Any:
        """A ``TrainingTransform``. Evaluations do without, and without torchvision: a second."""
        from ofa.data.augment import TrainingTransform

        return TrainingTransform(self.options.patch_image_size, *self.statistics.tolist())

    def __call__(
        self, row: Mapping[str, str], index: int, epoch: int = 1, where: str = "", open_image=None
    ) -> Sample:
        """The sample of ``row``.

        Args: index: number of the row in its file. where: ``file:line``, for error messages.
            open_image: image column -> RGB image; by default the column is base64.
        Raises: UserError naming ``where``, if the row breaks a rule of the task or its image
            cannot be read.
        """
        example = self.example(row, index, epoch, where, open_image)
        return self.encode(example, random.Random(f"{self.seed}-{epoch}-{index}-image"))

    def example(
        self, row: Mapping[str, str], index: int, epoch: int = 1, where: str = "", open_image=None
    ) -> Example:
        """The row as the task's declaration reads it."""
        context = RowContext(
            options=self.options,
            split=self.split,
            language="zh" if self.bpe.kind == "bert" else "en",
            open_image=open_image or partial(self.open_image, where=where),
            where=where,
            index=index,
            rng=random.Random(f"{self.seed}-{epoch}-{index}"),
            task=self.spec.name,
        )
        return self.spec.example(row, context)

    def encode(self, example: Example, rng: Optional[random.Random]) -> Sample:
        """Token ids and pixels of an example. Args: rng: for random changes of the image and
        of what the decoder reads; None: no changes."""
        vocabulary, bpe = self.vocabulary, self.bpe
        source = text_ids(example.source, vocabulary, bpe)[: example.max_source_tokens]
        target = text_ids(example.target, vocabulary, bpe)[: example.max_target_tokens]
        source = [vocabulary.bos, *source, vocabulary.eos]
        # what the decoder is given before it answers, see ``Example.prompt_type``
        prompt = {"src": source, "prev_output": source[:-1]}.get(
            example.prompt_type or "", source[:1]
        )
        sample: Sample = {"source": torch.tensor(source)}
        if example.id is not None:
            sample["id"] = example.id
        augmented = rng if example.augment else None
        if example.image is not None:
            sample["patch_image"] = self.pixels(example.image, augmented)
            sample["patch_mask"] = torch.tensor([True])
            if sample["patch_image"].dtype == torch.uint8:
                sample[IMAGE_STATISTICS] = self.statistics
        if example.image_2 is not None:
            sample["patch_image_2"] = self.pixels(example.image_2, augmented)
        given = len(prompt) - 1  # not predicted: no target there
        scored = [vocabulary.pad] * min(example.unscored, len(target)) + target[example.unscored :]
        scored = [*scored, vocabulary.eos] if example.ends else scored or [vocabulary.pad]
        length = given + len(scored)
        sample["target"] = torch.tensor([vocabulary.pad] * given + scored)
        read = target
        if rng is not None and example.noise_ratio:  # its last words may be wrong
            generator = torch.Generator().manual_seed(rng.getrandbits(63))
            others = vocabulary.specials.stop, vocabulary.codes.start
            tokens = torch.tensor(target, dtype=torch.int64)
            read = replaced(tokens, example.noise_ratio, *others, generator).tolist()
        sample["prev_output_tokens"] = torch.tensor((prompt + read)[:length])
        if example.prompt_type is not None and example.ends:
            sample["decoder_prompt"] = np.array(prompt)
        if example.prefix_tokens:
            sample["prefix_tokens"] = torch.tensor(prompt[1:], dtype=torch.int64)
        answers = self.answers
        if example.answers is not None:
            answers = sample["answers"] = encoded_answers(example.answers, vocabulary, bpe)
        if self.spec.answers is not None or example.answers is not None:
            sample["constraint_mask"] = (
                None if answers is None else self.constraint_mask(answers, target, given)[:length]
            )
        sample.update(cast(Sample, example.extra))
        return sample

    def open_image(self, field: str, where: str) -> Image.Image:
        """Image in RGB of a column; a JPEG that the device decodes comes undecoded."""
        opened = open_undecoded if self.options.decode_on_device else decode_image
        return opened(field, where)

    def pixels(
        self, image: Image.Image | torch.Tensor, rng: Optional[random.Random] = None
    ) -> torch.Tensor | EncodedImage:
        """[3, S, S] of an image, changed by ``rng``; a tensor is taken as it is."""
        if isinstance(image, torch.Tensor):
            return image
        if isinstance(image, UndecodedJpeg) and rng is None and self.for_device:
            return EncodedImage(image, self.options.patch_image_size)
        return self.square(image) if rng is None else self.augmenting(image, rng)

    def square(self, image: Image.Image) -> torch.Tensor:
        """[3, S, S] of an image that is squashed to the side S."""
        return self.sent(squashed(image, self.options.patch_image_size))

    def sent(self, square: Image.Image) -> torch.Tensor:
        """[3, H, W] of an image that has the size that the model sees."""
        pixels = pixels_of(square)
        return pixels if self.for_device else normalized(pixels, self.statistics)

    def constraint_mask(self, answers: AnswerSet, target: list[int], given: int) -> torch.Tensor:
        """What an answer of the set may continue with at each position: bool[given + T + 1, V];
        nothing at the ``given`` positions of the decoder's prompt."""
        mask = torch.zeros(given + len(target) + 1, len(self.vocabulary), dtype=torch.bool)
        for position in range(len(target) + 1):
            mask[given + position, answers.allowed_after(target[:position])] = True
        return mask


def answer_set(
    spec: TaskSpec, options: TaskOptions, vocabulary: Vocabulary, bpe: Bpe
) -> Optional[AnswerSet]:
    """The answers that a task may give in this run; None: anything may be answered."""
    texts = spec.answers(options) if spec.answers is not None else None
    return None if texts is None else encoded_answers(texts, vocabulary, bpe)


def encoded_answers(texts: Sequence[str], vocabulary: Vocabulary, bpe: Bpe) -> AnswerSet:
    return AnswerSet(
        texts, lambda text: text_ids(text, vocabulary, bpe), vocabulary.bos, vocabulary.eos
    )


def replaced(
    tokens: torch.Tensor, ratio: float, low: int, high: int, generator: torch.Generator
) -> torch.Tensor:
    """int64[T], each token with the probability ``ratio`` one of ``low <= id < high``; draws are
    those of upstream, in its order: which, then by what."""
    chosen = torch.empty(len(tokens)).uniform_(generator=generator) < ratio
    others = torch.randint(low, high, (int(chosen.sum()),), generator=generator)
    return tokens.masked_scatter(chosen, others)


def blank_image(field: str) -> Image.Image:
    """Stands for an image that nobody looks at."""
    return Image.new("RGB", (1, 1))
