"""Options of what loads a model: which one, where it computes, what an evaluation does with it."""

import argparse
import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ofa.errors import did_you_mean
from ofa.io.flags import option, options_of
from ofa.io.json_files import load_json

DEVICES = ("auto", "cpu", "cuda", "mps")


def device_name(text: str) -> str:
    """A device of a command line. Raises: ArgumentTypeError."""
    if text not in DEVICES and not re.fullmatch(r"cuda:[0-9]+", text):
        expected = f"expected one of {', '.join(DEVICES)}, cuda:1, ..., found {text!r}"
        raise argparse.ArgumentTypeError(expected + did_you_mean(text, DEVICES))
    return text


def device_option(default: str) -> Any:
    """The field of a device."""
    return option(
        default,
        "where to compute; auto: a CUDA GPU if there is one",
        const={"--cpu": "cpu"},
        parse=device_name,
        metavar="{" + ",".join(DEVICES) + "}",
    )


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    TITLE = "machine"

    device: str = device_option("auto")


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions:
    TITLE = "machine"

    precision: Literal["fp32", "fp16", "bf16"] | None = option(
        None,
        "of weights and activations, if not fp16 on GPUs and fp32 elsewhere",
        const={"--fp16": "fp16", "--bf16": "bf16"},
    )


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    checkpoint: str = option(help="checkpoint file", positional=True, also=("--path",))


@dataclass(frozen=True, kw_only=True)
class BaseOptions:
    base: str | None = option(None, "base of a delta checkpoint, if it has moved")


@dataclass(frozen=True, kw_only=True)
class EmaOptions:
    ema: bool = option(False, "use the checkpoint's averaged weights (EMA)", also=("--ema-eval",))


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions:
    overwrite: bool = option(False, "replace what is there", also=("--force",))


@dataclass(frozen=True, kw_only=True)
class ModelOptions(CheckpointOptions, BaseOptions, EmaOptions, DeviceOptions):
    bpe_dir: str | None = option(None, "vocabulary folder, if it has moved since training")


IMAGE_OPTIONS = """
    code_image_size sampling_times image_tokenizer vqgan_model_path vqgan_config_path
    clip_model_path image_text_scorer eval_clip_method gen_images_path
""".split()
GENERATION_OPTIONS = """
    beam max_len_a max_len_b min_len lenpen unkpen temperature no_repeat_ngram_size sampling
    sampling_topk sampling_topp diverse_beam_groups diverse_beam_strength constraint_range
    unnormalized
""".split()
# ``val`` of caption_val.tsv, ``testA`` of refcoco_testA-000000.tar, ``dev_matched`` of mnli's
SPLIT = re.compile(
    r"(?:^|_)(train|val|valid|(?:dev|test)_(?:mis)?matched|dev|test[A-Za-z0-9]*)"
    r"(?:-[0-9{}.]+)?\.[a-z]+$"
)
TASK = "the task, where it differs from the training"


def task_options() -> Iterable[type]:
    """The dataclasses that hold the options of tasks."""
    from ofa.tasks import declared_specs

    return [spec.options for spec in declared_specs()]


def generation_options() -> type:
    """The dataclass that holds the options of generation."""
    from ofa.models.generation.options import GenerationOptions

    return GenerationOptions


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(ModelOptions, PrecisionOptions):
    """What to evaluate, and how; several checkpoints, separated by ``:``, are an ensemble. None:
    the value that the checkpoint stores, or the usual one."""

    data: str | None = option(None, "TSV file; of a list with commas the last one", positional=True)
    images: str | None = option(None, "folder of images to caption, instead of a TSV")
    task: str | None = option(None, "task, if not the checkpoint's")
    overrides: dict[str, Any] | None = option(
        None,
        "stored options to replace, such as \"{'patch_image_size': 384}\"",
        flag="--model-overrides",
        also=("--overrides",),
        parse=lambda text: read_dictionary(text),
    )
    zero_shot: bool = option(False, "as of a model not finetuned: soft constraints, free answers")
    out: str | None = option(
        None, "folder for SUBSET_predict.json and SUBSET_scores.json", also=("--results-path",)
    )
    gen_subset: str | None = option(
        None, "SUBSET, the name of the results (default: images, val of caption_val.tsv, or test)"
    )
    n_best: int | None = option(None, "hypotheses per row, if not as the task needs", least=1)
    batch_size: int | None = option(
        None, "rows at a time, if not the checkpoint's validation batch, or 16", least=1
    )
    jobs: int = option(
        1,
        "processes on this machine; 0: one for each GPU, or one",
        least=0,
        also=("--nproc", "--processes"),
        env="NPROC GPUS_PER_NODE",
    )
    num_workers: int | None = option(
        None, "data workers per process, if not by cores on GPUs and 0 on a CPU", least=0
    )
    seed: int = option(7, "seed of sampling")
    compile: bool = option(False, "compile the encoder with torch.compile: for many rows")
    image_options: dict[str, Any] = options_of(task_options, *IMAGE_OPTIONS, title="text to image")
    generation: dict[str, Any] = options_of(
        generation_options, *GENERATION_OPTIONS, title="generation"
    )
    selected_cols: str | None = option(
        None, "columns in the order the task names them", metavar="N,N,...", title=TASK
    )
    bpe: Literal["gpt2", "bert", "sentencepiece"] | None = option(
        None, "kind of vocabulary, if not as the folder tells", title=TASK
    )
    task_options: dict[str, Any] = options_of(task_options, title=TASK)

    @property
    def subset(self) -> str:
        """The name of the rows: as given, as the name of their file ends, or images."""
        found = SPLIT.search(Path((self.data or "").split(",")[-1]).name)
        return self.gen_subset or (found[1] if found else "images" if self.images else "test")

    @property
    def replaced(self) -> dict[str, Any]:
        """Stored options to replace, by name."""
        given = {name: getattr(self, name) for name in ("base", "bpe_dir", "bpe", "selected_cols")}
        given = {name: value for name, value in given.items() if value is not None}
        return {**(self.overrides or {}), **given, **self.task_options, **self.image_options}


def read_dictionary(text: str) -> dict[str, Any]:
    """A Python or JSON dictionary of plain values. Raises: ArgumentTypeError."""
    for read in (ast.literal_eval, load_json):
        try:
            value = read(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, dict):
            return value
    raise argparse.ArgumentTypeError(
        f"expected a dictionary such as \"{{'eval_cider': False}}\", found {text!r}"
    )
