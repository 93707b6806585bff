"""What a task is: a declaration that one small file in ``tasks/`` makes.

A task says which columns a row has, what is asked (source), what is expected (target), and how a generated
text becomes a prediction, a score and a row of the result file. Everything else - encoding, images, batches,
losses, generation, sharding, files - is the same for all tasks and knows none of them::

    SPEC = TaskSpec(name="caption", columns=("id", "image", "caption"), example=caption_example, ...)

A spec travels to worker processes, so it holds plain functions of a module, no lambdas.
"""

import random
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional, Sequence, Union

import torch
from PIL import Image


@dataclass
class TaskOptions:
    """Command-line options that every task has. A task with more of them derives its own class."""

    data: Optional[str] = field(
        default=None,
        metadata={
            "help": "comma separated TSV files: one or several for training (used in turn, one per epoch), "
            "the last one for validation and evaluation"
        },
    )
    selected_cols: Optional[str] = field(
        default=None,
        metadata={"help": "comma separated column numbers, in the order in which the task names them"},
    )
    bpe: Optional[str] = field(
        default=None,
        metadata={"help": "gpt2, bert or sentencepiece; recognised from the folder when left out"},
    )
    bpe_dir: Optional[str] = field(
        default=None, metadata={"help": "vocabulary folder: dict.txt and the files of its BPE"}
    )
    max_source_positions: int = field(
        default=1024, metadata={"help": "longest source the model has positions for"}
    )
    max_target_positions: int = field(
        default=1024, metadata={"help": "longest target the model has positions for"}
    )
    max_src_length: int = field(default=128, metadata={"help": "longest source text"})
    max_tgt_length: int = field(default=30, metadata={"help": "longest target text"})
    code_dict_size: int = field(default=8192, metadata={"help": "number of image codes in the vocabulary"})
    patch_image_size: int = field(
        default=480, metadata={"help": "side of the square image given to the model, pixels"}
    )
    orig_patch_image_size: int = field(
        default=256, metadata={"help": "image side of pre-training, for --interpolate-position"}
    )
    num_bins: int = field(default=1000, metadata={"help": "location bins per image side"})
    imagenet_default_mean_and_std: bool = field(
        default=False, metadata={"help": "normalise images by ImageNet's mean and std instead of 0.5"}
    )
    constraint_range: Optional[str] = field(
        default=None,
        metadata={"help": "START,END (end excluded): besides the specials only these tokens are generated"},
    )
    uses_ema: bool = field(
        default=False, metadata={"help": "validate with the averaged weights that --store-ema keeps"}
    )
    shuffle: bool = field(
        default=True,
        metadata={"help": "read the training rows in a new order every epoch; --no-shuffle: as in the file"},
    )


class Symbols(str):
    """Symbols of the vocabulary separated by blanks, e.g. ``Symbols("<bin_12> <bin_40>")``; not for the BPE."""


Text = Union[str, Sequence[str]]  # ordinary text, or a sequence that mixes texts and Symbols


@dataclass
class RowContext:
    """What the function that reads a row may use besides the row."""

    options: TaskOptions
    split: str
    language: str  # "zh" with a BERT vocabulary, else "en", as in the release
    open_image: Callable[[str], Image.Image]  # image column -> RGB image
    where: str  # "caption_train.tsv:17", the beginning of an error message
    rng: random.Random  # decided by (seed, epoch, row) alone

    @property
    def training(self) -> bool:
        return self.split == "train"


@dataclass
class Example:
    """One row as the task sees it.

    Args:
        source: what is asked; the leading blank of the English prompts is part of it.
        target: what is expected, without the end symbol.
        id: written to the result file; tasks without ids leave it out.
        image: a PIL image is resized to the square that the model sees and normalised; float[3, H, W] is
            taken as it is.
        max_source_tokens: cut the encoded source (start and end symbol not counted).
        max_target_tokens: cut the encoded target (end symbol not counted).
        extra: further keys of the sample (``conf``, ``ref_dict``, ...), see ``ofa.data.sample.Sample``.
    """

    source: Text
    target: Text
    id: Union[str, int, None] = None
    image: Union[Image.Image, torch.Tensor, None] = None
    max_source_tokens: Optional[int] = None
    max_target_tokens: Optional[int] = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A figure of validation, computed from counts that are summed over batches and ranks first.

    Counts are never averaged by batch, so the figure is the same for 1 and N processes.

    Args:
        name: as in ``--best-checkpoint-metric``.
        counts: names of the counts, each with a leading ``_``.
        value: summed counts by name -> the figure.
        enabled: options -> whether this run computes it.
    """

    name: str
    counts: tuple[str, ...]
    value: Callable[[Mapping[str, float]], float]
    enabled: Callable[[TaskOptions], bool]


# (predictions, their references) -> counts by name
Scorer = Callable[[list[str], list[list[str]]], dict[str, float]]


@dataclass
class Scores:
    """Scores of a whole evaluation by name: over all rows, and one value per row."""

    overall: dict[str, float] = field(default_factory=dict)
    by_row: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskSpec:
    """The declaration of a task.

    Args:
        name: ``--task NAME``.
        columns: names of the selected columns, in order.
        default_cols: ``--selected-cols`` when the flag is left out.
        example: a row by column name -> what is asked and expected.
        options: the command-line options, a dataclass derived from ``TaskOptions``.
        prediction: generated text -> the answer that is scored and written.
        references: decoded target text -> the accepted answers.
        result: (id, prediction) -> one entry of ``<subset>_predict.json``.
        metrics: the figures that validation may report.
        make_scorer: (options, function that gives all references of the validation file) -> what counts for
            ``metrics``.
        row_references: a row by column name -> its reference texts as they stand in the file.
        final_scores: (predictions, their ``row_references``, names of scores or None for the usual ones) -> the scores
            that ``ofa evaluate`` reports.
    """

    name: str
    columns: tuple[str, ...]
    default_cols: str
    example: Callable[[Mapping[str, str], RowContext], Example]
    prediction: Callable[[str], str]
    references: Callable[[str], list[str]]
    result: Callable[[Any, str], dict[str, Any]]
    options: type[TaskOptions] = TaskOptions
    metrics: tuple[Metric, ...] = ()
    make_scorer: Optional[Callable[[TaskOptions, Callable[[], list[list[str]]]], Scorer]] = None
    row_references: Optional[Callable[[Mapping[str, str]], list[str]]] = None
    final_scores: Optional[Callable[[Sequence[str], Sequence[Sequence[str]], Optional[Sequence[str]]], Scores]] = None

    def enabled_metrics(self, options: TaskOptions) -> list[Metric]:
        """The metrics that this run computes while validating."""
        return [metric for metric in self.metrics if metric.enabled(options)]
