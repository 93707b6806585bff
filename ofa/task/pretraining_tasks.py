"""The eight tasks of pretraining, how often each is trained, and which of them a row may ask for.

A row of the image-text stream is a sample of its type (caption, qa, visual_grounding), and often a
second one: image_text_matching or grounded_captioning. With every eighth row comes one group of the
auxiliary streams: two samples of text_infilling, one of image_infilling, one of detection.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ofa.errors import UserError, did_you_mean, place
from ofa.io.flags import option
from ofa.io.json_files import load_json
from ofa.io.values import read_decimal
from ofa.task.columns import Column, TsvSchema
from ofa.task.task_spec import Example, RowContext, TaskOptions
from ofa.task.text import kind_of_pair

PAIR_TASKS = ("caption", "qa", "visual_grounding", "grounded_captioning", "image_text_matching")
EXTRA_TASKS = ("text_infilling", "image_infilling", "detection")
TASKS = PAIR_TASKS + EXTRA_TASKS
# samples of a group, as upstream
GROUP = {"text_infilling": 2, "image_infilling": 1, "detection": 1}
PAIRS_PER_GROUP = 8  # rows of pairs
MOST_WEIGHT = 1e6  # samples of a task per row
LEAST_WEIGHT = 0.001  # besides 0
UPSTREAM_SIDES = range(256, 385)  # --patch-image-size of upstream's pretrainings
UPSTREAM_LARGEST, LARGER, LONGEST = 480, 1.25, 1.4


@dataclass
class PretrainingOptions(TaskOptions):
    """Options of ``unify_task``."""

    data: Optional[str] = option(
        None, "TSV files of images with texts in turn, the last for validation; 'none': no pairs"
    )
    text_data: Optional[str] = option(None, "TSV files of texts, as DATA; none: no text infilling")
    image_data: Optional[str] = option(
        None, "TSV files of images and their codes; none: no image infilling"
    )
    detection_data: Optional[str] = option(
        None, "TSV files of images and their objects; none: no detection"
    )
    text_selected_cols: Optional[str] = option(None, "columns id, text (default 0,1)")
    image_selected_cols: Optional[str] = option(None, "columns id, image, codes (default 0,1,2)")
    detection_selected_cols: Optional[str] = option(
        None, "columns id, image, objects (default 0,1,2)"
    )
    neg_sample_dir: Optional[str] = option(
        None, "folder of negative samples for image-text matching (ofa negatives build)"
    )
    task_weights: Optional[str] = option(
        None,
        "how often each task is trained: 'qa=2,detection=0'; 1 where nothing is said."
        f" Tasks: {', '.join(TASKS)}",
    )
    skip_bad_rows: int = option(0, "number of broken rows to replace by others before failing")
    max_image_size: int = option(512, "image size in pixels that the location bins cover")
    max_resize: Optional[int] = option(
        None, "shorter side up to which training images are enlarged; default: 480, or 1.25 times"
    )
    plain_images: bool = option(
        False,
        "training images are cut, but not turned or brightened: for small images",
        argparse_alias="--plain-pictures",
    )
    code_image_size: int = option(128, "side in pixels of the middle that image codes stand for")
    pretrain_seed: int = option(7, "changes what is drawn at random, like --seed")
    mask_ratio: float = option(0.3, "share of the words of a text that are masked")
    random_ratio: float = option(0.0, "share of the masks that become random tokens")
    keep_ratio: float = option(0.0, "share of the masks whose words stay")
    mask_length: str = option("span-poisson", "what is masked: span-poisson, word or subword")
    poisson_lambda: float = option(3.0, "mean length of a masked span, words")
    replace_length: int = option(1, "masks per span: 1, 0, or -1: one per token")

    @property
    def enlargement(self) -> tuple[int, int]:
        """Largest shorter side, largest longer side of an enlarged training image, pixels."""
        side, largest = self.patch_image_size, self.max_resize
        if largest is None:
            largest = UPSTREAM_LARGEST if side in UPSTREAM_SIDES else round(LARGER * side)
        return largest, round(LONGEST * largest)


@dataclass
class PretrainingContext(RowContext):
    """What the functions that read a row may use besides it."""

    # how images become what the model sees (``ofa.data.pretraining.EvaluationImages``)
    images: Any
    # what does not fit an image (``ofa.data.negatives.NegativeSampler``), for image-text matching
    negatives: Any = None


def parse_weights(text: Optional[str]) -> dict[str, float]:
    """Weight of every task: ``"qa=2,detection=0"`` or ``'{"qa": 2}'``; 1 where not named. Raises:
    UserError for an unknown task, or a weight that is not a number or out of bounds."""
    usage, text = "--task-weights expects 'qa=2,detection=0' or JSON", text or ""
    try:
        given = (
            load_json(text)
            if text.lstrip().startswith("{")
            else dict(part.strip().split("=") for part in text.split(",") if part.strip())
        )
    except ValueError as error:
        raise UserError(f"{usage}, found {text!r} ({error})") from None
    weights = dict.fromkeys(TASKS, 1.0)
    for task, value in given.items():
        if task not in weights:
            known = f"known: {', '.join(TASKS)}{did_you_mean(task, TASKS)}"
            raise UserError(f"{usage}, found the unknown task {task!r}; {known}")
        try:
            weights[task] = read_decimal(value)
        except ValueError:
            weights[task] = math.nan
        if not 0 <= weights[task] <= MOST_WEIGHT:
            bounds = f"a number from 0 to {MOST_WEIGHT:g}"
            raise UserError(f"{usage}: a weight is {bounds}, found {task}={value}")
        if 0 < weights[task] < LEAST_WEIGHT:
            raise UserError(
                f"{usage}: a weight is 0 or {LEAST_WEIGHT} and more, found {task}={value}: nearly"
                " all rows would be read in vain; leave the task out, or raise the weights of the"
                " others"
            )
    return weights


def whole_times(weight: float, rng) -> int:
    """A weight as a number of samples: integers as they are, 1.5 as 1 or 2."""
    times, rest = divmod(weight, 1)
    return int(times) + (rest > 0 and rng.random() < rest)


Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RowType:
    """Rows that are read in one way."""

    tasks: tuple[str, ...]  # that a row has samples for
    # a row by column name -> the example of each task; later ones may be missing
    read: Callable[[Row, PretrainingContext], list[Example]]
    columns: tuple[Column, ...] = ()  # of such a row, where other rows of the file differ


@dataclass(frozen=True, kw_only=True)
class RowKind(TsvSchema):
    """One kind of file; its name begins the names of its files and of its options."""

    types: Mapping[str, RowType]  # of its rows; of several the column ``type`` names one
    options: type[TaskOptions] = PretrainingOptions

    @property
    def files(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def flag(self) -> str:
        return "--selected-cols" if len(self.types) > 1 else f"--{self.name}-selected-cols"

    @property
    def by_type(self) -> dict[str, dict[str, Column]]:
        """Content of the column ``type`` -> what columns of such a row are, by their names."""
        types = self.types.items()
        return {name: {column.name: column for column in rows.columns} for name, rows in types}

    def type_of(self, row: Row, where: str = "") -> RowType:
        """Raises: UserError if a row is of an unknown type."""
        if len(self.types) == 1:
            return next(iter(self.types.values()))
        name = kind_of_pair(row["type"])
        if name not in self.types:
            raise UserError(
                f"{place(where)}task 'unify_task' expects a type of row, one of"
                f" {', '.join(self.types)}; found {row['type'][:40]!r}; does --selected-cols name"
                f" the columns {', '.join(self.column_names)}?"
            )
        return self.types[name]

    def read(self, row: Row, context: PretrainingContext) -> list[Example]:
        """The examples of a row, of one task each. Raises: UserError if it breaks a rule."""
        return self.type_of(row, context.where).read(row, context)
