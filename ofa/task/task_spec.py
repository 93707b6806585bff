"""What a task is: a declaration that one small file in ``tasks/`` makes.

A task says which columns a row has, what is asked (source), what is expected (target), and how a
generated text becomes a prediction, a score and a row of the result file. Everything else -
encoding, images, batches, losses, generation, sharding, files - is the same for all tasks and knows
none of them::

    SPEC = TaskSpec(name="caption", columns=("id", "image", "caption"), example=caption_example,
    ...)

From a row to a figure: ``example`` (what is asked) -> the network -> ``Hypothesis`` (what it said)
-> ``prediction`` -> ``Prediction`` (what that means: an answer, a box) -> ``make_scorer`` and
``result``. What a row's references and sizes are comes along as a ``BatchRow``.

A spec travels to worker processes, so it holds plain functions of a module, no lambdas.
"""

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import torch
from PIL import Image

from ofa.errors import UserError
from ofa.io.flags import option
from ofa.task.prediction import (
    BatchRow,
    Hypothesis,
    Prediction,
    Shown,
    constant_text,
    shown_as_text,
)


@dataclass
class TaskOptions:
    """Command-line options that every task has. A task with more of them derives its own class."""

    data: Optional[str] = option(
        None,
        "comma separated TSV files, or shards (a folder, x-{000000..000009}.tar,"
        " 'x-*.tar'): one or several for training (used in turn, one per epoch), the last"
        " one for validation and evaluation",
    )
    selected_cols: Optional[str] = option(
        None, "comma separated column numbers, in the order in which the task names them"
    )
    bpe: Optional[str] = option(
        None, "gpt2, bert or sentencepiece; recognized from the folder when left out"
    )
    bpe_dir: Optional[str] = option(None, "vocabulary folder: dict.txt and the files of its BPE")
    max_source_positions: int = option(1024, "longest source the model has positions for")
    max_target_positions: int = option(1024, "longest target the model has positions for")
    max_src_length: int = option(128, "longest source text")
    max_tgt_length: int = option(30, "longest target text")
    code_dict_size: int = option(8192, "number of image codes in the vocabulary")
    patch_image_size: int = option(480, "side of the square image given to the model, pixels")
    orig_patch_image_size: int = option(
        256, "image side of pretraining, for --interpolate-position"
    )
    num_bins: int = option(1000, "location bins per image side")
    imagenet_default_mean_and_std: bool = option(
        False, "normalize images by ImageNet's mean and std instead of 0.5"
    )
    constraint_range: Optional[str] = option(
        None, "START,END (end excluded): besides the specials only these tokens are generated"
    )
    uses_ema: bool = option(False, "validate with the averaged weights that --store-ema keeps")
    shuffle: bool = option(
        True, "read the training rows in a new order every epoch; --no-shuffle: as in the file"
    )
    shuffle_buffer: Optional[int] = option(
        None,
        "read the training rows as a shuffle buffer of so many samples would, shard after"
        " shard in a new order; 0: any row may follow any other. When left out: 10000 for"
        " shards, 0 for TSV files",
    )


class Symbols(str):
    """Symbols of the vocabulary separated by spaces, e.g. ``Symbols("<bin_12> <bin_40>")``; not
    for the BPE."""


Text = Union[str, Sequence[str]]  # ordinary text, or a sequence that mixes texts and Symbols


@dataclass
class RowContext:
    """What the function that reads a row may use besides the row."""

    options: TaskOptions
    split: str
    language: str  # "zh" with a BERT vocabulary, else "en", as upstream
    open_image: Callable[[str], Image.Image]  # image column -> RGB image
    where: str  # "caption_train.tsv:17", the beginning of an error message
    index: int  # number of the row, from 0
    rng: random.Random  # decided by (seed, epoch, row) alone

    @property
    def training(self) -> bool:
        return self.split == "train"


@dataclass
class Example:
    """One row as the task sees it.

    Args:
        source: what is asked; the leading space of the English prompts is part of it.
        target: what is expected, without the end symbol.
        id: written to the result file; tasks without ids leave it out.
        image: a PIL image is resized to the square that the model sees and normalized; float[3, H,
            W] is taken as it is.
        max_source_tokens: cut the encoded source (start and end symbol not counted).
        max_target_tokens: cut the encoded target (end symbol not counted).
        prompt_type: what the decoder is given before it answers: ``none`` (the start symbol),
            ``src`` (the whole source), ``prev_output`` (the source without its end symbol). None:
            the task does not ask that way; as ``none``, but the batch has no ``decoder_prompts``.
        prefix_tokens: the batch also has the decoder's prompt as ``prefix_tokens``.
        unscored: so many first target tokens are given and not learned; the end symbol always is.
        ends: the end symbol is learned behind the target. False: the target alone, and the batch
            has no ``decoder_prompts``, as upstream's GLUE.
        noise_ratio: so many of the target tokens that the decoder reads, drawn by chance, are
            others of the vocabulary's text.
        extra: further keys of the sample (``conf``, ``ref_dict``, ...), see
            ``ofa.data.sample.Sample``.
    """

    source: Text
    target: Text
    id: Union[str, int, None] = None
    image: Union[Image.Image, torch.Tensor, None] = None
    max_source_tokens: Optional[int] = None
    max_target_tokens: Optional[int] = None
    prompt_type: Optional[str] = None
    prefix_tokens: bool = False
    unscored: int = 0
    ends: bool = True
    noise_ratio: float = 0.0
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


@dataclass(frozen=True)
class Decoding:
    """How a run gets answers from the network.

    Args:
        rank: score every answer of the set and take the best; else generate.
        constrained: what is generated is an answer of the set (if the task has one).
        bins_only: four location bins are generated; their probabilities are what they are among all
            tokens.
        codes_only: the codes of an image are drawn by chance, as many as an image has.
        zero_shot: constraints act on probabilities, without renormalizing.
        best: hypotheses of a row that metrics look at, and that an evaluation keeps
            (``Prediction.others``) if it is not told how many.
    """

    rank: bool = False
    constrained: bool = True
    bins_only: bool = False
    codes_only: bool = False
    zero_shot: bool = False
    best: int = 1


def generates(options: TaskOptions, zero_shot: bool) -> Decoding:
    """How most tasks decode."""
    return Decoding(zero_shot=zero_shot)


# (predictions of a batch, its rows) -> counts by name
Scorer = Callable[[list[Prediction], list[BatchRow]], dict[str, float]]


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
        columns: names of the selected columns, in order. optional_columns: those that may follow.
            other_columns: another order, for files that have as many columns as it names.
        default_cols: ``--selected-cols`` when the flag is left out.
        example: a row by column name -> what is asked and expected.
        options: the command-line options, a dataclass derived from ``TaskOptions``.
        prediction: (hypothesis, its row, options) -> what it means.
        references: a row of a batch -> the accepted answers in words.
        result: (id, prediction) -> one entry of ``<subset>_predict.json``.
        answers: options -> the texts that may be answered; None: anything may. Targets are then
            learned among the answers (``constraint_masks``), generation follows their trie, and
            they can be ranked.
        closed: rows of evaluation files have answers of the set as well.
        decoding: (options, zero-shot?) -> how answers are decoded.
        augment: training images are cropped, flipped, changed in color and partly erased at
            random.
        metrics: the figures that validation may report.
        make_scorer: (options, function that gives the references of every validation row) -> what
            counts for ``metrics``.
        row_references: a row by column name -> its references as they stand in the file: a list of
            texts, or what else the task's ``final_scores`` takes.
        final_scores: (predictions, their ``row_references``, names of scores or None for the usual
            ones) -> the scores that ``ofa evaluate`` reports.
        shown: (row by column name, prediction, ``row_references`` or None) -> what a page shows.
        reward: (sampled predictions, the row of each) -> what each earns when samples are optimized
            (``--scst``); None: CIDEr-D, as captions.
        constant: a line of text -> the prediction that it is when every row is answered so
            (``ofa.task.constant_baseline``).
        draws: predictions are images (``Prediction.codes``), see ``fairseq_image_generation``.
        best_constant: (lines, ``row_references`` of each row) -> the line that answers all rows
            best, and its scores; for tasks where ``final_scores`` would take too long for that.
    """

    name: str
    columns: tuple[str, ...]
    default_cols: str
    example: Callable[[Mapping[str, str], RowContext], Example]
    prediction: Callable[[Hypothesis, BatchRow, TaskOptions], Prediction]
    references: Callable[[BatchRow], list[str]]
    result: Callable[[Any, Prediction], dict[str, Any]]
    options: type[TaskOptions] = TaskOptions
    optional_columns: tuple[str, ...] = ()
    other_columns: tuple[str, ...] = ()
    answers: Optional[Callable[[TaskOptions], Optional[Sequence[str]]]] = None
    closed: bool = False
    decoding: Callable[[TaskOptions, bool], Decoding] = generates
    augment: bool = False
    metrics: tuple[Metric, ...] = ()
    make_scorer: Optional[Callable[[TaskOptions, Callable[[], list[list[str]]]], Scorer]] = None
    row_references: Optional[Callable[[Mapping[str, str]], Any]] = None
    final_scores: Optional[
        Callable[[Sequence[Prediction], Sequence[Any], Optional[Sequence[str]]], Scores]
    ] = None
    shown: Callable[[Mapping[str, str], Prediction, Any], Shown] = shown_as_text
    reward: Optional[Callable[[Sequence[Prediction], Sequence[BatchRow]], list[float]]] = None
    constant: Callable[[str], Prediction] = constant_text
    best_constant: Optional[
        Callable[[Sequence[str], Sequence[Any]], tuple[str, dict[str, float]]]
    ] = None
    draws: bool = False

    def names_of(self, count: int, where: str) -> tuple[str, ...]:
        """Names of so many selected columns. Raises: UserError beginning with ``where`` if the
        task knows no such rows."""
        every = (*self.columns, *self.optional_columns)
        if self.other_columns and count == len(self.other_columns):
            return self.other_columns
        if not len(self.columns) <= count <= len(every):
            raise UserError(
                f"{where}: --selected-cols: task '{self.name}' expects {len(self.columns)} columns"
                f" ({', '.join(self.columns)}), found {count}; the usual choice is"
                f" --selected-cols={self.default_cols}"
            )
        return every[:count]

    def enabled_metrics(self, options: TaskOptions) -> list[Metric]:
        """The metrics that this run computes while validating."""
        return [metric for metric in self.metrics if metric.enabled(options)]


def always(options: TaskOptions) -> bool:
    """For metrics that every run computes."""
    return True


def seed_of(seed: int, row: Any) -> int:
    """A number for what is drawn by chance for a row, the same in every batch and process."""
    return zlib.crc32(f"{seed}-{row}".encode())
