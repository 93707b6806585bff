"""What a task is: a declaration that one small file in ``tasks/`` makes.

From a row to a figure: ``example`` -> the network -> ``Hypothesis`` -> ``prediction`` ->
``Prediction`` (an answer, a box) -> ``metrics`` and ``result``; what a row's references and sizes
are comes along as a ``BatchRow``. All else is the same for all tasks and knows none of them.
A spec travels to worker processes, so it holds plain functions of a module, no lambdas.
"""

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Optional, Union

from PIL import Image

from ofa.errors import UserError, place
from ofa.io.flags import option
from ofa.task.columns import TsvSchema
from ofa.task.prediction import (
    BatchRow,
    Hypothesis,
    Prediction,
    Shown,
    parse_objects,
    text_prediction,
    text_result,
)
from ofa.task.scoring import TaskMetrics
from ofa.task.text import JOIN, parse_answers
from ofa.tokens.boxes import parse_box

if TYPE_CHECKING:
    import torch  # only where samples are made: commands start without it


@dataclass
class TaskOptions:
    """Command-line options that every task has. A task with more of them derives its own class."""

    data: Optional[str] = option(
        None,
        "comma separated TSV files or shards (a folder, x-{000000..000009}.tar, 'x-*.tar'): one or"
        " several for training (used in turn, one per epoch), the last one for evaluation",
    )
    selected_cols: Optional[str] = option(None, "column numbers in the order of the task: 0,4,2")
    bpe: Optional[str] = option(None, "gpt2, bert or sentencepiece, if not as the folder says")
    bpe_dir: Optional[str] = option(None, "vocabulary folder: dict.txt and the files of its BPE")
    max_source_positions: int = option(1024, "longest source the model has positions for")
    max_target_positions: int = option(1024, "longest target the model has positions for")
    max_src_length: int = option(128, "longest source text")
    max_tgt_length: int = option(30, "longest target text")
    code_dict_size: int = option(8192, "number of image codes in the vocabulary")
    patch_image_size: int = option(480, "side of the square image given to the model, pixels")
    orig_patch_image_size: int = option(256, "image side in pretraining (--interpolate-position)")
    num_bins: int = option(1000, "location bins per image side")
    imagenet_default_mean_and_std: bool = option(False, "normalize images by ImageNet's mean, std")
    constraint_range: Optional[str] = option(
        None, "START,END (end excluded): besides the specials only these tokens are generated"
    )
    decode_on_device: bool = option(False, "the device decodes JPEG images; pixels differ a little")
    uses_ema: bool = option(False, "validate with the averaged weights that --store-ema keeps")
    shuffle: bool = option(True, "read the training rows in a new order every epoch")
    shuffle_buffer: Optional[int] = option(
        None, "samples to shuffle among, if not 10000 (shards) or 0 (TSV)"
    )

    def __post_init__(self):
        for item in fields(self):
            known, value = item.metadata.get("choices"), getattr(self, item.name)
            if known and value not in known:
                flag = item.name.replace("_", "-")
                raise UserError(f"--{flag}: expected one of {', '.join(known)}, found {value!r}")


@dataclass
class GenerativeOptions(TaskOptions):
    """Options of a task whose answers are generated."""

    eval_args: Optional[str] = option("{}", "generation options for validation: '{\"beam\":5}'")
    eval_print_samples: bool = option(False, "log one prediction per validation batch")


@dataclass
class SampledOptions(GenerativeOptions):
    """The same for a task whose samples can be optimized."""

    scst: bool = option(False, "optimize samples of the model; keeps all captions of a row")
    scst_args: str = option("{}", "generation options for the samples, as --eval-args")


@dataclass
class BoxOptions(TaskOptions):
    """Options of a task with boxes."""

    max_image_size: int = option(512, "image size in pixels that the location bins cover")


class Symbols(str):
    """Symbols of the vocabulary, not for the BPE: ``Symbols("<bin_12> <bin_40>")``."""


Text = Union[str, Sequence[str]]  # ordinary text, or a sequence that mixes texts and Symbols


@dataclass
class RowContext:
    """What the function that reads a row may use besides the row."""

    options: Any  # of the task
    split: str
    language: str  # "zh" with a BERT vocabulary, else "en", as upstream
    open_image: Callable[[str], Image.Image]  # image column -> RGB image
    where: str  # "caption_train.tsv:17", the beginning of an error message
    index: int  # number of the row, from 0
    rng: random.Random  # decided by (seed, epoch, row) alone
    task: str = field(default="", kw_only=True)  # its name, for error messages

    @property
    def training(self) -> bool:
        return self.split == "train"

    def error(
        self, expected: str, found: str, remedy: str = "fill it in or remove the row"
    ) -> UserError:
        expects = f"{place(self.where)}task '{self.task}' expects {expected}"
        return UserError(f"{expects}, found {found}; {remedy}")


@dataclass
class Example:
    """One row as the task sees it.

    Attributes:
        source: what is asked; the leading space of the English prompts is part of it.
        target: what is expected, without the end symbol.
        id: written to the result file.
        image: a PIL image is resized to the square that the model sees and normalized; float[3, H,
            W] is taken as it is.
        image_2: for ``--num-image-types 2``.
        answers: to this row, where they differ from row to row.
        max_source_tokens: start and end symbol not counted.
        max_target_tokens: end symbol not counted.
        prompt_type: what the decoder is given before it answers: ``none`` (the start symbol),
            ``src`` (the whole source), ``prev_output`` (the source without its end symbol); None:
            as ``none``, but the batch has no ``decoder_prompts``.
        prefix_tokens: the batch has the decoder's prompt under this name as well.
        unscored: first target tokens that are given, not learned; the end symbol is.
        ends: the end symbol is learned behind the target; else the target alone, and the batch has
            no ``decoder_prompts``, as upstream's GLUE.
        augment: the image is cropped, flipped, changed in color and partly erased.
        noise_ratio: share of the tokens that the decoder reads, replaced by chance.
        extra: see ``ofa.data.sample.Sample``.
    """

    source: Text
    target: Text
    id: Union[str, int, None] = None
    image: Union[Image.Image, "torch.Tensor", None] = None
    image_2: Union[Image.Image, "torch.Tensor", None] = None
    answers: Optional[Sequence[str]] = None
    max_source_tokens: Optional[int] = None
    max_target_tokens: Optional[int] = None
    prompt_type: Optional[str] = None
    prefix_tokens: bool = False
    unscored: int = 0
    ends: bool = True
    augment: bool = False
    noise_ratio: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decoding:
    """How a run gets answers from the network."""

    rank: bool = False  # score every answer of the set and take the best; else generate
    constrained: bool = True  # what is generated is an answer of the set (if the task has one)
    bins_only: bool = False  # four location bins, with their probabilities among all tokens
    codes_only: bool = False  # the codes of an image, drawn by chance, as many as it has
    zero_shot: bool = False  # constraints act on probabilities, without renormalizing
    # hypotheses of a row that metrics look at, and that an evaluation keeps
    # (``Prediction.others``) if it is not told how many
    best: int = 1


def decode(options: TaskOptions, zero_shot: bool, **how: Any) -> Decoding:
    """Decoding that depends on no option."""
    return Decoding(zero_shot=zero_shot, **how)


TAUGHT_BY_ANY = "*"  # in ``Usage.taught_by``: every checkpoint may be asked


@dataclass(frozen=True)
class Usage:
    """How people meet a task besides training it."""

    verb: str = ""  # method of the Python API, and of a request; default: the task's name
    title: str = ""  # this and the next three are shown on the page of ``ofa demo``
    noun: str = ""  # also in sentences: "trained for captions"
    about: str = ""
    button: str = "Ask"
    files: tuple[str, ...] = ()  # how the names of its data files begin, the usual one first
    validation: str = "val"  # what the names of its files call the validation split
    # by language (``en``, ``zh``), for a checkpoint that was not trained on the task
    generation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    taught_by: tuple[str, ...] = ()  # trainings that ask the same in the same words


@dataclass(frozen=True, kw_only=True)
class TaskSpec(TsvSchema):
    """The declaration of a task.

    Attributes:
        name: what commands accept.
        columns: of its files, in the order of ``--selected-cols``.
        default_cols: their numbers in the usual files; by default 0, 1, 2, ...
        example: a row by column name -> what is asked and expected.
        aliases: of its name, that commands accept as well.
        usage: how people meet it besides training.
        options: of the command line, a dataclass.
        answers: options -> the texts that may be answered; None: anything may. Targets are then
            learned among the answers (``constraint_masks``), generation follows their trie, and
            they can be ranked.
        decoding: (options, zero-shot?) -> how answers are decoded.
        prediction: (hypothesis, its row, options) -> what it means.
        result: (id, prediction) -> one entry of ``<subset>_predict.json``.
        metrics: references, validation figures, final scores, constant baseline, reward.
    """

    example: Callable[[Mapping[str, str], RowContext], Example]
    aliases: tuple[str, ...] = ()
    usage: Usage = Usage()
    options: type[TaskOptions] = TaskOptions
    answers: Optional[Callable[[Any], Optional[Sequence[str]]]] = None
    decoding: Callable[[Any, bool], Decoding] = decode
    prediction: Callable[[Hypothesis, BatchRow, Any], Prediction] = text_prediction
    result: Callable[[Any, Prediction], dict[str, Any]] = text_result
    metrics: TaskMetrics = TaskMetrics()

    @property
    def verb(self) -> str:
        return self.usage.verb or self.name

    @property
    def needed_names(self) -> list[str]:
        """What a user has to say besides the image."""
        return [column.public_name for column in self.asked if column.needed]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.name, *self.aliases)))

    @property
    def files(self) -> tuple[str, ...]:
        return self.usage.files or (self.name,)

    @property
    def title(self) -> str:
        return self.usage.title or self.name.replace("_", " ").capitalize()

    @property
    def noun(self) -> str:
        return self.usage.noun or self.name

    def predicts(self, kind: str) -> bool:
        return any(column.kind == kind for column in self.targets)

    @property
    def generates_images(self) -> bool:
        """Whether predictions are images (``ofa.tasks.fairseq_image_generation``)."""
        return self.predicts("image_codes")

    def bound(self, options: TaskOptions) -> "TaskSpec":
        """The declaration of a run: this one, unless options decide what the columns are."""
        return self

    def row_references(self, row: Mapping[str, str]) -> Any:
        """The references of a row as they stand in the file; empty if it has none.

        Returns:
            Answer -> confidence of answers and labels, xyxy of a box, else a list of texts; images
            are judged by what was asked.
        """
        column, *_ = self.targets
        text = self.question(row) if column.kind == "image_codes" else row[column.name]
        if not text.strip():
            return []
        if column.kind == "label":
            answer = column.labels.get(text.strip()) if column.labels else text.strip()
            return {answer: 1.0} if answer else {}
        if column.kind == "texts":
            return [part.strip() for part in text.split(JOIN) if part.strip()]
        readers = {"answer": parse_answers, "box": parse_box, "boxes": parse_objects}
        if column.kind in readers:
            return readers[column.kind](text)
        return [column.clean(text).strip()]

    def question(self, row: Mapping[str, str]) -> str:
        """What is asked of a row, for pages; nothing if all rows are asked the same."""
        return " | ".join(
            row[column.name] for column in self.asked if column.needed and column.kind == "text"
        )

    def shown(self, row: Mapping[str, str], prediction: Prediction, references: Any) -> Shown:
        """What a page shows.

        Args:
            references: ``row_references`` of the row, or None.
        """
        asked = [parse_box(row[column.name]) for column in self.asked if column.kind == "box"]
        found = [box for box, _ in prediction.boxes or ()]
        found += [] if prediction.box is None else [prediction.box]
        answer, true = prediction.text, []
        if self.predicts("boxes"):
            true = [box for box, _ in references or ()]
            references = [name for _, name in references or ()]
        elif self.predicts("box"):
            true, answer, references = [references] if references else [], "", ()
        elif isinstance(references, Mapping):
            references = sorted(references, key=references.__getitem__, reverse=True)
        outlined = {"asked about": asked, "true": true, "predicted": found}
        boxes = [(name, box) for name, some in outlined.items() for box in some]
        return Shown(self.question(row), answer, references or (), boxes)


def mixture_spec(name: str, options: type[TaskOptions], cls: type[TaskSpec] = TaskSpec) -> TaskSpec:
    """Stands in for one declaration where several tasks, whose rows are theirs, train together."""
    return cls(name=name, columns=(), options=options, example=_no_rows)


def _no_rows(row: Mapping[str, str], context: RowContext) -> Example:
    raise AssertionError(f"{context.where}: rows belong to another declaration")


def seed_of(seed: int, row: Any) -> int:
    """A number for what is drawn by chance for a row, the same in every batch and process."""
    return zlib.crc32(f"{seed}-{row}".encode())
